"""Successive halving: what trains next follows from the values alone, and every rung keeps the best."""

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.runtime.errors import BadInput
from tasks.search.halving import Halving, Proposal, TrainTo, rungs

HALVING = Halving((18, 48, 120), 0.4)


@dataclass(frozen=True)
class Fake:
    number: int
    ranks: tuple[tuple[float, float], ...] = ()
    failed: bool = field(default=False)


def run(halving: Halving, curves: list[list[float]], trial_count: int, trials=(), failing=(), most=1000):
    """The trials and the moves (at most so many) of a search whose trial n has the values curves[n] at its rungs."""
    trials = list(trials)
    moves = []
    while len(moves) < most and (move := halving.next_move(trials, trial_count)):
        moves.append(move)
        assert len(moves) < 1000, "it ends"
        if isinstance(move, Proposal):
            trials.append(Fake(len(trials)))
            continue

        trial = trials[move.number]
        assert move.rung == len(trial.ranks), "no rung is left out, and none is trained twice"

        if (move.number, move.rung) in failing:
            trials[move.number] = replace(trial, failed=True)
        else:
            trials[move.number] = replace(trial, ranks=(*trial.ranks, (curves[move.number][move.rung], 0.0)))

    return trials, moves


def depths(trials: list[Fake]) -> list[int]:
    return [len(trial.ranks) for trial in trials]


def test_of_sixteen_trials_six_go_on_and_three_are_trained_to_the_end():
    curves = [[float(number)] * 3 for number in range(16)]
    trials, _ = run(HALVING, curves, 16)
    assert depths(trials) == [3] * 3 + [2] * 3 + [1] * 10
    update_count = 16 * 18 + 6 * 30 + 3 * 72
    assert HALVING.updates(16) == update_count and update_count / (16 * 120) < 0.4


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_killed_after_any_move_it_goes_on_as_if_it_never_was(trial_count, seed):
    rng = random.Random(seed)
    curves = [[rng.random() for _ in range(3)] for _ in range(trial_count)]
    whole, moves = run(HALVING, curves, trial_count)
    killed, before = run(HALVING, curves, trial_count, most=rng.randrange(len(moves)))
    end, after = run(HALVING, curves, trial_count, killed)
    assert end == whole and before + after == moves and len(moves) == trial_count + sum(depths(whole))


@given(st.integers(1, 20), st.integers(1, 20))
def test_more_trials_later_promote_those_that_are_among_the_best_of_all(first, more):
    curves = [[float((7 * n) % 41)] * 3 for n in range(first + more)]
    before, _ = run(HALVING, curves, first)
    after, _ = run(HALVING, curves, first + more, before)
    at_once, _ = run(HALVING, curves, first + more)
    assert all(later_depth >= depth for later_depth, depth in zip(depths(after), depths(at_once), strict=True))


def test_a_trial_that_fails_makes_room_for_the_next_best():
    curves = [[float(number)] * 3 for number in range(5)]
    trials, _ = run(HALVING, curves, 5, failing={(0, 1), (3, 0)})
    assert depths(trials) == [1, 3, 2, 0, 1]


def test_equal_values_are_told_apart_by_the_second_one_then_by_number():
    trials = [Fake(0, ((0.5, 3.0),)), Fake(1, ((0.5, 2.0),)), Fake(2, ((0.5, 2.0),))]
    assert Halving((4, 8), 0.3).next_move(trials, 3) == TrainTo(1, 1)


@pytest.mark.parametrize(
    ("iterations", "every", "shares", "expected"),
    [
        (120, 6, (0.15, 0.4), (18, 48, 120)),
        (500, 200, (0.15, 0.4), (200, 500)),
        (8, 4, (0.5,), (4, 8)),
        (9, 4, (0.01, 0.99), (4, 8, 9)),
        (10, 1, (0.999,), None),
        (4, 4, (0.5,), None),
    ],
)
def test_rungs_are_checkpoints_before_the_end(iterations, every, shares, expected):
    if expected is None:
        with pytest.raises(BadInput, match="leaves no checkpoint before the end"):
            rungs(iterations, every, shares)
    else:
        assert rungs(iterations, every, shares) == expected
