"""Draws studies of a pair before it is measured: what would be seen if the decisions differ and
cluster as in a pair that was measured, or as is assumed.

How two models decide the same cases is counted by cell: (true label, decision at 4 bits, decision
at 8 bits), each a position in LABELS, numbered from 0 to 26. What is drawn for a plan is judged by
the functions that judge a finished pair (`warehouse/comparison/verdicts.py`).

A group of a study is a group of that pair: its cases as they were decided, and where the study has
more cases of a group, further ones as those predict (Polya's urn, so that cases of one group agree
as much as was measured); where it has fewer, a sample of them.

The true difference of the pair is then set at the same discordance. For a lower one, half of the
change takes cases that are right at 4 bits only and makes them wrong at both; the other half takes
cases that are right at both and makes them wrong at 4 bits. So as many cases as before are decided
rightly by exactly one of the two. For a higher difference the two models change places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


ASSUMED_DISCORDANCE = 0.10  # share of the cases that exactly one of the two models decides rightly
ASSUMED_ACCURACY = 0.80  # of either model
ASSUMED_CLUSTERING = 0.05  # correlation of right-or-wrong differences of two cases of one group
LARGEST_CLUSTERING = 0.99
PAIR_CELLS = CLASSES**2  # of one true label
GROUPS_AT_ONCE = 40_000  # of all studies that are drawn in one go
_GAIN = GAIN.reshape(CLASSES, PAIR_CELLS).astype(np.float64)


@dataclass(frozen=True)
class Behaviour:
    """How two models decide: what studies are drawn from.

    `stored`: a pair that was measured, None where there is none. `shares` (3, 9): of the decisions
    of each true label. `clustering` (3,): correlation of the differences of two cases of one group
    and label. `assumed`: labels (positions) whose clustering is assumed.
    """

    shares: Floats
    clustering: Floats
    stored: PairedCounts | None
    assumed: tuple[int, ...] = ()

    @classmethod
    def of(cls, stored: PairedCounts | None) -> Behaviour:
        """The behaviour of a measured pair, or the one that is assumed."""
        if stored is None:
            every = tuple(range(CLASSES))
            clustering = np.full(CLASSES, ASSUMED_CLUSTERING)
            return cls(assumed_shares(), clustering, None, every)

        by_class = stored.by_class.astype(np.float64)
        estimates = [
            _estimate(by_class[:, label], _GAIN[label], stored.grouped) for label in range(CLASSES)
        ]
        overall = _estimate(stored.counts.astype(np.float64), GAIN.astype(float), stored.grouped)
        usual = ASSUMED_CLUSTERING if overall is None else overall
        values = [usual if estimate is None else estimate for estimate in estimates]
        assumed = tuple(i for i, value in enumerate(estimates) if value is None and overall is None)
        clustering = np.clip(values, 0.0, LARGEST_CLUSTERING)

        return cls(_smoothed_shares(by_class.sum(axis=0)), clustering, stored, assumed)

    def cells(self, planned: PlannedSet) -> Floats:
        """The cells (27,) that a study of `planned` has on average: those of the pair where that was
        measured on as many cases of each label.
        """
        if self.stored is not None:
            measured_on = self.stored.by_class.sum((0, 2))
            if (measured_on == planned.cases.sum(axis=0)).all():
                return self.stored.counts.sum(axis=0).astype(np.float64)
        return np.asarray((planned.cases.sum(axis=0)[:, None] * self.shares).ravel())


def assumed_shares() -> Floats:
    """Shares (3, 9) of the decisions of each label where no pair was measured."""
    one_right = ASSUMED_DISCORDANCE / 2
    both_wrong = 1 - ASSUMED_ACCURACY - one_right
    shares = np.zeros((CLASSES, CLASSES, CLASSES))

    for label in range(CLASSES):
        wrong = [other for other in range(CLASSES) if other != label]
        shares[label, label, label] = ASSUMED_ACCURACY - one_right
        shares[label, label, wrong] = one_right / len(wrong)
        shares[label, wrong, label] = one_right / len(wrong)
        shares[label, wrong, wrong] = both_wrong / len(wrong)

    return shares.reshape(CLASSES, PAIR_CELLS)


def draw_studies(behaviour: Behaviour, planned: PlannedSet, studies: int, seed: int) -> Ints:
    """Cells of seeded studies: (studies, groups, 27); without groups (studies, 1, 27)."""
    rng = np.random.default_rng(seed)
    if not planned.grouped:
        shares = behaviour.cells(planned) / planned.total
        return rng.multinomial(planned.total, shares, size=(studies, 1))

    step = max(1, GROUPS_AT_ONCE // len(planned.names))
    sizes = (min(step, studies - start) for start in range(0, studies, step))
    return np.concatenate([_draw_groups(behaviour, planned, size, rng) for size in sizes])


def _estimate(counts: Floats, values: Floats, grouped: bool) -> float | None:
    return intraclass_correlation(*value_sums(counts, values)) if grouped else None


def _smoothed_shares(totals: Floats) -> Floats:
    """Shares (3, 9) of counted decisions, with half a case of either kind of difference added: what
    a small pair does not show may still occur.
    """
    difference = np.abs(_GAIN)
    counts = totals + 0.5 * difference / (difference.sum(-1, keepdims=True) / 2)
    shares = counts / counts.sum(-1, keepdims=True)
    return np.where(totals.sum(-1, keepdims=True) > 0, shares, assumed_shares())


def _draw_groups(
    behaviour: Behaviour, planned: PlannedSet, studies: int, rng: np.random.Generator
) -> Ints:
    rows = rng.integers(0, len(planned.names), size=(studies, len(planned.names)))
    sizes = planned.cases[rows]

    stored = behaviour.stored
    if stored is None or not stored.grouped:
        source = np.zeros((*sizes.shape, PAIR_CELLS), dtype=np.int64)
    else:
        # A drawn group is the one of its name in the measured pair, else any.
        row_of = {name: row for row, name in enumerate(stored.names)}
        if all(name in row_of for name in planned.names):
            source_rows = np.array([row_of[name] for name in planned.names])[rows]
        else:
            source_rows = rng.integers(0, len(stored.names), size=rows.shape)
        source = stored.by_class[source_rows]

    cells = _resized(source, sizes, behaviour, rng)
    return cells.reshape(*rows.shape, CLASSES * PAIR_CELLS)


def _resized(source: Ints, sizes: Ints, behaviour: Behaviour, rng: np.random.Generator) -> Ints:
    """Groups with `sizes` (..., 3) cases of each label from groups `source` (..., 3, 9)."""
    cases = source.sum(-1)
    cells = source.copy()
    fewer = np.nonzero(cases > sizes)
    cells[fewer] = _sampled(source[fewer], sizes[fewer], rng)

    further = np.maximum(sizes - cases, 0)
    places = np.nonzero(further)
    if len(places[0]):
        cells[places] += _predicted(source[places], further[places], places[-1], behaviour, rng)

    return cells


def _sampled(source: Ints, sizes: Ints, rng: np.random.Generator) -> Ints:
    """`sizes` (...) of the cases `source` (..., 9), drawn without replacement."""
    sample = np.zeros_like(source)
    remaining = source.sum(-1)
    remaining_sizes = sizes.copy()
    # Cell after cell: NumPy's multivariate draw takes the counts of one group at a time.
    for cell in range(source.shape[-1]):
        available = source[..., cell]
        sample[..., cell] = rng.hypergeometric(available, remaining - available, remaining_sizes)
        remaining = remaining - available
        remaining_sizes = remaining_sizes - sample[..., cell]
    return sample


def _predicted(
    source: Ints, further: Ints, labels: Ints, behaviour: Behaviour, rng: np.random.Generator
) -> Ints:
    """`further` cases (rows,) of groups of which `source` (rows, 9) is known."""
    shares = behaviour.shares[labels]
    clustering = behaviour.clustering[labels]
    clustered = clustering > 0
    # The sum of a Dirichlet's parameters at which two cases have the correlation 1 / (1 + sum).
    weight = 1 / clustering[clustered] - 1
    # Gamma draws over their sum are Dirichlet, here with other parameters in each row.
    draws = rng.gamma(weight[:, None] * shares[clustered] + source[clustered])
    shares[clustered] = draws / np.maximum(draws.sum(-1, keepdims=True), 1e-300)

    # Sums that rounding leaves above 1 are refused by NumPy.
    return rng.multinomial(further, shares / np.maximum(shares.sum(-1, keepdims=True), 1e-300))


LEAST_WITHIN = 10  # degrees of freedom within groups, below which nothing is estimated


def intraclass_correlation(cases: Floats, sums: Floats, squares: Floats) -> float | None:
    """The ANOVA estimate of the correlation of two cases of one group.

    Each argument is (groups,): a group's cases, the sum of their values, and of the values squared.
    None where there are too few groups with several cases, or where all values are equal. It may be
    negative.

    Donner, International Statistical Review 54 (1986) 67-82, equation 2.1.
    """
    has_cases = cases > 0
    n = cases[has_cases]
    total = sums[has_cases]
    squared = squares[has_cases]
    groups = len(n)
    all_cases = n.sum()
    if groups < 2 or all_cases - groups < LEAST_WITHIN:
        return None

    means = total / n
    between_variance = (n * (means - total.sum() / all_cases) ** 2).sum() / (groups - 1)
    within_variance = (squared - n * means**2).sum() / (all_cases - groups)
    # n0 of the analysis of variance: the size of a group, below the mean where sizes differ.
    usual = (all_cases - (n**2).sum() / all_cases) / (groups - 1)
    scale = between_variance + (usual - 1) * within_variance

    return float((between_variance - within_variance) / scale) if scale > 0 else None


def value_sums(counts: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Arguments of `intraclass_correlation` from counts (groups, kinds) and a value per kind."""
    return (
        np.asarray(counts.sum(-1), dtype=np.float64),
        np.asarray(counts @ values),
        np.asarray(counts @ values**2),
    )


Metric = Callable[[Floats], Floats]
"""A metric (...) of confusion tables (..., 3, 3)."""

LARGEST = 1.0  # of a change of a label's share of right decisions


def shifted(cells: Ints, kernel: Floats, rng: np.random.Generator) -> Ints:
    """Cells (..., 27) after each case has changed, or not, by itself: `kernel` (27, 27) has the
    probability of a change from a cell (row) to a cell (column).
    """
    changed = cells.copy()
    for cell in np.nonzero(np.diagonal(kernel) < 1)[0]:
        remaining = cells[..., cell].copy()
        staying = 1.0
        for target in np.nonzero(kernel[cell])[0]:
            if target == cell:
                continue
            # A multinomial draw, target by target, from the cases that have not moved yet.
            share = min(1.0, kernel[cell, target] / staying)
            moved_cases = rng.binomial(remaining, share)
            changed[..., cell] -= moved_cases
            changed[..., target] += moved_cases
            remaining -= moved_cases
            staying = max(staying - kernel[cell, target], 1e-12)

    return changed


def difference_of(cells: Floats, metric: Metric) -> float:
    """4 bits minus 8 bits of a metric of the cells (27,)."""
    return float(differences_of(cells[None], metric)[0])


def differences_of(cells: Floats, metric: Metric) -> Floats:
    """4 bits minus 8 bits of a metric of each row of cells (studies, 27)."""
    joint = cells.reshape(-1, CLASSES, CLASSES, CLASSES)
    return metric(joint.sum(-1)) - metric(joint.sum(-2))


def shift_to(
    difference: float, cells: Floats, metric: Metric, labels: tuple[int, ...]
) -> Floats | None:
    """The kernel after which cells (27,) have this true difference, or None if none is so large.

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

    return _kernel((low + high) / 2, cells, labels)


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
        # How wrong decisions of either model divide over the other labels.
        counts = decisions[wrong].sum(axis=1) + decisions[:, wrong].sum(axis=0)
        parts = counts / counts.sum() if counts.sum() else np.full(len(wrong), 1 / len(wrong))
        for other, part in zip(wrong, parts, strict=True):
            kernel[label, label, label, label, other, label] = share * part
