"""Every precision against its reference: the views, the figures that the loader keeps, and warehouses of before."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from flows.report.models import leaderboard
from flows.report.precisions import fidelity, frontier
from flows.report.rows import studied
from tests.warehouse.rows import FIVE, assert_sound, evaluation, land_arm, land_pair, load_landing, load_pair
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

LABELS = ("ED", "GP", "HOME")
BITS = {"bf16": None, "8bit": 8, "4bit": 4, "mxfp4": 4, "2bit": 2}
BYTES = {"bf16": 16000, "8bit": 8500, "4bit": 4500, "mxfp4": 4250, "2bit": 2500}


def noisy(seed: int, right: float, count: int = 120) -> list[tuple[str, str, str]]:
    labels = np.random.default_rng(0).integers(0, 3, count)
    rng = np.random.default_rng(seed)
    chosen = [np.where(rng.random(count) < right, labels, rng.integers(0, 3, count)) for _ in range(2)]
    return [(LABELS[a], LABELS[b], LABELS[c]) for a, b, c in zip(labels, *chosen, strict=True)]


def land(root: Path, name: str, cases=FIVE, moved_from: str | None = None, arm: str = "", **values) -> None:
    """An evaluation `e-NAME` at a precision, of an adapter that was trained at it or moved to it. Its id begins with
    `arm`."""
    id = arm + (f"{name}-from-{moved_from}" if moved_from else name)
    usual = {"precision": name, "stored_bytes": BYTES[name], "cell_id": id, "settings_digest": "settings"}
    if moved_from:
        recipe = f"{values.pop('recipe', 'r1')} from {moved_from}"
        values |= {"recipe": recipe, "recipe_kind": "moved_adapter", "source_training_id": f"t-{arm}{moved_from}"}

    land_arm(root, f"-{id}", BITS[name], cases, groups=True, **(usual | values))


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Three trained arms, and the adapter of bfloat16 at three precisions: what they decided, and their warehouse."""
    root = tmp_path_factory.mktemp("arms")
    cases = {"bf16": noisy(0, 0.9), "4bit": noisy(1, 0.8), "mxfp4": noisy(2, 0.6)}
    for name, decided in cases.items():
        land(root, name, decided)

    land(root, "8bit", noisy(7, 0.85), moved_from="bf16")
    land(root, "2bit", noisy(8, 0.4), moved_from="bf16")
    load_all(root, root / "triage.duckdb")
    return cases, root / "triage.duckdb"


@pytest.fixture
def landed(arms, monkeypatch):
    """What these arms decided, whose warehouse is read."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(arms[1]))
    return arms[0]


def test_every_precision_stands_against_the_reference_of_its_arm(landed):
    rows = query("FROM precision_comparison")
    assert sorted(zip(rows.adapter, rows.precision, rows.reference, rows.recipe, strict=True)) == [
        ("from bf16", "2bit", "bf16", "r1"), ("from bf16", "8bit", "bf16", "r1"),
        ("own", "4bit", "bf16", "r1"), ("own", "mxfp4", "bf16", "r1"),
    ]  # fmt: skip
    assert_sound()


def test_an_adapter_that_is_judged_by_another_threshold_since_is_not_compared_with_where_it_was_moved_to(tmp_path):
    """Its rule was chosen on other calibration cases; what was moved before still has the earlier one."""
    land(tmp_path, "bf16", noisy(1, 0.9))
    land(tmp_path, "8bit", noisy(2, 0.85), moved_from="bf16")
    load_all(tmp_path)
    assert query("SELECT adapter, precision FROM precision_comparison").values.tolist() == [["from bf16", "8bit"]]

    again = evaluation("e-again", "t-bf16", noisy(3, 0.9), groups=True, created_at=datetime(2026, 3, 1))
    for rule in again["decision_rule"]:
        rule["calibration_digest"] = "other"
    write_landing(tmp_path, "e-again", "evaluation", again)
    load_all(tmp_path)
    rows = query("SELECT adapter, precision, reference_evaluation FROM precision_comparison")
    assert "e-again" not in set(rows.reference_evaluation)


def test_a_pair_of_moved_adapters_waits_for_the_training_that_they_come_from(tmp_path):
    land(tmp_path, "4bit", noisy(1, 0.8))
    for number, name in enumerate(("bf16", "8bit")):
        land(tmp_path, name, noisy(2 + number, 0.8), moved_from="4bit")

    moved = [f"{kind}-{name}-from-4bit" for name in ("bf16", "8bit") for kind in "te"]
    for id in ("e-4bit", *moved, "t-4bit"):
        load_landing(tmp_path / id)

    assert sorted(query("SELECT DISTINCT evaluation_id FROM reference_metric").evaluation_id) == [
        "e-4bit", "e-8bit-from-4bit",
    ]  # fmt: skip
    assert_sound()


def test_its_figures_and_intervals_are_those_of_its_pair_by_the_rule_of_the_metric(landed):
    row = query("FROM precision_comparison WHERE precision = '4bit'").iloc[0]
    figures = query("FROM reference_metric").set_index(["evaluation_id", "rule", "metric"])
    for metric, rule, place in (
        ("accuracy", "argmax", 1), ("ed_recall", "primary", 2), ("macro_f1", "primary", 2), ("ed_f2", "primary", 2),
        ("over_triage", "primary", 2), ("loss", "argmax", 1),
    ):  # fmt: skip
        expected = figures.loc[row.evaluation_id, rule, metric]
        assert (
            row[metric] == pytest.approx(expected["value"]) and row[f"reference_{metric}"] == expected.reference_value
        )
        ends = (row[f"{metric}_low"], row[f"{metric}_high"])
        assert ends == pytest.approx((expected.low, expected.high), nan_ok=metric == "loss"), "the losses are equal"
        if metric != "loss":
            assert row[f"{metric}_verdict"] == expected.verdict
        if metric == "accuracy":
            assert row[metric] == pytest.approx(np.mean([case[0] == case[place] for case in landed["4bit"]]))
    assert row.loss_diff == pytest.approx(0) and row.stored_bytes == 4500 and row.reference_stored_bytes == 16000


def test_the_frontier_is_what_no_other_precision_beats(tmp_path):
    for i, name in enumerate(BYTES):
        land(tmp_path, name, noisy(30 + i, 0.7))

    load_all(tmp_path)
    rows = query("SELECT * REPLACE (coalesce(dominated_by, '') AS dominated_by) FROM frontier")
    assert list(rows.precision) == sorted(BYTES, key=lambda name: -BYTES[name]), "from the largest to the smallest"
    assert rows.dominated.nunique() == 2
    points = {row.precision: (-row.stored_bytes, row.ed_recall, row.macro_f1) for row in rows.itertuples()}

    for row in rows.itertuples():
        own_value = points[row.precision]
        at_least = [name for name, p in points.items() if all(a >= b for a, b in zip(p, own_value, strict=True))]
        better = {name for name in at_least if points[name] != own_value}
        assert set(row.dominated_by.split(", ")) - {""} == better and row.dominated == bool(better)


def test_another_format_with_as_many_bits_is_no_part_of_4_against_8_bits(tmp_path):
    land_pair(tmp_path)
    land(tmp_path, "mxfp4", settings_digest=None)
    load_all(tmp_path)
    assert len(query("FROM equal_pair")) == 1 == len(query("FROM quantization_comparison"))


def test_4_and_8_bits_alone_stand_against_no_reference(tmp_path):
    load_pair(tmp_path)
    assert fidelity(studied()[0]).tables == []


def test_weights_that_were_quantised_before_are_named_and_every_row_says_what_does_not_follow(tmp_path):
    for name in ("bf16", "8bit"):
        land(tmp_path, name, original_precision="Q4_1")

    load_all(tmp_path)
    note = "reference already 4-bit: nothing follows about 8 bits or more"
    (row,) = query("FROM precision_comparison").itertuples()
    assert (row.precision, row.reference, row.note) == ("8bit", "unpacked Q4_1", note)
    rows = query("FROM frontier")
    assert set(rows.precision) == {"8bit", "unpacked Q4_1"} and set(rows.note) == {note}
    assert set(query("FROM leaderboard").precision) == {"8bit", "unpacked Q4_1"}


def test_a_moved_adapter_is_named_by_its_precisions_in_the_flips(landed):
    changes = set(query("FROM flips").change)
    assert changes == {"adapter moved from bf16 to 8bit", "adapter moved from bf16 to 2bit"}


def test_the_tables_name_the_unpacked_reference_and_print_what_does_not_follow(tmp_path):
    for name in ("bf16", "8bit", "mxfp4"):
        land(tmp_path, name, noisy(3, 0.8), original_precision="Q4_1")

    load_all(tmp_path)
    study = studied()[0]
    note = "reference already 4-bit: nothing follows about 8 bits or more"
    (plane,), (against,) = frontier(study).tables, fidelity(study).tables
    assert all(note in table.notes for table in (plane, against, leaderboard(study)))
    assert plane["model"] == ["smol unpacked Q4_1 r1 s42", "smol 8bit r1 s42", "smol mxfp4 r1 s42"]
    assert set(against["against"]) == {"unpacked Q4_1"}
    assert set(leaderboard(study)["experiment"]) == {"bf16", "8bit", "mxfp4"}
