"""What `triage sweep --plan` says about the chance of a training, of which more cases lower little."""

from __future__ import annotations

from collections.abc import Callable

from flows.power.training_chance import PlannedPairs, StoredSpread
from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.resampling import MARGIN
from warehouse.comparison.seed_spread import SeedSpread, pairs_that_could_show

TITLES = {
    "accuracy": "accuracy",
    "ed_recall": "ED recall",
    "macro_f1": "macro-F1",
    ED_AUROC: "ED AUROC",
}
MOST_NAMED = 3  # recipes


def trainings_sentence(spread: StoredSpread | None, planned: PlannedPairs) -> str:
    """How the difference varies between seeds, and what the pairs of the grid can show of it."""
    if not planned.total:
        return "trainings: no model, recipe and seed is planned at both 4 and 8 bits."
    if spread is None:
        return (
            "trainings: the shares above are for two trained models and leave out chance in "
            "training; the warehouse has no recipe with two seeds to estimate it from. "
            f"{_seeds(planned)}"
        )

    varying = _in_each(spread, lambda one: f"{100 * one.sd:.1f} points")
    enough = _in_each(spread, lambda one: f"{pairs_that_could_show(one.sd):,} pairs")
    return (
        f"trainings: on {spread.cases:,} cases the difference varied between seeds by {varying} "
        f"(standard deviation over {spread.pairs} pairs of {_names(spread)}), which more cases "
        f"lower only in part. {_shown(spread, planned)} For {100 * MARGIN:g} points it takes about "
        f"{enough}."
    )


def _names(spread: StoredSpread) -> str:
    named = ", ".join(spread.recipes[:MOST_NAMED])
    further = len(spread.recipes) - MOST_NAMED
    return f"{named} and {further} more" if further > 0 else named


def _seeds(planned: PlannedPairs) -> str:
    if planned.freedom:
        return (
            "Where a recipe has several seeds, as here, a pooled verdict is given only if Student's "
            "interval over the trainings says the same."
        )
    return "Give a recipe several seeds, as in seeds = [42, 43, 44], and a pooled verdict allows for it."


def _shown(spread: StoredSpread, planned: PlannedPairs) -> str:
    """What the pairs of the grid could show, as a pooled verdict computes it."""
    if not planned.freedom:
        return "One seed of each recipe says nothing about it; give a recipe several."

    could_show = _in_each(
        spread,
        lambda one: (
            f"{100 * SeedSpread(one.sd, planned.freedom).half_width(planned.total):.1f} points"
        ),
    )
    return (
        f"The {planned.total} pairs planned here could show {could_show} (half of Student's 95 % "
        "interval over trainings)."
    )


def _in_each(spread: StoredSpread, text: Callable[[SeedSpread], str]) -> str:
    """`1.8 points in accuracy, 7.4 points in ED recall`."""
    return ", ".join(f"{text(one)} in {TITLES[metric]}" for metric, one in spread.by_metric.items())
