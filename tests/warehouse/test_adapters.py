"""A precision against its reference, the mean over the adapters of a recipe that were judged at both."""

import numpy as np
import pytest

from flows.report.precisions import fidelity
from flows.report.rows import studied
from tests.warehouse.rows import evaluation
from tests.warehouse.test_precisions import land, noisy
from warehouse.comparison.pools import adapter_rows
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

UNPACKED = {"original_precision": "Q4_1", "weights_source": "package"}


def land_adapters(root, seeds=(42, 43), **values) -> None:
    """Adapters of 4 bits at bfloat16, 8 bits and mxfp4, and their twins of 8 bits at bfloat16 and mxfp4."""
    for number, seed in enumerate(seeds):
        named = {"arm": f"s{seed}-", "seed": seed, **values}
        for trained in ("4bit", "8bit"):
            land(root, trained, noisy(10 * number, 0.9), **named)
            land(root, "bf16", noisy(10 * number + 2, 0.9), moved_from=trained, **named)
            land(root, "mxfp4", noisy(10 * number + 4, 0.5), moved_from=trained, **named)


def by_pool(**options):
    rows = adapter_rows(**options)
    return {(row["adapter"], row["precision"], row["rule"], row["metric"]): row for row in rows}


def test_a_row_is_the_mean_over_the_adapters_of_one_source_precision_against_any_reference(tmp_path):
    land_adapters(tmp_path, **UNPACKED)
    land(tmp_path, "bf16", noisy(9, 0.2), **UNPACKED)  # trained at it: of no adapter that was moved
    load_all(tmp_path)
    rows = by_pool()
    pools = [("from 4bit", "4bit"), ("from 4bit", "mxfp4"), ("from 8bit", "8bit"), ("from 8bit", "mxfp4")]
    assert list(dict.fromkeys(key[:2] for key in rows)) == pools

    row = rows["from 4bit", "mxfp4", "argmax", "accuracy"]
    pairs = query("FROM precision_comparison WHERE adapter = 'from 4bit' AND precision = 'mxfp4'")
    assert (row["seeds"], row["reference"]) == (2, "unpacked Q4_1")
    assert row["difference"] == pytest.approx(pairs.accuracy_diff.mean()) and row["verdict"] == "worse"
    assert row["standard_error"] >= np.std(pairs.accuracy_diff, ddof=1) / 2**0.5 - 1e-12
    assert row["bytes_ratio"] == pytest.approx(pairs.bytes_ratio.mean())
    assert "nothing follows about 8 bits or more" in row["reference_note"]
    only = [f"e-s42-{name}" for name in ("4bit", "bf16-from-4bit", "mxfp4-from-4bit")]
    assert {row["seeds"] for row in adapter_rows(only)} == {1}

    row = by_pool(reference="8bit")["from 8bit", "mxfp4", "target_recall", "ed_recall"]
    figures = query("SELECT evaluation_id, ed_recall FROM prediction_figures WHERE rule = 'target_recall'")
    recall = figures.set_index("evaluation_id").ed_recall
    of_trained = [recall[f"e-s{seed}-mxfp4-from-8bit"] - recall[f"e-s{seed}-8bit"] for seed in (42, 43)]
    assert row["difference"] == pytest.approx(np.mean(of_trained)) and row["reference"] == "8bit"

    row = rows["from 4bit", "mxfp4", "argmax", "accuracy"]
    table = fidelity(studied()[0]).tables[0]
    assert table["precision"] == [f"smol {precision} r1 {adapter}" for adapter, precision in pools]
    assert table["adapters"] == ["2"] * 4 and table["accuracy"][1].startswith(f"{row['difference']:+.3f} [")


def test_test_sets_and_recipes_are_kept_apart_and_trainings_at_a_precision_have_no_row(tmp_path):
    land_adapters(tmp_path, seeds=(42,))
    for trained in ("4bit", "bf16-from-4bit"):
        other = evaluation(f"other-{trained}", f"t-s42-{trained}", noisy(7, 0.9), groups=True, set_digest="other")
        write_landing(tmp_path, f"other-{trained}", "evaluation", other)
    for number, name in enumerate(("bf16", "4bit")):
        land(tmp_path, name, noisy(number, 0.9), arm="r3-", recipe="r3")
    load_all(tmp_path)
    rows = [row for row in adapter_rows() if (row["rule"], row["metric"]) == ("argmax", "accuracy")]
    assert sorted((row["set_digest"], row["adapter"], row["precision"]) for row in rows) == [
        ("other", "from 4bit", "4bit"), ("set", "from 4bit", "4bit"), ("set", "from 4bit", "mxfp4"),
        ("set", "from 8bit", "8bit"), ("set", "from 8bit", "mxfp4"),
    ]  # fmt: skip
    assert len(query("FROM precision_comparison WHERE recipe = 'r3'")) == 1
