"""Recipes over their seeds and adjusted bounds of a small warehouse: what is averaged, and that they stay current."""

import shutil
from datetime import datetime
from statistics import mean

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.warehouse.rows import assert_sound, evaluation, full, land_arm, land_pair, load_landing, training
from tests.warehouse.test_studies import land_sweep
from warehouse.comparison import pools
from warehouse.connect import reading, writing
from warehouse.health import bring_up_to_date, run_audits
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.query import query, query_rows
from warehouse.rebuild import rebuild

LABELS = ("ED", "GP", "HOME")
CASES = 120
ACCURACY = ("smol", "r1", "argmax", "accuracy")
# Shares of right decisions of two seeds at 4 and 8 bits; more over-triage is worse.
CONCLUSIONS = {
    "gains": ([(0.9, 0.3), (0.9, 0.3)], "not worse"),
    "loses": ([(0.3, 0.9), (0.3, 0.9)], "worse"),
    "loses-once": ([(0.3, 0.9), (0.9, 0.9)], "cannot conclude"),
}
# Of the linear model beside a learner that is right in 0.8 and a guesser in 0.33, by the test set.
BASELINES = {"none": None, "strong": ("linear", 0.95), "weak": ("linear", 0.3), "older": ("tfidf_lr", 0.95)}
# What a threshold answers in every case at 4 and 8 bits; None: as an earlier version landed it, where it decided as the
# primary rule.
THRESHOLDS = {"argmax": ("ED", "HOME"), "target_recall": (None, None)}


def decided(seed: int, right: float) -> list[tuple[str, str, str]]:
    """Label, argmax and decision of the same cases, of which about a share `right` is right by each rule."""
    labels = np.random.default_rng(0).choice(LABELS, CASES, p=[0.3, 0.4, 0.3])
    rng = np.random.default_rng(seed)
    sides = [np.where(rng.random(CASES) < right, labels, rng.choice(LABELS, CASES)) for _ in range(2)]
    return [tuple(map(str, case)) for case in zip(labels, *sides, strict=True)]


def land(root, name, draw, right, on="set", **values):
    """A pair of trained models on the test set `on`, right in the share `right`, or in one of each side; what each decided,
    by bits."""
    shares = right if isinstance(right, tuple) else (right, right)
    sides = {bits: decided(draw + bits, share) for bits, share in zip((4, 8), shares, strict=True)}
    land_pair(root, *sides.values(), True, f"-{name}", on=on, **values)
    return sides


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four pairs that know something, one that guesses, an untuned one and a moved one; and every other scenario of this
    file, each on a test set of its own."""
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

    for on, baseline in BASELINES.items():
        land(root, f"learner-{on}", 10, 0.8, on, recipe="r1")
        if on == "strong":
            land(root, "guesser", 20, 0.0, on, recipe="r2")
        if baseline:
            recipe, right = baseline
            values = {"recipe": recipe, "recipe_kind": "baseline", "random_weights": None, "cell_id": f"linear-{on}"}
            land_arm(root, f"linear-{on}", None, decided(3, right), True, on, **values)

    for rule, labels in THRESHOLDS.items():
        for bits, label in zip((4, 8), labels, strict=True):
            id = f"{rule}-{bits}"
            rows = evaluation(f"e{id}", id, decided(bits, 0.9), True, primary_rule=rule, set_digest=rule)
            rows["prediction"] = [row | {"target_recall": label} for row in rows["prediction"]]
            write_landing(root, id, "training", training(id, bits, cell_id=id))
            write_landing(root, f"e{id}", "evaluation", rows)

    # A recipe that kept its name: what the setting does is no chance between seeds. One seed lacks its other side.
    for seed, rank in ((42, "a"), (43, "b"), (44, "b")):
        land(root, f"setting-{seed}", seed, 0.8, "settings", settings_digest=rank, recipe="r1", seed=seed)
    land_arm(root, "lone", 4, decided(9, 0.8), True, "settings", settings_digest="b", seed=45, cell_id="lone")

    for recipe, (shares, _) in CONCLUSIONS.items():
        for seed, share in enumerate(shares):
            land(root, f"{recipe}-{seed}", 0, share, "conclusions", seed=seed, recipe=recipe)

    # Seed 44 is of no sweep, and the last one of the study `one` is of seed 43 alone.
    for seed in (42, 43, 44):
        land(root, f"m{seed}", seed, 0.8, "sweeps", seed=seed)
    for day, seed in ((1, 42), (2, 43)):
        land_sweep(root, "one", [f"{kind}{bits}-m{seed}" for kind in "te" for bits in (4, 8)], day=day)

    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        land_arm(root, name, 4, decided(seed, 0.95), False, "looks", cell_id=name, recipe=name)
    load_all(root, root / "w.duckdb")
    return root / "w.duckdb", pairs


def summary(path, on="set", only=None):
    frame = query(f"FROM quantization_summary WHERE set_digest = '{on}'", database=path, only=only)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {(row["base_model"], row["recipe"], row["rule"], row["metric"]): row for row in rows}


def accuracy(cases) -> float:
    return mean(label == argmax for label, argmax, _ in cases)


def test_a_recipe_is_the_mean_over_its_seeds_and_neither_recipes_nor_base_models_are_averaged(study):
    path, pairs = study
    rows = summary(path)
    recipes = {key[:2] for key in rows}
    assert recipes == {("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "r2")}, "no untuned and no moved ones"
    assert len(rows) == 4 * (3 * 5 + 1)

    row = rows["a", "r1", "argmax", "accuracy"]
    four, eight = ([accuracy(pairs["a", "r1", seed][bits]) for seed in (42, 43)] for bits in (4, 8))
    assert (row["value_4bit"], row["value_8bit"]) == pytest.approx((mean(four), mean(eight)))
    assert (row["seeds"], row["cases"], row["groups"]) == (2, CASES, CASES // 2)
    assert row["low"] < row["difference"] < row["high"] and row["training_component"] is not None
    assert row["standard_error"] >= stats.sem(np.subtract(four, eight)) - 1e-12 and row["freedom"] >= 1
    assert rows["a", "r2", "argmax", "accuracy"]["training_component"] is None, "of one seed"
    emergencies = sum(case[0] == "ED" for case in decided(0, 1))
    assert rows["a", "r1", "primary", "ed_recall"]["cases"] == emergencies

    two_settings = (
        "SELECT seeds FROM quantization_summary WHERE metric = 'ed_auroc' AND set_digest = 'settings' ORDER BY 1"
    )
    assert query_rows(two_settings, database=path).rows == [(1,), (2,)], "and a seed without its other side is in none"
    with reading(path) as con:
        audits = run_audits(con)
    assert audits["pools_are_reproduced"] == audits["pairs_are_reproduced"] == audits["pairs_agree"] == 0


def test_p_values_are_adjusted_for_all_figures_of_the_set_as_holm_did(study):
    with writing(study[0]) as con:
        con.begin()  # some equal, and some that are NULL
        con.execute("UPDATE pooled_metric SET p_value = CASE WHEN rowid % 7 > 0 THEN 0.0002 * (rowid % 20) END")
        sql = "SELECT p_value, holm_p FROM quantization_summary WHERE set_digest = 'set'"
        rows = con.execute(sql).fetchall()
        con.rollback()
    tested = [row for row in rows if row[0] is not None]
    expected = multipletests([p for p, _ in tested], method="holm")[1]
    assert [holm for _, holm in tested] == pytest.approx(expected)
    assert len(set(expected)) > 5 and {holm for p, holm in rows if p is None} == {None}


@pytest.mark.parametrize("on", BASELINES)
def test_a_recipe_qualifies_whose_sides_gain_half_of_what_the_linear_model_gains_over_a_constant(on, study):
    """By macro-F1. Against a linear model that is right in 0.3, nearly all qualify."""
    rows = summary(study[0], on)
    learner = rows[ACCURACY]
    assert learner["qualifies"] is (None if on == "none" else True)
    assert on != "strong" or rows["smol", "r2", "argmax", "accuracy"]["qualifies"] is False
    gain = learner["value_8bit"] - accuracy(decided(3, BASELINES[on][1])) if BASELINES[on] else 0
    assert learner["margin_share"] == (pytest.approx(0.02 / gain) if gain > 0 else None)


@pytest.mark.parametrize("rule", THRESHOLDS)
def test_decisions_by_threshold_are_compared_beside_those_of_the_primary_rule(rule, study):
    rows = summary(study[0], rule)
    primary, by_threshold = (rows["smol", "r1", name, "ed_recall"] for name in ("primary", "target_recall"))
    if rule == "target_recall":
        assert by_threshold["value_4bit"] == primary["value_4bit"] is not None
    else:
        assert (by_threshold["value_4bit"], by_threshold["value_8bit"]) == (1, 0) and primary["value_4bit"] < 1


def test_a_recipe_concludes_what_holds_for_other_trainings_too(study):
    rows = summary(study[0], "conclusions")
    for recipe, (_, verdict) in CONCLUSIONS.items():
        for metric in ("accuracy", "over_triage"):
            row = rows["smol", recipe, "argmax", metric]
            assert row["verdict"] == verdict, (recipe, metric)
            has_advice = row["more_seeds"] is not None or row["more_groups"] is not None
            assert has_advice <= (verdict == "cannot conclude")


def test_each_study_and_the_last_sweep_have_the_figures_of_their_own_pairs(study):
    assert summary(study[0], "sweeps")[ACCURACY]["seeds"] == 3
    for seeds in ([42, 43], [43], [44]):
        ids = [f"e{bits}-m{seed}" for seed in seeds for bits in (4, 8)]
        row = summary(study[0], "sweeps", ids)[ACCURACY]
        expected = mean(accuracy(decided(seed + 4, 0.8)) for seed in seeds)
        assert (row["seeds"], row["value_4bit"]) == (len(seeds), pytest.approx(expected))


def test_new_pairs_and_decisions_replace_the_figures_and_a_rebuild_gives_the_same(tmp_path):
    path = tmp_path / "w.duckdb"
    land(tmp_path, "first", 10, 0.8, recipe="r1", seed=42)
    load_all(tmp_path, path)
    before = summary(path)[ACCURACY]
    land(tmp_path, "second", 20, 0.8, recipe="r1", seed=43)
    for id in ("t4-second", "t8-second", "e4-second", "e8-second"):
        load_landing(tmp_path / id, path)
    assert (before["seeds"], summary(path)[ACCURACY]["seeds"]) == (1, 2)
    assert query_rows("SELECT count(DISTINCT pool) FROM pooled_metric", database=path).rows == [(1,)]

    write_landing(tmp_path, "e4-first", "evaluation", evaluation("e4-first", "t4-first", decided(99, 0.8), groups=True))
    load_all(tmp_path, path)
    after = summary(path)
    expected = mean(accuracy(decided(seed, 0.8)) for seed in (99, 24))
    assert after[ACCURACY]["value_4bit"] == pytest.approx(expected)
    assert_sound(path)
    rebuild(tmp_path, path)
    again = summary(path)
    assert again.keys() == after.keys()
    for key, row in after.items():  # but for rounding: no order of seeds is kept
        assert [again[key][name] for name in ("low", "high")] == pytest.approx([row["low"], row["high"]]), key


def test_a_large_pool_is_made_when_its_sweep_or_a_load_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "AT_EACH_LANDING", CASES)
    path, other = tmp_path / "w.duckdb", tmp_path / "other.duckdb"
    land(tmp_path, "one", 10, 0.8)
    members = [full("sweep_member", sweep_id="sweep", id=id) for id in ("e4-one", "e8-one")]

    def land_sweep_to(end):
        sweep = full("sweep", sweep_id="sweep", study="s", grid="s", grid_digest="g", experiments=2,
                     started_at=datetime(2026, 3, 1), finished_at=end)  # fmt: skip
        write_landing(tmp_path, "sweep", "sweep", {"sweep": [sweep], "sweep_member": members})
        load_landing(tmp_path / "sweep", path)

    for id in ("t4-one", "t8-one", "e4-one", "e8-one"):
        load_landing(tmp_path / id, path)
    land_sweep_to(None)
    assert not summary(path)
    assert_sound(path)
    shutil.copy(path, other)
    bring_up_to_date(other)
    land_sweep_to(datetime(2026, 3, 2))
    assert summary(path)[ACCURACY]["seeds"] == summary(other)[ACCURACY]["seeds"] == 1
    assert_sound(path)


def bounds(path, on):
    sql = f"SELECT b.* FROM gate_bounds AS b JOIN evaluation USING (evaluation_id) WHERE set_digest = '{on}'"
    return {(row["evaluation_id"], row["gate"]): row for row in query(sql, database=path).to_dict("records")}


def test_a_gate_has_the_number_of_looks_beside_its_bound_and_one_that_allows_for_them(study):
    output = bounds(study[0], "set")
    assert len(output) == 12 * 3 and {row["models"] for row in output.values()} == {12}, "ten trained, two moved ones"
    for (id, gate), row in output.items():
        better = -1 if gate == "ed_false_negative_rate" else 1
        assert 0 <= row["bound_adjusted"] <= 1
        assert better * row["bound_adjusted"] <= better * row["bound"] + 1e-9, (id, gate)
        if gate == "ed_recall":
            assert output[id, "ed_false_negative_rate"]["bound_adjusted"] == 1 - row["bound_adjusted"]


def test_the_exact_bound_is_that_of_scipy_at_the_share_of_each_look(study):
    rows = bounds(study[0], "looks")
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        emergencies = [decision == "ED" for label, _, decision in decided(seed, 0.95) if label == "ED"]
        test = stats.binomtest(sum(emergencies), len(emergencies))
        expected = test.proportion_ci(1 - 0.05 / 3, method="exact").low
        row = rows[f"e{name}", "ed_recall"]
        assert (row["bound_adjusted"], row["models"]) == (pytest.approx(expected, abs=1e-9), 3)


def test_a_failure_in_the_middle_leaves_the_figures_of_before(tmp_path, monkeypatch):
    path = tmp_path / "w.duckdb"
    land(tmp_path, "one", 10, 0.8)
    load_all(tmp_path, path)
    before = summary(path)
    land(tmp_path, "two", 20, 0.8, recipe="r2")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(pools, "bound_rows", lambda *_: (_ for _ in ()).throw(RuntimeError("in the middle")))
        load_all(tmp_path, path)
    with writing(path) as con:
        stored = con.execute("SELECT count(*) FROM pooled_metric").fetchone()
    assert before and stored == (len(before),), "of the pool of before, which no view shows any more"
    bring_up_to_date(path)
    assert {key[1] for key in summary(path)} == {"r1", "r2"}
