"""What a plan says about the chance of a training comes from how stored pairs differ by their seeds."""

import numpy as np
import pytest
from scipy import stats

from flows.power.printed import trainings_sentence
from flows.power.training_chance import PlannedPairs, planned_pairs, stored_spread
from flows.selection import select
from tests.flows.power.stored import Decisions, decisions, store
from warehouse.comparison.resampling import SeedSpread, pairs_that_could_show

LOSSES = {42: 0.0, 43: 0.6, 44: -0.3}


def of_seed(seed: int) -> Decisions:
    """On the same cases whatever the seed; the 4-bit model is as much worse as LOSSES says."""
    return decisions(LOSSES[seed], seed=5, groups=20, size=10)


def store_seeds(root, seeds, pair=None, **values) -> None:
    for seed in seeds:
        own = {"base_model": "smollm2-135m", "recipe": "tuned", "seed": seed}
        store(root / "landing", pair or of_seed(seed), **own, **values)


def differences(pair: Decisions) -> tuple[float, float]:
    truth, four, eight, _ = pair
    gained = (four == truth).astype(float) - (eight == truth)
    return float(gained.mean()), float(gained[truth == 0].mean())


def test_the_spread_is_that_of_the_pairs_that_differ_by_their_seeds_alone(tmp_path):
    store_seeds(tmp_path, LOSSES)
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


@pytest.mark.parametrize(
    ("column", "value"),
    [("settings_digest", None), ("source_digest", None), ("recipe_kind", "moved_adapter"), ("recipe_kind", "baseline")],
)
def test_settings_or_weights_that_stand_alone_and_models_that_were_not_trained_say_nothing(column, value, tmp_path):
    """None: each seed has its own."""
    for seed in (42, 43):
        store_seeds(tmp_path, [seed], **{column: value or str(seed)})
    assert stored_spread(select("study").cells) is None


def test_another_model_stands_in_but_random_weights_do_not(tmp_path):
    store_seeds(tmp_path, (42, 43))
    assert stored_spread(select("paper").cells).recipes == ("smollm2-135m tuned",)
    store_seeds(tmp_path, (42, 43), random_weights=True)
    assert stored_spread(select("paper").cells) is None
    assert stored_spread(select("study").cells).pairs == 2


def test_models_that_know_nothing_do_not_make_trainings_look_alike(tmp_path):
    truth, _, _, groups = of_seed(42)
    always_gp = np.ones_like(truth)
    store_seeds(tmp_path, (42, 43), (truth, always_gp, always_gp, groups))
    assert stored_spread(select("study").cells) is None


def test_without_pairs_a_plan_says_what_its_figures_leave_out():
    nothing = "trainings: no model, recipe and seed is planned at both 4 and 8 bits."
    assert trainings_sentence(None, PlannedPairs(0, 0)) == nothing
    one_seed = planned_pairs(select("demo").cells)
    assert (one_seed.total, one_seed.freedom) == (one_seed.recipes, 0)
    assert "Give a recipe several seeds" in trainings_sentence(None, one_seed)

    cells = select("study").cells
    several = planned_pairs(cells)
    assert (several.total, several.recipes, several.freedom) == (9, 5, 4)
    assert "A pooled verdict is given only if Student's interval" in trainings_sentence(None, several)
    one_width = planned_pairs([cell for cell in cells if cell.precision.name == "4bit" or cell.seed == 42])
    assert (one_width.total, one_width.freedom) == (5, 0), "seeds that are planned at one width are no pair"


def test_one_seed_of_each_recipe_has_no_interval_over_trainings():
    assert SeedSpread.of([[0.01], [0.02]]) is None
    pooled = SeedSpread.of([[0.01, 0.03], [-0.02, 0.0], [0.5]])
    assert (pooled.sd, pooled.freedom) == (pytest.approx(0.02 / 2**0.5), 2)
