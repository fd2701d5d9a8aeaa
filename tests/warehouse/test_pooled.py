"""Pooled figures and adjusted bounds of a small warehouse: what is averaged, what is counted, and that they stay current."""

from datetime import datetime
from statistics import mean

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, fbeta_score, recall_score, roc_auc_score

from tests.warehouse.rows import (
    PROBABILITIES,
    assert_sound,
    evaluation,
    full,
    land_arm,
    land_pair,
    load_landing,
    offending_rows,
    training,
)
from warehouse.comparison import pools
from warehouse.comparison.pools import missing_rows
from warehouse.connect import reading, writing
from warehouse.health import bring_up_to_date, run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query_rows
from warehouse.rebuild import rebuild

LABELS = ("ED", "GP", "HOME")
CASES = 120
UNINFORMED = "cannot conclude: no pair has a model that beats the best constant answer in accuracy"


def decided(seed: int, right: float) -> list[tuple[str, str, str]]:
    """Label, argmax and decision of the same cases, of which about a share `right` is right by each rule."""
    labels = np.random.default_rng(0).choice(LABELS, CASES, p=[0.3, 0.4, 0.3])
    rng = np.random.default_rng(seed)
    sides = [np.where(rng.random(CASES) < right, labels, rng.choice(LABELS, CASES)) for _ in range(2)]
    return [tuple(map(str, case)) for case in zip(labels, *sides, strict=True)]


def land(root, name, draw, right, day=1, **values):
    """A pair of trained models; what each decided, by bits."""
    sides = {}
    for bits in (4, 8):
        id = f"{name}-{bits}"
        sides[bits] = decided(draw + bits, right)
        write_landing(root, id, "training", training(id, bits, day=day, cell_id=id, **values))
        write_landing(root, f"e{id}", "evaluation", evaluation(f"e{id}", id, sides[bits], groups=True))
    return sides


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four pairs that know something, one that guesses, an untuned one and a moved one, in one warehouse."""
    root = tmp_path_factory.mktemp("pooled")
    pairs = {
        ("a", "r1", 42): land(root, "a1", 10, 0.8, base_model="a", recipe="r1", seed=42),
        ("a", "r1", 43): land(root, "a2", 20, 0.8, base_model="a", recipe="r1", seed=43),
        ("a", "r2", 42): land(root, "a3", 30, 0.9, base_model="a", recipe="r2", seed=42),
        ("b", "r1", 42): land(root, "b1", 40, 0.7, base_model="b", recipe="r1", seed=42),
    }
    land(root, "guess", 50, 0.0, base_model="b", recipe="r2", seed=42)
    land(root, "untuned", 60, 0.9, base_model="a", recipe="zero_shot", recipe_kind="baseline", seed=42)
    land(root, "moved", 70, 0.9, base_model="a", recipe="r9", recipe_kind="moved_adapter", seed=42)
    load_all(root, root / "w.duckdb")

    return root, pairs


def rows_of(view, path, only=None):
    result = query_rows(f"FROM {view}", database=path, only=only)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def summary(path, only=None):
    return {(r["base_model"], r["rule"], r["metric"]): r for r in rows_of("quantization_summary", path, only)}


def by_scikit_learn(cases, choice) -> dict[str, float]:
    labels = [case[0] for case in cases]
    decisions = [case[choice] for case in cases]
    urgency = {label: place for place, label in enumerate(LABELS)}
    return {
        "accuracy": accuracy_score(labels, decisions),
        "ed_recall": recall_score(labels, decisions, labels=["ED"], average="macro"),
        "ed_f2": fbeta_score(labels, decisions, beta=2, labels=["ED"], average="macro"),
        "macro_f1": f1_score(labels, decisions, average="macro"),
        "over_triage": mean(urgency[d] < urgency[t] for t, d in zip(labels, decisions, strict=True)),
    }


def test_differences_are_means_over_trained_pairs_that_know_something(study):
    root, pairs = study
    rows = summary(root / "w.duckdb")
    auroc = {key: row for key, row in rows.items() if key[2] == "ed_auroc"}
    assert len(auroc) == 3 and len(rows) - len(auroc) == 3 * 3 * 5

    for (scope, rule, metric), row in [(key, row) for key, row in rows.items() if key not in auroc]:
        sides = [both for (model, *_), both in pairs.items() if scope in ("all", model)]
        four, eight = (
            mean(by_scikit_learn(both[bits], 1 if rule == "argmax" else 2)[metric] for both in sides) for bits in (4, 8)
        )
        assert (row["value_4bit"], row["value_8bit"]) == pytest.approx((four, eight), abs=1e-9)
        assert row["difference"] == pytest.approx(four - eight, abs=1e-9)
        assert row["low"] < row["difference"] < row["high"] and 0 < row["p_value"] <= 1
        assert row["could_show"] == pytest.approx((row["high"] - row["low"]) / 2)
        assert (row["pairs"], row["pairs_left_out"]) == {"all": (4, 1), "a": (3, 0), "b": (1, 1)}[scope]
        emergencies = sum(case[0] == "ED" for case in decided(0, 1))
        assert row["cases"] == (emergencies if metric.startswith("ed_") else CASES)

    assert rows["all", "argmax", "accuracy"]["groups"] == CASES // 2


@pytest.mark.parametrize(("labels", "rule"), [(("ED", "HOME"), "argmax"), ((None, None), "target_recall")])
def test_decisions_by_threshold_are_pooled_beside_those_of_the_primary_rule(labels, rule, tmp_path):
    """A threshold that answers one label in every case, by bits; None: as an earlier version landed it, where it decided
    as the primary rule."""
    for bits, label in zip((4, 8), labels, strict=True):
        rows = evaluation(f"e{bits}", f"t{bits}", decided(bits, 0.9), groups=True, primary_rule=rule)
        rows["prediction"] = [row | {"target_recall": label} for row in rows["prediction"]]
        write_landing(tmp_path, f"t{bits}", "training", training(f"t{bits}", bits))
        write_landing(tmp_path, f"e{bits}", "evaluation", rows)
    load_all(tmp_path, tmp_path / "w.duckdb")

    rows = summary(tmp_path / "w.duckdb")
    for metric in ("accuracy", "ed_recall") if rule == "target_recall" else ():
        primary = rows["all", "primary", metric]
        assert rows["all", "target_recall", metric]["value_4bit"] == primary["value_4bit"] is not None
    if rule == "target_recall":
        with reading(tmp_path / "w.duckdb") as con:
            assert offending_rows(con, "pools_agree") == 0
    else:
        by_threshold = rows["all", "target_recall", "ed_recall"]
        assert (by_threshold["value_4bit"], by_threshold["value_8bit"]) == (1, 0)
        assert rows["all", "primary", "ed_recall"]["value_4bit"] < 1


def test_the_auroc_is_pooled_under_the_argmax_from_all_cases(study):
    root, pairs = study
    row = summary(root / "w.duckdb")["all", "argmax", "ed_auroc"]
    four, eight = (
        mean(
            roc_auc_score([c[0] == "ED" for c in both[bits]], [PROBABILITIES[c[1]][0] for c in both[bits]])
            for both in pairs.values()
        )
        for bits in (4, 8)
    )
    assert (row["value_4bit"], row["value_8bit"]) == pytest.approx((four, eight), abs=1e-9)
    assert row["low"] < row["difference"] < row["high"]
    assert (row["cases"], row["groups"], row["pairs"]) == (CASES, CASES // 2, 4)


def test_the_spread_between_seeds_is_that_of_one_recipe(study):
    root, pairs = study
    rows = summary(root / "w.duckdb")
    differences = [
        by_scikit_learn(pairs["a", "r1", seed][4], 1)["accuracy"]
        - by_scikit_learn(pairs["a", "r1", seed][8], 1)["accuracy"]
        for seed in (42, 43)
    ]

    for scope in ("a", "all"):
        row = rows[scope, "argmax", "accuracy"]
        assert row["seed_sd"] == pytest.approx(np.std(differences, ddof=1), abs=1e-9)
        half = stats.t.ppf(0.975, 1) * row["seed_sd"] / row["pairs"] ** 0.5
        assert (row["seed_low"], row["seed_high"]) == pytest.approx(
            (row["difference"] - half, row["difference"] + half)
        )
        assert (row["recipes"], row["seeds"]) == (2, 2)

    b = rows["b", "argmax", "accuracy"]
    assert (b["seed_sd"], b["seed_low"], b["seed_high"]) == (None, None, None)


def test_trainings_under_other_settings_are_no_seeds_of_one_recipe(tmp_path):
    """A recipe that kept its name: what the setting does is no chance between seeds."""
    for seed, rank, right in ((42, "a", 0.8), (43, "b", 0.6)):
        land(
            tmp_path / "landing", f"m{seed}", seed, right, settings_digest=rank, base_model="a", recipe="r1", seed=seed
        )

    load_all(tmp_path / "landing")
    rows = query_rows("SELECT DISTINCT pairs, seeds, seed_sd FROM quantization_summary WHERE base_model = 'a'").rows
    assert rows == [(2, 2, None)]
    assert_sound()


def test_a_pool_in_which_no_model_knows_anything_concludes_nothing(tmp_path):
    land(tmp_path, "guess", 50, 0.0)
    load_all(tmp_path, tmp_path / "w.duckdb")
    for row in summary(tmp_path / "w.duckdb").values():
        assert row["verdict"] == UNINFORMED
        assert (row["pairs"], row["pairs_left_out"], row["difference"], row["low"]) == (0, 1, None, None)


def land_seed(root, seed: int, right_4bit: float, right_8bit: float) -> None:
    """A pair of one recipe, with the shares of cases in which its models are right."""
    land_pair(root, decided(4, right_4bit), decided(8, right_8bit), groups=True, name=f"-{seed}", seed=seed)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ([(0.9, 0.3), (0.9, 0.3)], "not inferior"),
        ([(0.9, 0.3), (0.9, 0.9)], "cannot conclude: it varies too much between seeds"),
        ([(0.3, 0.9), (0.3, 0.9)], "inferior"),
        ([(0.3, 0.9), (0.9, 0.9)], "cannot conclude: it varies too much between seeds"),
    ],
)
def test_a_pool_concludes_what_holds_between_seeds_too(tmp_path, shares, verdict):
    """Two seeds with the same difference, and two of which one shows none: the bands of both exclude the margin."""
    for seed, (right_4bit, right_8bit) in enumerate(shares):
        land_seed(tmp_path, seed, right_4bit, right_8bit)
    load_all(tmp_path, tmp_path / "w.duckdb")
    rows = summary(tmp_path / "w.duckdb")
    is_better = shares[0][0] > shares[0][1]
    # More is better, and less is.
    for metric, bound in (
        ("accuracy", "low" if is_better else "high"),
        ("over_triage", "high" if is_better else "low"),
    ):
        row = rows["all", "argmax", metric]
        assert row["verdict"] == verdict
        assert abs(row[bound]) > (0 if is_better else row["margin"]) and (row[bound] > 0) == (row["difference"] > 0)
    assert_sound(tmp_path / "w.duckdb")
    with writing(tmp_path / "w.duckdb") as con:
        con.execute("UPDATE pooled_metric SET verdict = 'cannot conclude'")
        assert offending_rows(con, "pools_agree") > 0


def test_an_audit_finds_an_interval_over_trainings_that_the_pairs_do_not_give(tmp_path):
    land_seed(tmp_path, 42, 0.9, 0.3)
    land_seed(tmp_path, 43, 0.9, 0.9)
    load_all(tmp_path, tmp_path / "w.duckdb")
    defects = (
        "seed_low = difference, seed_high = difference",
        "seed_sd = 2 * seed_sd",
        "seed_low = seed_low - 0.1",
        "seed_high = NULL",
        "seed_sd = NULL",
    )
    with writing(tmp_path / "w.duckdb") as con:
        for defect in defects:
            con.begin()
            con.execute(f"UPDATE pooled_metric SET {defect}")
            assert offending_rows(con, "pools_agree") > 0, defect
            con.rollback()
        assert offending_rows(con, "pools_agree") == 0


def test_models_that_decide_alike_have_no_band_and_few_groups_none_either(tmp_path):
    land_pair(tmp_path, decided(1, 0.9), decided(1, 0.9), groups=True)
    load_all(tmp_path, tmp_path / "w.duckdb")
    row = summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]
    assert (row["difference"], row["low"], row["verdict"]) == (0, None, "cannot conclude")
    assert row["note"] == "no band: no case, or too few, make a difference"

    land_pair(tmp_path, decided(4, 0.9)[:18], decided(8, 0.9)[:18], groups=True)
    load_all(tmp_path, tmp_path / "w.duckdb")
    row = summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]
    assert row["low"] is None and row["note"] == "no band: 9 groups are too few (it needs 10)"


def test_a_new_pair_replaces_the_pool_and_a_rebuild_gives_the_same(tmp_path):
    land(tmp_path, "first", 10, 0.8, recipe="r1")
    load_all(tmp_path, tmp_path / "w.duckdb")
    before = summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]
    land(tmp_path, "second", 20, 0.8, recipe="r2")

    for id in ("second-4", "second-8", "esecond-4", "esecond-8"):
        load_landing(tmp_path / id, tmp_path / "w.duckdb")

    after = summary(tmp_path / "w.duckdb")
    assert (before["pairs"], after["all", "argmax", "accuracy"]["pairs"]) == (1, 2)
    with reading(tmp_path / "w.duckdb") as con:
        assert con.execute("SELECT count(DISTINCT pool) FROM pooled_metric").fetchone() == (1,)
        assert not any(run_audits(con).values())

    rebuild(tmp_path, tmp_path / "w.duckdb")
    assert summary(tmp_path / "w.duckdb") == after


def test_an_evaluation_that_lands_with_other_decisions_changes_the_figures(tmp_path):
    land(tmp_path, "one", 10, 0.8)
    load_all(tmp_path, tmp_path / "w.duckdb")
    write_landing(tmp_path, "eone-4", "evaluation", evaluation("eone-4", "one-4", decided(99, 0.8), groups=True))
    load_all(tmp_path, tmp_path / "w.duckdb")
    assert_sound(tmp_path / "w.duckdb")

    expected = by_scikit_learn(decided(99, 0.8), 1)["accuracy"]
    assert summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]["value_4bit"] == pytest.approx(expected)


def test_a_part_of_the_evaluations_has_figures_of_its_own_which_are_not_stored(study):
    root, pairs = study
    only = ["ea1-4", "ea1-8"]
    assert summary(root / "w.duckdb", only) == {}
    with reading(root / "w.duckdb") as con:
        ((_, rows),) = missing_rows(con, only).items()
    row = next(row for row in rows if (row.base_model, row.rule, row.metric) == ("all", "argmax", "accuracy"))
    assert row.value_4bit == pytest.approx(by_scikit_learn(pairs["a", "r1", 42][4], 1)["accuracy"])


@pytest.mark.parametrize("is_over", [True, False])
def test_a_large_pool_is_made_when_its_sweep_or_a_load_is_over(is_over, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "AT_EACH_LANDING", CASES)
    land(tmp_path, "one", 10, 0.8)
    sweep = full(
        "sweep", sweep_id="sweep", study="s", grid="s", grid_digest="g", experiments=2,
        started_at=datetime(2026, 3, 1), finished_at=datetime(2026, 3, 2) if is_over else None,
    )  # fmt: skip
    members = [full("sweep_member", sweep_id="sweep", id=id) for id in ("eone-4", "eone-8")]
    write_landing(tmp_path, "sweep", "sweep", {"sweep": [sweep], "sweep_member": members})

    for id in ("one-4", "one-8", "eone-4", "eone-8", "sweep"):
        load_landing(tmp_path / id, tmp_path / "w.duckdb")

    assert bool(summary(tmp_path / "w.duckdb")) == is_over
    assert_sound(tmp_path / "w.duckdb")
    bring_up_to_date(tmp_path / "w.duckdb")
    assert summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]["pairs"] == 1


def bounds(path):
    return {(row["evaluation_id"], row["gate"]): row for row in rows_of("gate_bounds", path)}


def test_a_gate_has_the_number_of_looks_beside_its_bound_and_one_that_allows_for_them(study):
    root, _ = study
    output = bounds(root / "w.duckdb")
    assert {row["models"] for row in output.values()} == {12}, "ten trained ones and two moved"
    assert len(output) == 12 * 3

    for (id, gate), row in output.items():
        better = -1 if gate == "ed_false_negative_rate" else 1
        assert better * row["bound_adjusted"] <= better * row["bound"] + 1e-9, (id, gate)
        if gate == "ed_recall":
            assert output[id, "ed_false_negative_rate"]["bound_adjusted"] == 1 - row["bound_adjusted"]


def test_the_exact_bound_is_that_of_scipy_at_the_share_of_each_look(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        land_arm(tmp_path, name, cases=decided(seed, 0.95), cell_id=name, recipe=name)

    load_all(tmp_path, tmp_path / "w.duckdb")
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        emergencies = [decision == "ED" for label, _, decision in decided(seed, 0.95) if label == "ED"]
        test = stats.binomtest(sum(emergencies), len(emergencies))
        expected = test.proportion_ci(1 - 0.05 / 3, method="exact").low
        row = bounds(tmp_path / "w.duckdb")[f"e{name}", "ed_recall"]
        assert (row["bound_adjusted"], row["models"]) == (pytest.approx(expected, abs=1e-9), 3)


def test_a_failure_in_the_middle_leaves_the_figures_of_before(tmp_path, monkeypatch):
    land(tmp_path, "one", 10, 0.8)
    load_all(tmp_path, tmp_path / "w.duckdb")
    before = summary(tmp_path / "w.duckdb")
    land(tmp_path, "two", 20, 0.8, recipe="r2")

    def broken(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(pools, "_insert_bounds", broken)
    with pytest.raises(RuntimeError):
        load_all(tmp_path, tmp_path / "w.duckdb")
    with writing(tmp_path / "w.duckdb") as con:
        stored = con.execute("SELECT count(*) FROM pooled_metric").fetchone()

    assert before and stored == (len(before),), "of the pool of before, which no view shows any more"
    monkeypatch.undo()
    bring_up_to_date(tmp_path / "w.duckdb")
    assert summary(tmp_path / "w.duckdb")["all", "argmax", "accuracy"]["pairs"] == 2
