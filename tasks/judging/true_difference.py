"""Sets the true difference of a pair that studies are drawn from, at the same discordance.

For a lower difference, half of the change takes cases that are right at 4 bits only and makes them
wrong at both; the other half takes cases that are right at both and makes them wrong at 4 bits. So
as many cases as before are decided rightly by exactly one of the two. For a higher difference the
two models change places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.judging.paired_cells import CELLS, CLASSES, confusion_tables
from tasks.judging.point_metrics import Floats, Ints

Metric = Callable[[Floats], Floats]
"""A metric (...) of confusion tables (..., 3, 3)."""

LARGEST = 1.0  # of a change of a label's share of right decisions


@dataclass(frozen=True)
class Shift:
    """Changes decisions case by case: `kernel` (27, 27), from a cell (row) to a cell (column)."""

    kernel: Floats

    @classmethod
    def none(cls) -> Shift:
        return cls(np.eye(CELLS))

    def applied(self, cells: Ints, rng: np.random.Generator) -> Ints:
        """Cells (..., 27) after each case has changed, or not, by itself."""
        shifted = cells.copy()
        for cell in np.nonzero(np.diagonal(self.kernel) < 1)[0]:
            remaining = cells[..., cell].copy()
            staying = 1.0
            for target in np.nonzero(self.kernel[cell])[0]:
                if target == cell:
                    continue
                # A multinomial draw, target by target, from the cases that have not moved yet.
                share = min(1.0, self.kernel[cell, target] / staying)
                moved_cases = rng.binomial(remaining, share)
                shifted[..., cell] -= moved_cases
                shifted[..., target] += moved_cases
                remaining -= moved_cases
                staying = max(staying - self.kernel[cell, target], 1e-12)

        return shifted


def difference_of(cells: Floats, metric: Metric) -> float:
    """4 bits minus 8 bits of a metric of the cells (27,)."""
    return float(differences_of(cells[None], metric)[0])


def differences_of(cells: Floats, metric: Metric) -> Floats:
    """4 bits minus 8 bits of a metric of each row of cells (studies, 27)."""
    at_4bit, at_8bit = confusion_tables(cells)
    return metric(at_4bit) - metric(at_8bit)


def shift_to(
    difference: float, cells: Floats, metric: Metric, labels: tuple[int, ...]
) -> Shift | None:
    """The shift after which cells (27,) have this true difference, or None if none is so large.

    `labels`: true labels whose cases change, each by the same share of its cases.
    """

    def excess_after(change: float) -> float:
        return difference_of(cells @ _kernel(change, cells, labels), metric) - difference

    low = -LARGEST
    high = LARGEST
    if excess_after(low) > 0 or excess_after(high) < 0:
        return None

    # Each halving doubles the exactness: 40 are far below any figure that is shown.
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if excess_after(middle) < 0 else (low, middle)

    return Shift(_kernel((low + high) / 2, cells, labels))


def _kernel(change: float, cells: Floats, labels: tuple[int, ...]) -> Floats:
    """The kernel that changes the share of right decisions at 4 bits less that at 8 bits by
    `change`.
    """
    joint = cells.reshape((CLASSES,) * 3)
    if change > 0:
        joint = joint.swapaxes(1, 2)

    kernel = np.eye(CELLS).reshape((CLASSES,) * 6)
    for label in labels:
        _lower(kernel, label, joint[label], abs(change))

    if change > 0:
        # The two models change places back, in the cells before and in those after.
        kernel = kernel.transpose(0, 2, 1, 3, 5, 4)
    return kernel.reshape(CELLS, CELLS)


def _lower(kernel: Floats, label: int, decisions: Floats, change: float) -> None:
    """Let the first model lose `change` of the label's cases. `decisions` (3, 3): first, second."""
    total = decisions.sum()
    if total == 0:
        return

    wrong = [other for other in range(CLASSES) if other != label]
    only_first = decisions[label, wrong].sum() / total
    both_right = decisions[label, label] / total

    # Half from each kind; where one has too few cases, the other gives the rest.
    from_first = min(change / 2, only_first)
    from_both = min(change - from_first, both_right)
    from_first = min(change - from_both, only_first)

    if only_first > 0:
        for other in wrong:
            share = from_first / only_first
            kernel[label, label, other, label, label, other] = 1 - share
            kernel[label, label, other, label, other, other] = share

    if both_right > 0:
        share = from_both / both_right
        kernel[label, label, label, label, label, label] = 1 - share
        for other, part in zip(wrong, _wrong_shares(decisions, wrong), strict=True):
            kernel[label, label, label, label, other, label] = share * part


def _wrong_shares(decisions: Floats, wrong: list[int]) -> Floats:
    """How wrong decisions of either model divide over the other labels, (2,)."""
    counts = decisions[wrong].sum(axis=1) + decisions[:, wrong].sum(axis=0)
    return counts / counts.sum() if counts.sum() else np.full(len(wrong), 1 / len(wrong))
