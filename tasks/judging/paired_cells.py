"""How two models decide the same cases, as counts: the form in which studies of pairs are drawn.

A cell is (true label, decision at 4 bits, decision at 8 bits), each a position in LABELS, numbered
from 0 to 26. What is drawn for a plan is judged by the functions that judge a finished pair
(`warehouse/comparison/verdicts.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.judging.point_metrics import Floats, Ints
from tasks.spec import LABELS

CLASSES = len(LABELS)
CELLS = CLASSES**3
_TRUTH, _AT_4BIT, _AT_8BIT = (axis.ravel() for axis in np.indices((CLASSES,) * 3))
# Right at 4 bits less right at 8 bits, by cell.
GAIN = (_AT_4BIT == _TRUTH).astype(np.int64) - (_AT_8BIT == _TRUTH)


@dataclass(frozen=True)
class PairedCounts:
    """A pair's cases by group and cell: `counts` (groups, 27), `names` of the groups.

    Without groups (`grouped` is False) each row is one case.
    """

    counts: Ints
    names: tuple[str, ...]
    grouped: bool

    @classmethod
    def of(
        cls, truth: Ints, at_4bit: Ints, at_8bit: Ints, units: Sequence[str], grouped: bool
    ) -> PairedCounts:
        """Count cases; all arguments (cases,), `units` what a case is resampled with."""
        cells = (truth * CLASSES + at_4bit) * CLASSES + at_8bit
        names, counts = _counted(units, cells, CELLS)
        return cls(counts, names, grouped)

    @property
    def by_class(self) -> Ints:
        """Cells of each group by true label: (groups, 3, 9)."""
        return self.counts.reshape(-1, CLASSES, CELLS // CLASSES)

    @property
    def discordance(self) -> float:
        """Share of the cases that exactly one of the two models decides rightly."""
        totals = self.counts.sum(axis=0)
        return float(totals[GAIN != 0].sum() / totals.sum())


@dataclass(frozen=True, eq=False)
class PlannedSet:
    """A test set before it is scored: `cases` (groups, 3) by group and label.

    Without groups (`grouped` is False) there is one row, which holds all cases.
    """

    cases: Ints
    names: tuple[str, ...]
    grouped: bool

    @classmethod
    def of(cls, truth: Ints, groups: Sequence[str | None], case_ids: Sequence[str]) -> PlannedSet:
        """Count the cases of a set; all arguments (cases,). A case without a group among cases with
        groups stands for itself.
        """
        if all(group is None for group in groups):
            return cls(np.bincount(truth, minlength=CLASSES)[None], ("",), False)

        names, cases = _counted(units_of(groups, case_ids), truth, CLASSES)
        return cls(cases, names, True)

    @property
    def total(self) -> int:
        return int(self.cases.sum())

    @property
    def emergencies(self) -> int:
        return int(self.cases[:, 0].sum())

    @property
    def groups(self) -> int | None:
        """Number of groups, None where the cases have none."""
        return len(self.names) if self.grouped else None

    def with_cases(self, factor: float) -> PlannedSet:
        """The set with `factor` times as many cases in every group; a class that a group has stays
        in it.
        """
        cases = np.maximum(np.rint(self.cases * factor).astype(np.int64), self.cases > 0)
        return PlannedSet(cases, self.names, self.grouped)

    def with_groups(self, count: int) -> PlannedSet:
        """The set with `count` groups, made by repeating those that it has, in turn."""
        rows = np.arange(count) % len(self.names)
        return PlannedSet(self.cases[rows], tuple(self.names[row] for row in rows), True)


def units_of(groups: Sequence[str | None], case_ids: Sequence[str]) -> list[str]:
    """What each case is resampled with: its group, or the case alone. As in the pairs' figures."""
    return [
        f"case {case_id}" if group is None else group
        for group, case_id in zip(groups, case_ids, strict=True)
    ]


def _counted(units: Sequence[str], kinds: Ints, number: int) -> tuple[tuple[str, ...], Ints]:
    """The distinct units, and how many cases of each kind each has: (units, number)."""
    names = tuple(dict.fromkeys(units))
    row = {name: position for position, name in enumerate(names)}
    rows = np.array([row[unit] for unit in units], dtype=np.int64)
    counts = np.bincount(rows * number + kinds, minlength=len(names) * number)
    return names, counts.reshape(len(names), number)


def confusion_tables(cells: Floats) -> tuple[Floats, Floats]:
    """Confusion tables (..., 3, 3) of the 4-bit and of the 8-bit model from cells (..., 27)."""
    joint = cells.reshape(*cells.shape[:-1], CLASSES, CLASSES, CLASSES)
    return joint.sum(-1), joint.sum(-2)
