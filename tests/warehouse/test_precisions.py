from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from flows.report.models import leaderboard
from flows.report.precisions import fidelity, frontier
from flows.report.rows import studied
from tests.warehouse.rows import FIVE, assert_sound, evaluation, land_arm, load_landing, load_pair
from warehouse.comparison.pools import adapter_rows
from warehouse.connect import snapshot
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query

LABELS = ("ED", "GP", "HOME")
BITS = {"bf16": None, "8bit": 8, "4bit": 4, "mxfp4": 4, "2bit": 2}
BYTES = {"bf16": 16000, "8bit": 8500, "4bit": 4500, "mxfp4": 4250, "2bit": 2500}
UNPACKED = {"original_precision": "Q4_1", "weights_source": "package"}


def noisy(seed: int, right: float, count: int = 120) -> list[tuple[str, str, str]]:
    labels = np.random.default_rng(0).integers(0, 3, count)
    rng = np.random.default_rng(seed)
    chosen = [np.where(rng.random(count) < right, labels, rng.integers(0, 3, count)) for _ in range(2)]
    return [(LABELS[a], LABELS[b], LABELS[c]) for a, b, c in zip(labels, *chosen, strict=True)]


def land(
    root: Path, name: str, cases=FIVE, moved_from: str | None = None, arm: str = "", again=False, **values
) -> None:
    """An evaluation `e-NAME` at a precision, of an adapter that was trained at it or moved to it, and then judged by its
    own rules or by those chosen `again`. Its id begins with `arm`."""
    id = arm + (f"{name}-from-{moved_from}" if moved_from else name) + ("-again" if again else "")
    usual = {"precision": name, "stored_bytes": BYTES[name], "cell_id": id, "settings_digest": "settings"}
    if moved_from:
        recipe = f"{values.pop('recipe', 'r1')} from {moved_from}" + (" again" if again else "")
        values |= {"moved_rules": "chosen_again"} if again else {}
        values |= {"recipe": recipe, "recipe_kind": "moved_adapter", "source_training_id": f"t-{arm}{moved_from}"}

    land_arm(root, f"-{id}", BITS[name], cases, groups=True, **(usual | values))


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Three trained arms, and the adapter of bfloat16 at three precisions; five precisions of another base model; and weights
    that were quantised before. What the first decided, and the warehouse."""
    root = tmp_path_factory.mktemp("arms")
    cases = {"bf16": noisy(0, 0.9), "4bit": noisy(1, 0.8), "mxfp4": noisy(2, 0.6)}
    for name, decided in cases.items():
        land(root, name, decided)
    land(root, "8bit", noisy(7, 0.85), moved_from="bf16")
    land(root, "2bit", noisy(8, 0.4), moved_from="bf16")
    land(root, "2bit", noisy(9, 0.6), moved_from="bf16", again=True)
    for i, name in enumerate(BYTES):
        land(root, name, noisy(30 + i, 0.7), arm="five-", base_model="five")
    for name in ("bf16", "8bit", "mxfp4"):
        land(root, name, noisy(3, 0.8), arm="q4-", base_model="q4", original_precision="Q4_1")
    load_all(root, root / "triage.duckdb")
    return cases, root / "triage.duckdb"


@pytest.fixture
def landed(arms, monkeypatch):
    """What these arms decided, whose warehouse is read."""
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(arms[1]))
    with snapshot():
        yield arms[0]


def test_every_precision_stands_against_the_reference_of_its_arm(landed):
    rows = query("FROM precision_comparison WHERE base_model = 'smol'")
    assert sorted(zip(rows.adapter, rows.precision, rows.reference, rows.recipe, strict=True)) == [
        ("from bf16", "2bit", "bf16", "r1"), ("from bf16", "8bit", "bf16", "r1"),
        ("from bf16, threshold chosen again", "2bit", "bf16", "r1"), ("own", "4bit", "bf16", "r1"),
        ("own", "mxfp4", "bf16", "r1"),
    ]  # fmt: skip
    changes = set(query("FROM flips WHERE base_model = 'smol'").change)
    moved = "adapter moved from bf16 to"
    assert changes == {f"{moved} 8bit", f"{moved} 2bit", f"{moved} 2bit, threshold chosen again"}
    arms = query(
        "SELECT DISTINCT adapter, list(precision ORDER BY precision) FROM frontier WHERE base_model = 'smol' GROUP BY 1"
    )
    assert {name: list(precisions) for name, precisions in arms.values} == {
        "own": ["4bit", "bf16", "mxfp4"], "from bf16": ["2bit", "8bit", "bf16"],
        "from bf16, threshold chosen again": ["2bit", "bf16"],
    }, "at its own precision it stands in both arms"  # fmt: skip
    assert_sound()


def test_a_moved_adapter_waits_for_its_training_and_is_compared_by_the_threshold_that_it_had_then(tmp_path):
    """Its training was judged by a rule of other calibration cases since; what was moved before has the earlier one."""
    land(tmp_path, "4bit", noisy(1, 0.8))
    for number, name in enumerate(("mxfp4", "8bit")):
        land(tmp_path, name, noisy(2 + number, 0.8), moved_from="4bit")

    moved = [f"{kind}-{name}-from-4bit" for name in ("mxfp4", "8bit") for kind in "te"]
    for id in ("e-4bit", *moved, "t-4bit"):
        load_landing(tmp_path / id)
    compared = "SELECT DISTINCT evaluation_id FROM reference_metric ORDER BY 1"
    assert query(compared).evaluation_id.tolist() == ["e-8bit-from-4bit", "e-mxfp4-from-4bit"]
    assert_sound()

    again = evaluation("e-again", "t-4bit", noisy(3, 0.9), groups=True, created_at=datetime(2026, 3, 1))
    for rule in again["decision_rule"]:
        rule["calibration_digest"] = "other"
    load_landing(write_landing(tmp_path, "e-again", "evaluation", again))
    assert query(compared).evaluation_id.tolist() == ["e-8bit-from-4bit", "e-mxfp4-from-4bit"]
    assert set(query("FROM precision_comparison").evaluation_id) == {"e-8bit-from-4bit", "e-mxfp4-from-4bit"}


def test_its_figures_and_intervals_are_those_of_its_pair_by_the_rule_of_the_metric(landed):
    row = query("FROM precision_comparison WHERE evaluation_id = 'e-4bit'").iloc[0]
    figures = query("FROM reference_metric").set_index(["evaluation_id", "rule", "metric"])
    for metric in ("accuracy", "ed_recall", "macro_f1", "ed_f2", "over_triage", "loss"):
        rule = "argmax" if metric in ("accuracy", "loss") else "primary"
        expected = figures.loc[row.evaluation_id, rule, metric]
        assert row[metric] == pytest.approx(expected["value"])
        assert row[f"reference_{metric}"] == expected.reference_value
        ends = (row[f"{metric}_low"], row[f"{metric}_high"])
        assert ends == pytest.approx((expected.low, expected.high), nan_ok=metric == "loss"), "the losses are equal"
        assert metric == "loss" or row[f"{metric}_verdict"] == expected.verdict
    assert row.accuracy == pytest.approx(np.mean([case[0] == case[1] for case in landed["4bit"]]))
    assert row.loss_diff == pytest.approx(0) and row.stored_bytes == 4500 and row.reference_stored_bytes == 16000


def test_the_frontier_is_what_no_other_precision_beats(landed):
    rows = query("FROM frontier WHERE base_model = 'five'")
    assert list(rows.precision) == sorted(BYTES, key=lambda name: -BYTES[name]), "from the largest to the smallest"
    assert rows.dominated.nunique() == 2
    points = {row.precision: (-row.stored_bytes, row.ed_recall, row.macro_f1) for row in rows.itertuples()}
    for precision, own, names, dominated in zip(
        rows.precision, points.values(), rows.dominated_by.fillna(""), rows.dominated, strict=True
    ):
        at_least = {name for name, p in points.items() if all(a >= b for a, b in zip(p, own, strict=True))}
        better = {name for name in at_least if points[name] != own}
        assert set(names.split(", ")) - {""} == better and dominated == bool(better), precision


def test_another_format_with_as_many_bits_is_no_part_of_4_against_8_bits(tmp_path):
    load_pair(tmp_path)
    assert fidelity(studied()[0]).tables == [], "4 and 8 bits alone stand against no reference"
    land(tmp_path, "mxfp4", settings_digest=None)
    load_all(tmp_path)
    assert len(query("FROM equal_pair")) == 1 == len(query("FROM quantization_comparison"))


def test_weights_that_were_quantised_before_are_named_and_every_row_says_what_does_not_follow(landed):
    note = "reference already 4-bit: nothing follows about 8 bits or more"
    rows = query("FROM precision_comparison WHERE base_model = 'q4'")
    assert set(zip(rows.precision, rows.reference, rows.note, strict=True)) == {
        ("8bit", "unpacked Q4_1", note), ("mxfp4", "unpacked Q4_1", note),
    }  # fmt: skip
    for view in ("frontier", "leaderboard"):
        rows = query(f"FROM {view} WHERE base_model = 'q4'")
        assert set(rows.precision) == {"8bit", "mxfp4", "unpacked Q4_1"}
        assert view == "leaderboard" or set(rows.note) == {note}

    (study,) = studied(only=[f"e-q4-{name}" for name in ("bf16", "8bit", "mxfp4")])
    (plane,), (against,) = frontier(study).tables, fidelity(study).tables
    assert all(note in table.notes for table in (plane, against, leaderboard(study)))
    assert plane["model"] == ["q4 unpacked Q4_1 r1 s42", "q4 8bit r1 s42", "q4 mxfp4 r1 s42"]
    assert set(against["against"]) == {"unpacked Q4_1"}
    assert set(leaderboard(study)["experiment"]) == {"q4-bf16", "q4-8bit", "q4-mxfp4"}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Adapters of two seeds, trained at 4 and at 8 bits, and moved; one of bfloat16 that was not; two on another test set; and
    a recipe without moved ones."""
    root = tmp_path_factory.mktemp("adapters")
    for number, seed in enumerate((42, 43)):
        named = {"arm": f"s{seed}-", "seed": seed, **UNPACKED}
        for trained in ("4bit", "8bit"):
            land(root, trained, noisy(10 * number, 0.9), **named)
            land(root, "bf16", noisy(10 * number + 2, 0.9), moved_from=trained, **named)
            land(root, "mxfp4", noisy(10 * number + 4, 0.5), moved_from=trained, **named)
    land(root, "bf16", noisy(9, 0.2), **UNPACKED)
    for trained in ("4bit", "bf16-from-4bit"):
        other = evaluation(f"other-{trained}", f"t-s42-{trained}", noisy(7, 0.9), groups=True, set_digest="other")
        write_landing(root, f"other-{trained}", "evaluation", other)
    for number, name in enumerate(("bf16", "4bit")):
        land(root, name, noisy(number, 0.9), arm="r3-", recipe="r3")
    load_all(root, root / "w.duckdb")
    return root / "w.duckdb"


def test_adapters_that_were_trained_otherwise_have_a_mean_of_their_own(tmp_path):
    for seed, settings in ((1, "settings"), (2, "settings"), (3, "other")):
        for moved_from in (None, "8bit"):
            name, values = "mxfp4" if moved_from else "8bit", {"seed": seed, "settings_digest": settings}
            land(tmp_path, name, noisy(seed, 0.8), moved_from=moved_from, arm=f"s{seed}-", **values)
    load_all(tmp_path, tmp_path / "w.duckdb")
    rows = adapter_rows(database=tmp_path / "w.duckdb")
    assert sorted(row["seeds"] for row in rows if row["metric"] == "accuracy" and row["rule"] == "argmax") == [1, 2]


@pytest.fixture
def by_pool(adapters, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(adapters))

    def rows(set_digest="set", **options):
        found = (row for row in adapter_rows(**options) if row["set_digest"] == set_digest)
        return {(row["adapter"], row["precision"], row["rule"], row["metric"]): row for row in found}

    return rows


def test_a_row_is_the_mean_over_the_adapters_of_one_source_precision_against_any_reference(by_pool):
    rows = by_pool()
    precisions = ("unpacked Q4_1", "mxfp4")
    pools = [(f"from {trained}", precision) for trained in ("4bit", "8bit") for precision in precisions]
    assert list(dict.fromkeys(key[:2] for key in rows)) == pools
    assert {key[:2] for key in by_pool("other")} == {("from 4bit", "unpacked Q4_1")}, "test sets are kept apart"
    assert len(query("FROM precision_comparison WHERE recipe = 'r3'")) == 1, "trainings at a precision have no mean"

    row = rows["from 4bit", "mxfp4", "argmax", "accuracy"]
    pairs = query("FROM precision_comparison WHERE adapter = 'from 4bit' AND precision = 'mxfp4'")
    assert (row["seeds"], row["reference"], row["recipe"]) == (2, "4bit", "r1")
    assert row["difference"] == pytest.approx(pairs.accuracy_diff.mean()) and row["verdict"] == "worse"
    assert row["standard_error"] >= np.std(pairs.accuracy_diff, ddof=1) / 2**0.5 - 1e-12
    assert row["bytes_ratio"] == pytest.approx(pairs.bytes_ratio.mean())
    assert "nothing follows about 8 bits or more" in row["reference_note"]
    only = [f"e-s42-{name}" for name in ("4bit", "bf16-from-4bit", "mxfp4-from-4bit")]
    assert {row["seeds"] for row in adapter_rows(only)} == {1}

    of_8bit = rows["from 8bit", "mxfp4", "target_recall", "ed_recall"]
    figures = query("SELECT evaluation_id, ed_recall FROM prediction_figures WHERE rule = 'target_recall'")
    recall = figures.set_index("evaluation_id").ed_recall
    of_trained = [recall[f"e-s{seed}-mxfp4-from-8bit"] - recall[f"e-s{seed}-8bit"] for seed in (42, 43)]
    assert of_8bit["difference"] == pytest.approx(np.mean(of_trained)) and of_8bit["reference"] == "8bit"
    against_16 = by_pool(reference="bf16")
    assert list(dict.fromkeys(key[:2] for key in against_16)) == [
        ("from 4bit", "4bit"), ("from 4bit", "mxfp4"), ("from 8bit", "8bit"), ("from 8bit", "mxfp4"),
    ]  # fmt: skip

    ids = list(query("SELECT evaluation_id FROM evaluation_summary WHERE set_digest = 'set'").evaluation_id)
    (study,) = studied(only=[id for id in ids if not id.startswith("e-r3")])
    table = fidelity(study).tables[0]
    assert table["precision"] == [f"smol {precision} r1 {adapter}, threshold kept" for adapter, precision in pools]
    assert table["adapters"] == ["2"] * 4 and table["accuracy"][1].startswith(f"{row['difference']:+.3f} [")
