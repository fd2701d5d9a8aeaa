"""A step's limit: a factor times what the plan expects of it, and never less than the floor."""

from __future__ import annotations

import pytest

from flows.plan import seconds_of
from flows.selection import select
from flows.steps import TimeLimits


def limits_of(*overrides: str, grid: str = "paper"):
    selection = select(grid, list(overrides))
    return TimeLimits(selection), selection.cells[0]


def test_a_long_step_has_a_factor_times_its_estimate_and_scoring_a_limit_of_its_own():
    limits, spec = limits_of("time_limit.factor=3", "time_limit.floor_seconds=1")
    expected = seconds_of(spec)
    assert limits.of_training(spec) > 3 * expected.training > limits.of_other_steps == 1
    assert limits.of_scoring(spec) > 3 * (expected.scoring + expected.dropout)
    twice, _ = limits_of("time_limit.factor=6", "time_limit.floor_seconds=1")
    assert twice.of_training(spec) == pytest.approx(2 * limits.of_training(spec))


def test_a_short_step_has_the_floor():
    limits, spec = limits_of(grid="smoke")
    assert limits.of_training(spec) == limits.of_scoring(spec) == limits.of_other_steps == 3600
