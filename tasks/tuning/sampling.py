"""How often each label is drawn for the batches of a training, so that a rare one is not given up.

All draws follow from (seed, epoch) alone, so a resumed training draws what one that never stopped
draws.
"""

from __future__ import annotations

import numpy as np

from tasks.spec import Sampling

# A label's share of the draws is its share in `train` to this power.
POWERS: dict[Sampling, float] = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0}
# Keeps the orders of a label's cases apart from those of an epoch.
LABEL_KEY = 7_919


def drawn_counts(counts: np.ndarray, sampling: Sampling) -> np.ndarray:
    """(labels,) whole numbers: how often each label is drawn in an epoch, given its cases.

    An epoch has as many draws as there are cases, so schedules count the same updates.
    """
    if sampling == "natural":
        return counts

    has_cases = counts > 0
    weights = np.where(has_cases, counts.astype(float) ** POWERS[sampling], 0.0)
    exact = counts.sum() * weights / weights.sum()
    draws = np.floor(exact).astype(np.int64)
    # What rounding leaves goes to the largest remainders, ties to the first label.
    largest_first = np.argsort(draws - exact, kind="stable")
    draws[largest_first[: counts.sum() - draws.sum()]] += 1

    return draws


def drawn_cases(labels: np.ndarray, sampling: Sampling, seed: int, epoch: int) -> np.ndarray:
    """Case numbers of an epoch, label by label.

    A label's cases are drawn in turn, in a new order each time around, and an epoch goes on where
    the one before it ended: over the epochs no case of a label is drawn twice more than another.
    """
    counts = np.bincount(labels)
    draws = drawn_counts(counts, sampling)
    return np.concatenate(
        [
            _in_turn(
                np.flatnonzero(labels == label), epoch * count, count, [seed, LABEL_KEY, label]
            )
            for label, count in enumerate(draws.tolist())
        ]
    )


def _in_turn(cases: np.ndarray, start: int, count: int, key: list[int]) -> np.ndarray:
    """`count` entries from `start` on of an endless sequence of orders of `cases`."""
    if count == 0:
        return cases[:0]

    first = start // len(cases)
    last = (start + count - 1) // len(cases)
    rounds = [
        np.random.default_rng([*key, turn]).permutation(cases) for turn in range(first, last + 1)
    ]
    begin = start - first * len(cases)

    return np.concatenate(rounds)[begin : begin + count]
