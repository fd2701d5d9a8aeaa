"""The pooled comparison of 4 with 8 bits: mean differences of many pairs on the same cases.

Differences are averaged over pairs (recipes and seeds) and resampled jointly, so that the bands of
all figures of a pool hold together (`joint.py`). Only pairs of which at least one model beats the
best constant answer are averaged: two models that know nothing are alike whatever the precision.

The bands speak of the trained models and other cases. Another seed gives other models, so a pool
with several seeds of a recipe under one setting concludes only what Student's interval over its
trainings says, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.judging.point_metrics import ED_AUROC, MIN_UNITS, Floats, UnitCounts
from warehouse.comparison.cells import OF_EMERGENCIES, POOLED, RULES, Cells, JudgedCases
from warehouse.comparison.joint import Band, Hypothesis, Statistic, joint_bands
from warehouse.comparison.resampling import (
    CANNOT_CONCLUDE,
    LOWER_IS_BETTER,
    MARGIN,
    RESAMPLES,
    SEED,
    SeedSpread,
    verdict_on,
)

ALL = "all"  # the row over all base models
BETWEEN_SEEDS = "it varies too much between seeds"


@dataclass(frozen=True)
class PooledPair:
    """A row of `pooled_pair`, and whether one of its models beats the best constant answer.

    `seed_group`: as in the view of this name.
    """

    base_model: str
    recipe: str
    seed_group: str
    seed: int
    informed: bool


@dataclass(frozen=True)
class Pooled:
    """A row of `pooled_metric` but for its pool; None where it is not available.

    `low` and `high`: the band over cases; `seed_low` and `seed_high`: Student's 95 % interval over
    trainings.
    """

    base_model: str
    rule: str
    metric: str
    pairs: int
    pairs_left_out: int
    recipes: int
    seeds: int
    cases: int
    groups: int | None
    value_4bit: float | None = None
    value_8bit: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    could_show: float | None = None
    seed_sd: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None
    margin: float = MARGIN
    p_value: float | None = None
    verdict: str = CANNOT_CONCLUDE
    method: str = "none"
    note: str | None = None


@dataclass(frozen=True)
class _Figure:
    """A row without its band, and what the band is computed from; None where there can be none."""

    row: Pooled
    statistic: Statistic | None = None

    @property
    def hypothesis(self) -> Hypothesis:
        return Hypothesis(-1 if self.row.metric in LOWER_IS_BETTER else 1, MARGIN)


def pooled(
    pairs: Sequence[PooledPair], cases: JudgedCases, resamples: int = RESAMPLES
) -> list[Pooled]:
    """Every figure of a pool. In `cases`, pair i has the models 2 i (4 bits) and 2 i + 1 (8 bits)."""
    figures = [
        figure
        for rule in RULES
        for figure in _figures(rule, pairs, cases.cells(rule), cases.grouped)
    ]
    tested = [figure for figure in figures if figure.statistic is not None]
    bands = joint_bands(
        [figure.statistic for figure in tested if figure.statistic is not None],
        [figure.hypothesis for figure in tested],
        resamples,
    )
    by_row = {figure.row: band for figure, band in zip(tested, bands, strict=True)}
    together = sum(band.low is not None for band in bands)

    return [
        _with_band(figure, by_row[figure.row], together, cases.units, resamples)
        if figure.row in by_row
        else figure.row
        for figure in figures
    ]


def _figures(rule: str, pairs: Sequence[PooledPair], cells: Cells, grouped: bool) -> list[_Figure]:
    has_decisions = cells.counts.sum(axis=(0, 2, 3)) > 0
    models = sorted({pair.base_model for pair in pairs})
    metrics = POOLED if cells.placed is None else (*POOLED, ED_AUROC)
    return [
        _figure(rule, metric, scope, pairs, has_decisions, cells, grouped)
        for scope in (ALL, *models)
        for metric in metrics
    ]


def _figure(
    rule: str,
    metric: str,
    scope: str,
    pairs: Sequence[PooledPair],
    has_decisions: np.ndarray,
    cells: Cells,
    grouped: bool,
) -> _Figure:
    """One figure over the pairs of `scope`: a base model, or ALL."""
    places = [i for i, pair in enumerate(pairs) if scope in (ALL, pair.base_model)]
    usable = [i for i in places if has_decisions[2 * i] and has_decisions[2 * i + 1]]
    averaged = [i for i in usable if pairs[i].informed]
    row = _row(rule, metric, scope, [pairs[i] for i in averaged], len(places), cells, grouped)

    if not averaged:
        return _Figure(replace(row, verdict=f"{CANNOT_CONCLUDE}: {_why_no_pair(usable)}"))

    sides = [model for i in averaged for model in (2 * i, 2 * i + 1)]
    numerators, denominators = cells.part(sides).ratios(metric)
    values = _values(numerators, denominators)
    if np.isnan(values).any():
        kind = "no ED case" if not cells.counts[:, :, 0].any() else "no case but ED"
        return _Figure(replace(row, note=f"not available: {kind} in the set"))

    row = _with_values(row, values, [pairs[i] for i in averaged])
    units = _units_behind(metric, cells)
    if units < MIN_UNITS:
        kind = "groups" if grouped else "cases"
        return _Figure(
            replace(row, note=f"no band: {units} {kind} are too few (it needs {MIN_UNITS})")
        )

    return _Figure(row, _mean_difference(numerators, denominators))


def _why_no_pair(usable: list[int]) -> str:
    if not usable:
        return "the rule could not be applied to any pair"
    return "no pair has a model that beats the best constant answer in accuracy"


def _mean_difference(numerators: Floats, denominators: Floats) -> Statistic:
    """The mean over pairs of 4 bits minus 8 bits, of ratios (units, models, ratios): the models of
    a pair stand one after the other, that at 4 bits first.
    """
    units, models, ratios = numerators.shape
    weights = np.tile([1.0, -1.0], models // 2) / (models // 2)
    return Statistic.mean_of(
        numerators.reshape(units, -1), denominators.reshape(units, -1), np.repeat(weights, ratios)
    )


def _row(
    rule: str,
    metric: str,
    scope: str,
    averaged: Sequence[PooledPair],
    pairs: int,
    cells: Cells,
    grouped: bool,
) -> Pooled:
    # The most over models: one that has no decisions by this rule counts no case.
    by_class = cells.counts.sum(axis=(0, 3)).max(axis=0)
    cases = by_class[0] if metric in OF_EMERGENCIES else by_class.sum()
    return Pooled(
        base_model=scope,
        rule=rule,
        metric=metric,
        pairs=len(averaged),
        pairs_left_out=pairs - len(averaged),
        recipes=len({pair.recipe for pair in averaged}),
        seeds=len({pair.seed for pair in averaged}),
        cases=int(cases),
        groups=_resampled_units(metric, cells) if grouped else None,
    )


def _values(numerators: Floats, denominators: Floats) -> Floats:
    """The metric of each model, (models,); NaN where it is not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((numerators.sum(axis=0) / denominators.sum(axis=0)).sum(axis=-1))


def _with_values(row: Pooled, values: Floats, averaged: Sequence[PooledPair]) -> Pooled:
    """Add the means of both sides, their difference, and its interval over trainings."""
    at_4bit = values[0::2]
    at_8bit = values[1::2]
    difference = float((at_4bit - at_8bit).mean())
    row = replace(
        row,
        value_4bit=float(at_4bit.mean()),
        value_8bit=float(at_8bit.mean()),
        difference=difference,
    )

    spread = _seed_spread(at_4bit - at_8bit, averaged)
    if spread is None:
        return row

    half = spread.half_width(row.pairs)
    return replace(row, seed_sd=spread.sd, seed_low=difference - half, seed_high=difference + half)


def _seed_spread(differences: Floats, averaged: Sequence[PooledPair]) -> SeedSpread | None:
    """Over all recipes of `averaged`; None where none has two seeds."""
    by_group: dict[str, list[float]] = {}
    for pair, difference in zip(averaged, differences, strict=True):
        by_group.setdefault(pair.seed_group, []).append(float(difference))

    return SeedSpread.of(by_group.values())


def _resampled_units(metric: str, cells: Cells) -> int:
    """Groups (or cases) that move the metric when they are resampled: for the AUROC all of them."""
    return len(cells.counts) if metric == ED_AUROC else _units_behind(metric, cells)


def _units_behind(metric: str, cells: Cells) -> int:
    """Groups (or cases) that a metric is computed from."""
    has_cases = cells.counts.sum(axis=3).max(axis=1) > 0
    without_ed = int(has_cases[:, 1:].any(axis=1).sum())
    return UnitCounts(has_cases.sum(axis=0), len(cells.counts), without_ed).behind(metric)


def _with_band(figure: _Figure, band: Band, together: int, units: int, resamples: int) -> Pooled:
    """Add the band, what it could show, and the verdict."""
    row = replace(figure.row, standard_error=band.error)
    if band.low is None or band.high is None:
        return replace(row, note="no band: no case, or too few, make a difference")

    kind = "cases (assumes independent cases)" if row.groups is None else "groups"
    return replace(
        row,
        low=band.low,
        high=band.high,
        # Around a difference of 0 the band reaches half its width to each side.
        could_show=(band.high - band.low) / 2,
        p_value=band.p_value,
        verdict=verdict_of_band(row.metric, band.low, band.high, row.seed_low, row.seed_high),
        method=f"joint bootstrap of {units} {kind}, {resamples} resamples, seed {SEED}; "
        f"studentised 95 % bands over {together} figures at once",
    )


def verdict_of_band(
    metric: str, low: float, high: float, seed_low: float | None, seed_high: float | None
) -> str:
    """What the band over cases says, if the interval over trainings, where there is one, says the
    same.
    """
    verdict = verdict_on(metric, low, high)
    if seed_low is None or seed_high is None or verdict == CANNOT_CONCLUDE:
        return verdict

    over_trainings = verdict_on(metric, seed_low, seed_high)
    return verdict if over_trainings == verdict else f"{CANNOT_CONCLUDE}: {BETWEEN_SEEDS}"
