"""What a plan says about the chance of a training comes from how stored pairs differ by their seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flows.power.printed import trainings_sentence
from flows.power.training_chance import PlannedPairs, planned_pairs, stored_spread
from flows.selection import select
from tests.flows.power.stored import Decisions, decisions, store
from warehouse.comparison.seed_spread import SeedSpread, pairs_that_could_show

LOSSES = {42: 0.0, 43: 0.6, 44: -0.3}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "home" / "triage.duckdb"))


def of_seed(seed: int) -> Decisions:
    """On the same cases whatever the seed; the 4-bit model is as much worse as LOSSES says."""
    return decisions(LOSSES[seed], seed=5, groups=20, size=10)


def differences(pair: Decisions) -> tuple[float, float]:
    truth, four, eight, _ = pair
    gained = (four == truth).astype(float) - (eight == truth)
    return float(gained.mean()), float(gained[truth == 0].mean())


def test_the_spread_is_that_of_the_pairs_that_differ_by_their_seeds_alone(tmp_path):
    for seed in LOSSES:
        store(tmp_path / "landing", of_seed(seed), base_model="smollm2-135m", recipe="tuned", seed=seed)

    spread = stored_spread(select("study").cells)
    accuracy, ed_recall = np.array([differences(of_seed(seed)) for seed in LOSSES]).std(axis=0, ddof=1)
    assert (spread.recipes, spread.pairs) == (("smollm2-135m tuned",), 3)
    assert (spread.by_metric["accuracy"].sd, spread.by_metric["accuracy"].freedom) == (pytest.approx(accuracy), 2)
    assert spread.by_metric["ed_recall"].sd == pytest.approx(ed_recall)

    sentence = trainings_sentence(spread, PlannedPairs(total=3, recipes=1))
    half = 100 * stats.t.ppf(0.975, 2) * accuracy / 3**0.5
    cases = len(of_seed(42)[0])
    assert (
        f"on {cases} cases the difference varied between seeds by {100 * accuracy:.1f} points in accuracy" in sentence
    )
    assert f"{100 * ed_recall:.1f} points in ED recall" in sentence
    assert f"The 3 pairs planned here could show {half:.1f} points in accuracy" in sentence
    assert f"takes about {pairs_that_could_show(accuracy):,} pairs in accuracy" in sentence


@pytest.mark.parametrize("column", ["settings_digest", "source_digest"])
def test_settings_or_weights_that_stand_alone_say_nothing(column, tmp_path):
    for seed in (42, 43):
        values = {"base_model": "smollm2-135m", "recipe": "tuned", "seed": seed}
        store(tmp_path / "landing", of_seed(seed), **values, **{column: str(seed)})
    assert stored_spread(select("study").cells) is None


def test_moved_and_untuned_models_are_no_trainings(tmp_path):
    for kind in ("moved_adapter", "baseline"):
        for seed in (42, 43):
            values = {"base_model": "smollm2-135m", "recipe": "tuned", "seed": seed, "recipe_kind": kind}
            store(tmp_path / "landing", of_seed(seed), **values)
        assert stored_spread(select("study").cells) is None


def test_where_no_pair_is_planned_the_plan_says_so():
    assert trainings_sentence(None, PlannedPairs(0, 0)) == (
        "trainings: no model, recipe and seed is planned at both 4 and 8 bits."
    )


def test_another_model_stands_in_but_random_weights_do_not(tmp_path):
    for seed in (42, 43):
        store(tmp_path / "landing", of_seed(seed), base_model="smollm2-135m", recipe="tuned", seed=seed)
    assert stored_spread(select("paper").cells).recipes == ("smollm2-135m tuned",)

    for seed in (42, 43):
        values = {"base_model": "smollm2-135m", "recipe": "tuned", "seed": seed}
        store(tmp_path / "landing", of_seed(seed), **values, random_weights=True)
    assert stored_spread(select("paper").cells) is None
    assert stored_spread(select("study").cells).pairs == 2


def test_models_that_know_nothing_do_not_make_trainings_look_alike(tmp_path):
    truth, _, _, groups = of_seed(42)
    always_gp = np.ones_like(truth)
    for seed in (42, 43):
        pair = (truth, always_gp, always_gp, groups)
        store(tmp_path / "landing", pair, base_model="smollm2-135m", recipe="tuned", seed=seed)
    assert stored_spread(select("study").cells) is None


def test_without_pairs_a_plan_says_what_its_figures_leave_out():
    one_seed = planned_pairs(select("demo").cells)
    assert (one_seed.total, one_seed.freedom) == (one_seed.recipes, 0)
    assert "Give a recipe several seeds" in trainings_sentence(None, one_seed)

    several = planned_pairs(select("study").cells)
    assert (several.total, several.recipes, several.freedom) == (9, 5, 4)
    assert "A pooled verdict is given only if Student's interval" in trainings_sentence(None, several)


def test_seeds_that_are_planned_at_one_width_are_no_pair():
    cells = [cell for cell in select("study").cells if cell.precision.name == "4bit" or cell.seed == 42]
    assert (planned_pairs(cells).total, planned_pairs(cells).freedom) == (5, 0)


def test_one_seed_of_each_recipe_has_no_interval_over_trainings():
    assert SeedSpread.of([[0.01], [0.02]]) is None
    pooled = SeedSpread.of([[0.01, 0.03], [-0.02, 0.0], [0.5]])
    assert (pooled.sd, pooled.freedom) == (pytest.approx(0.02 / 2**0.5), 2)
