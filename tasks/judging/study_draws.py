"""Draws studies of a pair before it is measured: what would be seen if the decisions differ and
cluster as in a pair that was measured, or as is assumed.

A group of a study is a group of that pair: its cases as they were decided, and where the study has
more cases of a group, further ones as those predict (Polya's urn, so that cases of one group agree
as much as was measured); where it has fewer, a sample of them. `true_difference.py` then sets the
difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.judging.paired_cells import CLASSES, GAIN, PairedCounts, PlannedSet
from tasks.judging.point_metrics import Floats, Ints

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
        """The cells (27,) that a study of `planned` has on average."""
        if self.stored is not None and self.is_of(planned):
            return self.stored.counts.sum(axis=0).astype(np.float64)
        return np.asarray((planned.cases.sum(axis=0)[:, None] * self.shares).ravel())

    def is_of(self, planned: PlannedSet) -> bool:
        """Whether the pair was measured on as many cases of each label as are planned."""
        if self.stored is None:
            return False
        return bool((self.stored.by_class.sum((0, 2)) == planned.cases.sum(axis=0)).all())


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
    blocks = []
    for start in range(0, studies, step):
        size = min(step, studies - start)
        blocks.append(_draw_groups(behaviour, planned, size, rng))

    return np.concatenate(blocks)


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
        source = stored.by_class[_source_rows(stored, planned, rows, rng)]

    cells = _resized(source, sizes, behaviour, rng)
    return cells.reshape(*rows.shape, CLASSES * PAIR_CELLS)


def _source_rows(
    stored: PairedCounts, planned: PlannedSet, rows: Ints, rng: np.random.Generator
) -> Ints:
    """Which group of the measured pair each drawn group is: the one of its name, else any."""
    row_of = {name: row for row, name in enumerate(stored.names)}
    if all(name in row_of for name in planned.names):
        return np.array([row_of[name] for name in planned.names])[rows]
    return rng.integers(0, len(stored.names), size=rows.shape)


def _resized(source: Ints, sizes: Ints, behaviour: Behaviour, rng: np.random.Generator) -> Ints:
    """Groups with `sizes` (..., 3) cases of each label from groups `source` (..., 3, 9)."""
    cases = source.sum(-1)
    cells = source.copy()
    fewer = np.nonzero(cases > sizes)
    if len(fewer[0]):
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
