"""Simulated studies of pairs on groups of cases, with the true difference at the margin: in how many the interval holds
it, and how many read "not worse", which would be wrong.

The decisions are binary. In seed s and group u a case is right at 4 bits alone with probability (DISCORDANT + d) / 2,
at 8 bits alone with (DISCORDANT - d) / 2, where d is the true difference plus effects of the seed and of the group.
"""

import itertools

import numpy as np
import pytest

from warehouse.comparison.crossed import MARGIN, crossed, verdict_on

DISCORDANT = 0.3
CASES = 24  # of a group, as in the published study
# Standard deviations of the effects of seeds and of groups, and whether groups have 2 to 46 cases instead.
SPREADS = {
    "as published (tuned, accuracy)": (0.0105, 0.0138, False),
    "seeds differ most": (0.04, 0.01, False),
    "groups differ most": (0.005, 0.06, False),
    "neither differs": (0.0, 0.0, False),
    "groups of unequal sizes": (0.02, 0.03, True),
}
SEEDS = (3, 5, 10)
GROUPS = (20, 63, 120)


def shares(seeds: int, groups: int, spread: str, studies: int) -> tuple[float, float]:
    """Of so many studies: those whose interval holds the true difference, and those that read "not worse"."""
    of_seed, of_group, unequal = SPREADS[spread]
    rng = np.random.default_rng([seeds, groups, list(SPREADS).index(spread)])
    shape = (studies, seeds, groups)
    size = rng.integers(2, 2 * CASES - 1, (studies, 1, groups)) if unequal else np.full((studies, 1, groups), CASES)
    effects = of_seed * rng.normal(size=(studies, seeds, 1)) + of_group * rng.normal(size=(studies, 1, groups))
    d = np.clip(-MARGIN + effects, -DISCORDANT, DISCORDANT)  # beyond 4.6 standard deviations
    gained = rng.binomial(np.broadcast_to(size, shape), (DISCORDANT + d) / 2)
    lost = rng.binomial(size - gained, (DISCORDANT - d) / 2 / (1 - (DISCORDANT + d) / 2))

    total = size.sum(axis=-1, keepdims=True)
    values = (gained - lost).sum(axis=-1, keepdims=True) / total
    influences = (gained - lost - values * size) / total
    holding = not_worse = 0
    for value, influence in zip(values[..., 0], influences, strict=True):
        low, high = crossed(value, influence).interval()
        holding += low <= -MARGIN <= high
        not_worse += verdict_on("accuracy", low, high, MARGIN) in ("not worse", "within")
    return holding / studies, not_worse / studies


def test_a_few_simulated_studies_hold_the_true_difference():
    held, wrong = shares(3, 63, "seeds differ most", 1_000)
    assert held >= 0.92 and wrong <= 0.045


@pytest.mark.nightly
@pytest.mark.parametrize("spread", SPREADS)
def test_95_percent_intervals_hold_93_percent_and_more_and_few_studies_at_the_margin_read_not_worse(spread):
    print(f"\n{spread}\nseeds  groups  coverage  not worse")
    figures = {}
    for seeds, groups in itertools.product(SEEDS, GROUPS):
        held, wrong = figures[seeds, groups] = shares(seeds, groups, spread, 4_000)
        print(f"{seeds:5}  {groups:6}  {held:8.3f}  {wrong:9.3f}")
    assert {key: both for key, both in figures.items() if both[0] < 0.93 or both[1] > 0.035} == {}
