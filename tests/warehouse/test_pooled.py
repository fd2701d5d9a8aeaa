"""Recipes over their seeds and adjusted bounds of a small warehouse: what is averaged, and that they stay current."""

from datetime import datetime
from statistics import mean

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.warehouse.rows import (
    assert_sound,
    evaluation,
    full,
    land_arm,
    land_pair,
    load_landing,
    offending_rows,
    training,
)
from tests.warehouse.test_studies import land_sweep
from warehouse.comparison import pools
from warehouse.connect import reading, writing
from warehouse.health import bring_up_to_date, run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query_rows
from warehouse.rebuild import rebuild

LABELS = ("ED", "GP", "HOME")
CASES = 120


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
    rows = rows_of("quantization_summary", path, only)
    return {(r["base_model"], r["recipe"], r["rule"], r["metric"]): r for r in rows}


def accuracy(cases, choice=1) -> float:
    return mean(case[0] == case[choice] for case in cases)


def test_a_recipe_is_the_mean_over_its_seeds_and_neither_recipes_nor_base_models_are_averaged(study):
    root, pairs = study
    rows = summary(root / "w.duckdb")
    recipes = {key[:2] for key in rows}
    assert recipes == {("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "r2")}, "no untuned and no moved ones"
    assert len(rows) == 4 * (3 * 5 + 1)

    row = rows["a", "r1", "argmax", "accuracy"]
    four, eight = ([accuracy(pairs["a", "r1", seed][bits]) for seed in (42, 43)] for bits in (4, 8))
    assert (row["value_4bit"], row["value_8bit"]) == pytest.approx((mean(four), mean(eight)))
    assert (row["seeds"], row["cases"], row["groups"]) == (2, CASES, CASES // 2)
    assert row["low"] < row["difference"] < row["high"] and row["training_component"] is not None
    gain = np.subtract(four, eight)
    assert row["standard_error"] >= stats.sem(gain) - 1e-12 and row["freedom"] >= 1
    assert rows["a", "r2", "argmax", "accuracy"]["training_component"] is None, "of one seed"
    emergencies = sum(case[0] == "ED" for case in decided(0, 1))
    assert rows["a", "r1", "primary", "ed_recall"]["cases"] == emergencies


def test_p_values_are_adjusted_for_all_figures_of_the_set_as_holm_did(tmp_path):
    for name in ("r1", "r2"):
        land(tmp_path, name, 10, 0.8, recipe=name)
    load_all(tmp_path, tmp_path / "w.duckdb")
    with writing(tmp_path / "w.duckdb") as con:  # some equal, and one that has none
        con.execute("UPDATE pooled_metric SET p_value = CASE WHEN rowid > 0 THEN 0.0002 * (rowid % 20) END")
    rows = summary(tmp_path / "w.duckdb").values()
    tested = [row for row in rows if row["p_value"] is not None]
    expected = multipletests([row["p_value"] for row in tested], method="holm")[1]
    assert [row["holm_p"] for row in tested] == pytest.approx(expected)
    assert len(set(expected)) > 5 and [row["holm_p"] for row in rows if row not in tested] == [None]


def test_a_recipe_qualifies_whose_sides_gain_half_of_what_the_linear_model_gains_over_a_constant(tmp_path):
    """By macro-F1: the learners are right in 0.8, the guessers in 0.33; against a linear model that is right in 0.3, nearly
    all qualify."""
    land(tmp_path, "learner", 10, 0.8, recipe="r1")
    land(tmp_path, "guesser", 20, 0.0, recipe="r2")
    for baseline, right in ((None, None), ("linear", 0.95), ("linear", 0.3), ("tfidf_lr", 0.95)):
        gain = None
        if baseline:
            values = {"recipe": baseline, "recipe_kind": "baseline", "random_weights": None, "cell_id": baseline}
            land_arm(tmp_path, "base", None, decided(3, right), True, **values)
        load_all(tmp_path, tmp_path / "w.duckdb")
        rows = summary(tmp_path / "w.duckdb")
        learner = rows["smol", "r1", "argmax", "accuracy"]
        qualifies = (learner["qualifies"], rows["smol", "r2", "argmax", "accuracy"]["qualifies"])
        assert qualifies == ((None, None) if baseline is None else (True, False)), (baseline, right)

        if baseline:
            gain = learner["value_8bit"] - accuracy(decided(3, right))
        share = 0.02 / gain if gain is not None and gain > 0 else None
        assert learner["margin_share"] == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(("labels", "rule"), [(("ED", "HOME"), "argmax"), ((None, None), "target_recall")])
def test_decisions_by_threshold_are_compared_beside_those_of_the_primary_rule(labels, rule, tmp_path):
    """A threshold that answers one label in every case, by bits; None: as an earlier version landed it, where it decided
    as the primary rule."""
    for bits, label in zip((4, 8), labels, strict=True):
        rows = evaluation(f"e{bits}", f"t{bits}", decided(bits, 0.9), groups=True, primary_rule=rule)
        rows["prediction"] = [row | {"target_recall": label} for row in rows["prediction"]]
        write_landing(tmp_path, f"t{bits}", "training", training(f"t{bits}", bits))
        write_landing(tmp_path, f"e{bits}", "evaluation", rows)
    load_all(tmp_path, tmp_path / "w.duckdb")

    rows = summary(tmp_path / "w.duckdb")
    primary, by_threshold = (rows["smol", "r1", name, "ed_recall"] for name in ("primary", "target_recall"))
    if rule == "target_recall":
        assert by_threshold["value_4bit"] == primary["value_4bit"] is not None
        with reading(tmp_path / "w.duckdb") as con:
            assert offending_rows(con, "pools_agree") == 0
    else:
        assert (by_threshold["value_4bit"], by_threshold["value_8bit"]) == (1, 0) and primary["value_4bit"] < 1


def test_two_settings_of_one_recipe_are_two_rows_and_a_seed_without_its_other_side_is_in_none(tmp_path):
    """A recipe that kept its name: what the setting does is no chance between seeds."""
    for seed, rank in ((42, "a"), (43, "b"), (44, "b")):
        land(tmp_path / "landing", f"m{seed}", seed, 0.8, settings_digest=rank, recipe="r1", seed=seed)
    land_arm(tmp_path / "landing", "lone", 4, decided(9, 0.8), True, settings_digest="b", seed=45, cell_id="lone")

    load_all(tmp_path / "landing")
    sql = "SELECT DISTINCT recipe, seeds FROM quantization_summary WHERE metric = 'accuracy' ORDER BY seeds"
    assert query_rows(sql).rows == [("r1", 1), ("r1", 2)]
    assert_sound()


def test_a_recipe_concludes_what_holds_for_other_trainings_too(tmp_path):
    """Two seeds with the same difference, and two of which one shows none. More over-triage is worse."""
    recipes = {
        "gains": ([(0.9, 0.3), (0.9, 0.3)], "not worse"),
        "gains once": ([(0.9, 0.3), (0.9, 0.9)], "cannot conclude"),
        "loses": ([(0.3, 0.9), (0.3, 0.9)], "worse"),
        "loses once": ([(0.3, 0.9), (0.9, 0.9)], "cannot conclude"),
    }
    for recipe, (shares, _) in recipes.items():
        for seed, (right_4bit, right_8bit) in enumerate(shares):
            sides = (decided(4, right_4bit), decided(8, right_8bit))
            name = f"-{recipe.replace(' ', '-')}-{seed}"
            land_pair(tmp_path, *sides, groups=True, name=name, seed=seed, recipe=recipe)
    load_all(tmp_path, tmp_path / "w.duckdb")
    rows = summary(tmp_path / "w.duckdb")
    for recipe, (_, verdict) in recipes.items():
        for metric in ("accuracy", "over_triage"):
            row = rows["smol", recipe, "argmax", metric]
            assert row["verdict"] == verdict, recipe
            assert (row["more_seeds"] is not None or row["more_groups"] is not None) <= (verdict == "cannot conclude")
    assert_sound(tmp_path / "w.duckdb")


def test_a_new_pair_replaces_the_pool_and_a_rebuild_gives_the_same(tmp_path):
    land(tmp_path, "first", 10, 0.8, recipe="r1", seed=42)
    load_all(tmp_path, tmp_path / "w.duckdb")
    key = ("smol", "r1", "argmax", "accuracy")
    before = summary(tmp_path / "w.duckdb")[key]
    land(tmp_path, "second", 20, 0.8, recipe="r1", seed=43)

    for id in ("second-4", "second-8", "esecond-4", "esecond-8"):
        load_landing(tmp_path / id, tmp_path / "w.duckdb")

    after = summary(tmp_path / "w.duckdb")
    assert (before["seeds"], after[key]["seeds"]) == (1, 2)
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

    expected = accuracy(decided(99, 0.8))
    assert summary(tmp_path / "w.duckdb")["smol", "r1", "argmax", "accuracy"]["value_4bit"] == pytest.approx(expected)


def test_each_study_and_the_last_sweep_have_the_figures_of_their_own_pairs(tmp_path):
    """Seed 44 is of no sweep, and the last one of the study `one` is of seed 43 alone."""
    for seed in (42, 43, 44):
        land(tmp_path, f"m{seed}", seed, 0.8, seed=seed)
    for day, seed in ((1, 42), (2, 43)):
        land_sweep(tmp_path, "one", [f"{kind}m{seed}-{bits}" for kind in ("", "e") for bits in (4, 8)], day=day)
    load_all(tmp_path, tmp_path / "w.duckdb")
    key = ("smol", "r1", "argmax", "accuracy")
    assert summary(tmp_path / "w.duckdb")[key]["seeds"] == 3
    for seeds in ([42, 43], [43], [44]):
        row = summary(tmp_path / "w.duckdb", [f"em{seed}-{bits}" for seed in seeds for bits in (4, 8)])[key]
        expected = mean(accuracy(decided(seed + 4, 0.8)) for seed in seeds)
        assert (row["seeds"], row["value_4bit"]) == (len(seeds), pytest.approx(expected))
    assert_sound(tmp_path / "w.duckdb")


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
    assert summary(tmp_path / "w.duckdb")["smol", "r1", "argmax", "accuracy"]["seeds"] == 1


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

    monkeypatch.setattr(pools, "bound_rows", broken)
    with pytest.raises(RuntimeError):
        load_all(tmp_path, tmp_path / "w.duckdb")
    with writing(tmp_path / "w.duckdb") as con:
        stored = con.execute("SELECT count(*) FROM pooled_metric").fetchone()

    assert before and stored == (len(before),), "of the pool of before, which no view shows any more"
    monkeypatch.undo()
    bring_up_to_date(tmp_path / "w.duckdb")
    assert {key[1] for key in summary(tmp_path / "w.duckdb")} == {"r1", "r2"}
