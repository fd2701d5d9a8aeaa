"""A study in which every cell is there twice, with real and with random weights: neither has the other one's figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flows.html_report import bytes_and_recall, flips, forest, marks, page
from flows.html_report.study import ReportedStudy, Section, by_evaluation, full_name, named_rows, reported_study
from flows.report.figures import RANDOM, figure
from flows.report.typed_rows import Row, rows_of
from tests.warehouse.rows import evaluation, full, training
from tests.warehouse.test_evidence import dropout_row
from tests.warehouse.test_precisions import noisy
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

TABLES = {"reliability": "reliability", "decision-curves": "net_benefit", "subgroups": "subgroup_metric"}
WITHOUT_MODELS = ("data", "environment")  # sections that name none, or leave random weights out
SHARES = {(4, False): 0.9, (8, False): 0.9, (4, True): 0.1, (8, True): 0.5}
CASES = {twin: noisy(seed, right) for seed, (twin, right) in enumerate(SHARES.items(), 1)}


def rows_of_shares(id: str, random_weights: bool) -> dict[str, list[dict[str, object]]]:
    """A subgroup and a bin of p(ED), in which emergencies fare otherwise under random weights."""
    share = 0.2 if random_weights else 0.8
    ends = {"low": share - 0.1, "high": share + 0.1}
    child = {"field": "age", "subgroup": "child", "metric": "ed_recall", "value": share, "method": "by hand", "n": 12}
    of_bin = {"low": 0.05, "high": 0.1, "n": 9, "mean_p_ed": 0.07, "share_low": 0.1, "share_high": 0.9}
    return {
        "subgroup_metric": [full("subgroup_metric", evaluation_id=id, **child, **ends)],
        "reliability": [full("reliability", evaluation_id=id, ed_share=share, **of_bin)],
    }


def land_twins(root: Path) -> None:
    for (bits, random_weights), cases in CASES.items():
        kind = "random" if random_weights else "real"
        training_id, evaluation_id = f"t{bits}-{kind}", f"e{bits}-{kind}"
        trained = training(training_id, bits, random_weights=random_weights, valid_loss=0.3)
        write_landing(root, training_id, "training", trained)
        with_dropout = {"mc_status": "available", "mc_reason": None, "mc_cases": 2, "mc_passes": 50}
        rows = evaluation(evaluation_id, training_id, cases, **with_dropout)
        rows["mc_dropout"] = [dropout_row(evaluation_id, i, i == 0, 0.1 + 0.1 * i) for i in range(2)]
        write_landing(root, evaluation_id, "evaluation", rows | rows_of_shares(evaluation_id, random_weights))


@dataclass(frozen=True)
class Twins:
    """The study with its sections, and the rows of the charts in which a label may end with the mark."""

    study: ReportedStudy
    sections: dict[str, Section]
    drawn_labels: dict[str, list[str]]
    landed: dict[str, list[str]]
    confusion_rows: list[Row]
    flips: list[Row]


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> Twins:
    home = tmp_path_factory.mktemp("twins")
    drawn_labels: dict[str, list[str]] = {"points": [], "bars": [], "dots": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIAGE_HOME", str(home))
        patch.setenv("TRIAGE_WAREHOUSE", str(home / "triage.duckdb"))
        patch.setattr(marks, "svg_of", lambda chart, **rows: "")
        drawings = ((bytes_and_recall, "points", "kind"), (flips, "bars", "label"), (forest, "dots", "label"))
        for module, name, label in drawings:
            patch.setattr(module, name, _without_drawing(drawn_labels[name], label))

        land_twins(home / "landing")
        load_all(home / "landing")
        study = reported_study(None)
        sections = [section(study) for section in page.SECTIONS]
        return Twins(
            study,
            {section.id: section for section in sections},
            drawn_labels,
            {table: list(query(f"FROM {table}").evaluation_id) for table in TABLES.values()},
            named_rows("confusion", study.ids),
            rows_of("flips", only=study.ids),
        )


def _without_drawing(labels: list[str], label: str) -> Callable[..., str]:
    """A chart that keeps the labels of its rows in place of a drawing."""

    def chart(rows, *_, **__):
        labels.extend(getattr(row, label) for row in rows)
        return ""

    return chart


def of_label(cases: list[tuple[str, str, str]], decision: str) -> int:
    return sum(case[0] == "ED" and case[2] == decision for case in cases)


def test_each_has_its_own_three_rows_of_the_confusion_matrix(twins):
    rows = by_evaluation(twins.confusion_rows)
    assert {len(own) for own in rows.values()} == {3} and len(rows) == 4

    panels = {panel.title: panel.alt for panel in twins.sections["confusion"].panels}
    for random_weights, name in ((False, "smol r1 s42"), (True, f"smol r1 s42{RANDOM}")):
        for bits in (4, 8):
            sent, to_gp = (of_label(CASES[bits, random_weights], decision) for decision in ("ED", "GP"))
            assert f"{bits}bit: of the emergencies {sent} sent to ED, {to_gp} to GP" in panels[name]


@pytest.mark.parametrize("section", TABLES)
def test_a_table_has_every_row_once_below_its_own_model(twins, section):
    (table,) = twins.sections[section].tables
    names = {row.evaluation_id: full_name(row) for row in twins.study.board}
    assert sorted(table["experiment"]) == sorted(names[id] for id in twins.landed[TABLES[section]])


def test_every_section_marks_random_weights(twins):
    with_models = {id: section for id, section in twins.sections.items() if id not in WITHOUT_MODELS}
    for section in with_models.values():
        cells = [text for table in section.tables for row in table.rows for text in row]
        titles = [panel.title for panel in section.panels]
        assert any(RANDOM in text for text in cells) and len(set(titles)) == len(titles), section.id


def test_points_bars_and_dots_of_random_weights_are_marked(twins):
    for labels in twins.drawn_labels.values():
        assert sum(label.endswith(RANDOM) for label in labels) == len(labels) / 2 > 0
    dots = twins.drawn_labels["dots"]
    assert len(set(dots)) == 4, "two pairs, and the pool of each"


def test_the_largest_loss_has_the_interval_of_its_own_pair(twins):
    (pair,) = (pair for pair in twins.study.pairs if pair.random_weights)
    interval = figure(pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high, sign=True)
    for pairs in (twins.study.pairs, twins.study.pairs[::-1]):
        (sentence,) = flips._findings(replace(twins.study, pairs=pairs), twins.flips)
        assert RANDOM in sentence and sentence.endswith(f"in ED recall {interval}.")
