"""A precision against its reference, averaged over the adapters that were judged at both."""

from __future__ import annotations

import pytest

from flows.report.precision_pools import precision_pools
from tests.warehouse.test_precisions import land, noisy
from warehouse.load import load_all
from warehouse.precision_pools import precision_figures
from warehouse.query import query


@pytest.fixture
def moved(tmp_path):
    """Adapters of 4 and of 8 bits at bfloat16 and mxfp4, beside a training at bfloat16."""
    for number, trained in enumerate(("4bit", "8bit")):
        land(tmp_path, trained, noisy(number, 0.9))
        land(tmp_path, "bf16", noisy(number + 2, 0.9), moved_from=trained)
        land(tmp_path, "mxfp4", noisy(number + 4, 0.5), moved_from=trained)
    land(tmp_path, "bf16", noisy(9, 0.2))
    load_all(tmp_path)


def test_figures_are_means_over_the_pairs_of_one_adapter(moved):
    rows = query("FROM precision_comparison WHERE adapter <> 'own'")
    figures = {(row.precision, row.metric): row for row in precision_figures() if row.rule == "argmax"}
    assert {precision for precision, _ in figures} == {"4bit", "8bit", "mxfp4"}

    of_precision = rows[rows.precision == "mxfp4"]
    figure = figures["mxfp4", "accuracy"]
    assert (figure.adapters, figure.reference) == (2, "bf16")
    assert figure.difference == pytest.approx(of_precision.accuracy_diff.mean())
    assert figure.value == pytest.approx(of_precision.accuracy.mean())
    assert figure.reference_value == pytest.approx(of_precision.reference_accuracy.mean())
    assert figure.bytes_ratio == pytest.approx(of_precision.bytes_ratio.mean())
    assert figure.low < figure.difference < figure.high and figure.verdict == "inferior"
    assert figures["mxfp4", "ed_auroc"].difference == pytest.approx(of_precision.ed_auroc_diff.mean(), abs=1e-3)


def test_evaluations_of_another_study_stay_out(moved):
    only = ["e-4bit", "e-bf16-from-4bit", "e-mxfp4-from-4bit", "e-mxfp4-from-8bit"]
    figures = precision_figures(only)
    assert {(row.precision, row.adapters + row.adapters_left_out) for row in figures} == {("4bit", 1), ("mxfp4", 1)}


def test_the_table_has_a_row_for_each_precision(moved):
    table = precision_pools()
    assert [text.split("\n")[0] for text in table["precision"]] == ["smol 8bit", "smol 4bit", "smol mxfp4"]
    assert table["bytes"] == ["x0.53", "x0.28", "x0.27"]
    assert table["accuracy"][2].endswith("inferior")


def test_trainings_at_a_precision_are_no_moved_adapters(tmp_path):
    for number, name in enumerate(("bf16", "4bit")):
        land(tmp_path, name, noisy(number, 0.9))
    load_all(tmp_path)
    assert len(query("FROM precision_comparison")) == 1
    assert precision_figures() == [] and len(precision_pools()) == 0
