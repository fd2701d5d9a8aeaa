"""What the seeds and the test set of a grid can conclude about a difference, before any training.

An interval comes from three mean squares (`warehouse/comparison/crossed.py`): of trainings, of
groups and of the rest. With normal components these are independent scaled chi-squared variables,
and the mean difference is normal, so a study is four draws. The components are those that trainings
in the warehouse showed, else those of the published study.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from flows.cli.terminal import print_line
from flows.report.figures import counted
from flows.report.rows import COMMON_RULES, TRAINED
from flows.selection import Selection
from tasks.corpus.case import Case, from_json
from tasks.corpus.splits import limited
from tasks.corpus.vignettes.generator import planned_labels
from tasks.judging.point_metrics import MIN_UNITS, Floats
from tasks.runtime.errors import Locked
from tasks.spec import Grid, Primary
from warehouse.comparison.cells import OF_EMERGENCIES
from warehouse.comparison.crossed import (
    CANNOT_CONCLUDE,
    LEVEL,
    MOST_SEEDS,
    NOT_WORSE,
    WORSE,
    error_and_freedom,
    expected_half_width,
    student_quantile,
)
from warehouse.connect import warehouse_path
from warehouse.query import query_rows

POWER = 0.8
STUDIES = 4_000
SEED = 42
MOST_UNITS = 50  # times the planned ones
MOST_NAMED = 3  # recipes
# Correlation of two cases of a group in what groups and cells add to a difference. In the published
# study it is 0.007 to 0.026 (components of all its cases, and of a half, a quarter and a tenth).
CLUSTERING = 0.01
FIGURES = {
    "accuracy": "accuracy",
    "ed_recall": "ED recall",
    "ed_f2": "ED F2",
    "macro_f1": "macro-F1",
    "over_triage": "over-triage",
    "ed_auroc": "ED AUROC",
}
MEASURED = """
SELECT
    base_model, recipe, cases, groups,
    [training_component, group_component, cell_component] AS components, qualifies
FROM quantization_summary
WHERE evaluation_set = 'test' AND rule = $rule AND metric = $metric
    AND training_component IS NOT NULL
ORDER BY ALL
"""

Components = tuple[float, float, float]  # variances of one cell: trainings, groups, both together


@dataclass(frozen=True)
class Measured:
    """Components of a figure's difference over several trainings of a recipe.

    `cases`: those that the figure is computed from. Without groups each case is a unit.
    """

    base_model: str
    recipe: str
    cases: int
    groups: int | None
    components: Components
    qualifies: bool | None = True

    def at(self, size: float) -> Components:
        """The components on units of `size` cases. What groups and cells add is a mean over the n
        cases of a group, whose variance is in proportion to (1 + (n - 1) CLUSTERING) / n (Kish,
        Survey Sampling (1965), section 5.4).
        """

        def variance(cases: float) -> float:
            return (1 + (cases - 1) * CLUSTERING) / cases

        of_training, of_group, of_cell = self.components
        factor = variance(size) / variance(self.cases / (self.groups or self.cases))
        return of_training, factor * of_group, factor * of_cell


# SmolLM2-135M with three seeds, on 63 groups of 4,200 test cases, 1,134 of them emergencies.
PUBLISHED = {
    "tuned": {
        "accuracy": (0.000110, 0.000191, 0.003560),
        "ed_recall": (0.000252, 0.000232, 0.002769),
        "ed_f2": (0.000104, 0.000189, 0.002026),
        "macro_f1": (0.000110, 0.000211, 0.003641),
        "over_triage": (0.000173, 0.000351, 0.003922),
        "ed_auroc": (0.000088, 0.000044, 0.001029),
    },
    "tuned_safe": {
        "accuracy": (0.000192, 0.000278, 0.003513),
        "ed_recall": (0.000020, 0.000351, 0.002381),
        "ed_f2": (0.000000, 0.000215, 0.001555),
        "macro_f1": (0.000107, 0.000309, 0.004194),
        "over_triage": (0.000400, 0.001009, 0.003247),
        "ed_auroc": (0.000000, 0.000059, 0.000680),
    },
}


def measured(figure: str) -> list[Measured]:
    """Rows of the warehouse; none while it cannot be read."""
    rows: Sequence[Any] = []
    if warehouse_path().is_file():
        with contextlib.suppress(Locked):
            rows = query_rows(MEASURED, {"metric": figure, "rule": COMMON_RULES[figure]}).rows
    return [Measured(*row) for row in rows]


def published(figure: str) -> list[Measured]:
    cases = 1_134 if figure in OF_EMERGENCIES else 4_200
    return [
        Measured("smollm2-135m", recipe, cases, 63, components[figure])
        for recipe, components in PUBLISHED.items()
    ]


def expected(base_model: str, recipe: str, figure: str, size: float) -> tuple[Components, str]:
    """Components on units of `size` cases, and where they are from: this base model and recipe, else
    the median of all whose models learn, in the warehouse or else in the published study.
    """

    def usable(rows: list[Measured]) -> list[Measured]:
        own = [row for row in rows if (row.base_model, row.recipe) == (base_model, recipe)]
        return own or [row for row in rows if row.qualifies]

    place = "your warehouse"
    rows = usable(measured(figure))
    if not rows:
        place = "the published study"
        rows = usable(published(figure))

    of_training, of_group, of_cell = np.median([row.at(size) for row in rows], axis=0).tolist()
    recipes = sorted({row.recipe for row in rows})
    names = " and ".join(recipes) if len(recipes) <= MOST_NAMED else f"{len(recipes)} recipes"
    return (of_training, of_group, of_cell), f"{names} in {place}"


def shares(
    components: Components, seeds: int, units: int, margin: float, difference: float = 0.0
) -> dict[str, float]:
    """How often STUDIES seeded studies conclude NOT_WORSE (also where they say "within"), WORSE, or
    CANNOT_CONCLUDE, at a true difference. With one seed it is that of the trained models themselves.
    """
    rng = np.random.default_rng(SEED)

    def drawn(expected_square: float, freedom: int) -> Floats:
        return np.asarray(expected_square * rng.chisquare(freedom, STUDIES) / freedom)

    of_training, of_unit, of_cell = components
    if seeds == 1:
        variance = (of_unit + of_cell) / units
        error, freedom = np.sqrt(drawn(variance, units - 1)), units - 1
    else:
        variance = of_training / seeds + of_unit / units + of_cell / (seeds * units)
        error, freedom = error_and_freedom(
            seeds,
            units,
            drawn(units * of_training + of_cell, seeds - 1),
            drawn(seeds * of_unit + of_cell, units - 1),
            drawn(of_cell, (seeds - 1) * (units - 1)),
        )

    seen = rng.normal(difference, math.sqrt(variance), STUDIES)
    half = student_quantile((1 + LEVEL) / 2, freedom) * error
    not_worse = float((seen - half > -margin).mean())
    worse = float((seen + half < -margin).mean())
    return {NOT_WORSE: not_worse, WORSE: worse, CANNOT_CONCLUDE: 1 - not_worse - worse}


def enough(components: Components, seeds: int, units: int, margin: float) -> list[tuple[int, int]]:
    """Seeds and units with which POWER of the studies conclude NOT_WORSE without a true difference:
    with more seeds, and with more units; where neither suffices, with more of both in step. One
    seed is never enough, since it does not tell how trainings differ.
    """

    def least(steps: range, sizes: Callable[[int], tuple[int, int]]) -> list[tuple[int, int]]:
        def power(step: int) -> float:
            return shares(components, *sizes(step), margin)[NOT_WORSE]

        place = bisect_left(steps, POWER, key=power)
        return [sizes(steps[place])] if place < len(steps) else []

    several = range(max(seeds, 2), seeds + MOST_SEEDS)
    found = least(several, lambda more: (more, units))
    if seeds > 1:
        found += least(range(units, MOST_UNITS * units), lambda more: (seeds, more))
    return found or least(several, lambda more: (more, math.ceil(units * more / seeds)))


@dataclass(frozen=True)
class PlannedCases:
    """Cases of a planned test set, and the groups that have them; None where cases have none."""

    cases: int
    groups: int | None

    @property
    def units(self) -> int:
        return self.cases if self.groups is None else self.groups

    def named(self, units: int) -> str:
        return counted(units, "case" if self.groups is None else "group")


def counted_cases(grid: Grid, folder: Path | None) -> tuple[PlannedCases, PlannedCases] | None:
    """All test cases of a grid, and its emergencies; None where the source does not answer.

    `folder`: see `flows.plan.planned_cases`. Embedded cases are counted without their texts: exact by
    label, and nearly so by group.
    """
    data = grid.data
    if folder is not None:
        with (folder / "test.jsonl").open(encoding="utf-8") as lines:
            test = [from_json(line) for line in lines]
    elif data.source == "embedded":
        labels = planned_labels("test", data.seed, data.shares, data.sizes)
        test = [
            Case(f"test-{number}", f"test-{number}", label, problem)
            for number, (problem, label) in enumerate(labels)
        ]
        test = limited(test, data.limits.get("test", len(test)), data.seed)
    else:
        return None

    has_groups = any(case.group is not None for case in test)

    def counts(cases: Sequence[Case]) -> PlannedCases:
        units = {case.group or case.case_id for case in cases}
        return PlannedCases(len(cases), len(units) if has_groups else None)

    return counts(test), counts([case for case in test if case.label == "ED"])


def claim_of(selection: Selection) -> Primary | None:
    """The primary claim of a grid; without one, 4 against 8 bits of the base model and recipe that
    are trained at both with the most seeds.
    """
    cells = [
        (spec.model.name, spec.recipe.name, spec.seed, spec.precision.name)
        for spec in selection.cells
        if spec.recipe.kind in TRAINED
    ]
    claim = selection.grid.primary_claim
    if claim is not None and any(cell[:2] == (claim.base_model, claim.recipe) for cell in cells):
        return claim

    seeds = defaultdict(list)
    at_8bit = {cell[:3] for cell in cells if cell[3] == "8bit"}
    for base_model, recipe, seed, precision in cells:
        if precision == "4bit" and (base_model, recipe, seed) in at_8bit:
            seeds[base_model, recipe].append(seed)

    if not seeds:
        return None
    base_model, recipe = max(seeds, key=lambda name: len(seeds[name]))
    return Primary(base_model=base_model, recipe=recipe, seeds=tuple(seeds[base_model, recipe]))


def power_lines(claim: Primary, every: PlannedCases, emergencies: PlannedCases) -> Iterator[str]:
    """What the seeds of a claim and the planned cases can show, the chance to conclude "not worse"
    where both sides are equal, and what makes this POWER.
    """
    seeds = len(claim.seeds or ())
    can_show = []
    chances = []
    takes = []
    sources = []
    for figure in claim.figures:
        name = FIGURES[figure]
        planned = emergencies if figure in OF_EMERGENCIES else every
        units = planned.units
        if units < MIN_UNITS:
            of_what = " with emergencies" if planned is emergencies else ""
            can_show.append(
                f"nothing in {name} ({planned.named(units)}{of_what}; it takes {MIN_UNITS})"
            )
            continue

        size = planned.cases / units
        components, source = expected(claim.base_model, claim.recipe, figure, size)
        sources.append(source)
        # As `crossed` has them of one training.
        of_units = None, components[1] + components[2], None
        half = expected_half_width(seeds, units, of_units if seeds == 1 else components)
        can_show.append(f"{100 * float(half):.1f} points in {name}")
        chance = shares(components, seeds, units, claim.margin)[NOT_WORSE]
        chances.append(f"{100 * chance:.0f} % in {name}")
        sizes = enough(components, seeds, units, claim.margin)
        texts = [_size(*size, seeds, planned) for size in sizes]
        takes.append(f"{' or '.join(texts) or 'more than can be planned'} in {name}")

    subject = f"{claim.base_model} {claim.recipe}, {counted(seeds, 'seed')}"
    shown = f"{subject}, {every.named(every.units)}: can show {' and '.join(can_show)}"
    if not sources:
        yield f"{shown}."
        return

    training = ""
    if seeds == 1:
        shown += ", of these trained models alone: chance in training is not known"
        training = ", chance in training included,"
    origin = " and ".join(dict.fromkeys(sources))
    if set(claim.sides) != {"4bit", "8bit"}:
        origin += ", of 4bit against 8bit"
    yield f"{shown} (half of a 95 % interval; variances of {origin})."
    yield (
        f"if {' and '.join(claim.sides)} are equal, the chance to conclude "
        f'"not worse by {100 * claim.margin:g} points" is {" and ".join(chances)}.'
    )
    yield f"a chance of {100 * POWER:g} %{training} takes {', and '.join(takes)}."


def _size(seeds: int, units: int, planned_seeds: int, planned: PlannedCases) -> str:
    """`6 seeds`, `about 320 groups`, or both; in two digits, since an estimate is no better."""
    step = 10 ** max(len(str(units)) - 2, 0)
    parts = [counted(seeds, "seed")] if seeds > planned_seeds else []
    if units > planned.units:
        parts.append(f"about {planned.named(math.ceil(units / step) * step)}")
    return " and ".join(parts) or "what is planned"


def print_power(console: Console, selection: Selection, folder: Path | None) -> None:
    """Print what a sweep can conclude. `folder`: see `counted_cases`."""
    claim = claim_of(selection)
    if claim is None:
        return

    planned = counted_cases(selection.grid, folder)
    if planned is None:
        print_line(console, "power    the test set is not known yet: its source does not answer.")
        return

    for line in power_lines(claim, *planned):
        print_line(console, f"power    {line}")
