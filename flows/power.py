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
from flows.report.figures import counted, heading
from flows.report.rows import COMMON_RULES, TRAINED
from flows.selection import Selection
from tasks.corpus.case import Case, from_json
from tasks.corpus.splits import limited
from tasks.corpus.vignettes.generator import planned_labels
from tasks.judging.point_metrics import MIN_UNITS, Floats
from tasks.runtime.errors import TriageError
from tasks.spec import Grid, Primary
from warehouse.comparison.cells import OF_EMERGENCIES
from warehouse.comparison.crossed import (
    LEVEL,
    MOST_SEEDS,
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
# Correlation of two cases of a group in what groups and cells add to a difference. In the published
# study it is 0.007 to 0.026 (components of all its cases, and of a half, a quarter and a tenth).
CLUSTERING = 0.01
MEASURED = """
SELECT
    base_model, recipe, cases, groups,
    [training_component, group_component, cell_component] AS components, qualifies
FROM quantization_summary
WHERE evaluation_set = 'test' AND rule = $rule AND metric = $metric
    AND training_component IS NOT NULL AND NOT coalesce(random_weights, false)
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


def published(figure: str) -> list[Measured]:
    """Rows of the published study."""
    cases = 1_134 if figure in OF_EMERGENCIES else 4_200
    return [
        Measured("smollm2-135m", recipe, cases, 63, components[figure])
        for recipe, components in PUBLISHED.items()
    ]


def expected(base_model: str, recipe: str, figure: str, size: float) -> tuple[Components, str]:
    """Components on units of `size` cases, and where they are from: this base model and recipe, else
    the median of all whose models learn, in the warehouse or else in the published study.
    """
    rows: list[Measured] = []
    if warehouse_path().is_file():
        with contextlib.suppress(TriageError):  # in use, or without tables
            parameters = {"metric": figure, "rule": COMMON_RULES[figure]}
            measured: Sequence[Any] = query_rows(MEASURED, parameters).rows
            rows = [Measured(*row) for row in measured]

    def usable(rows: list[Measured]) -> list[Measured]:
        own = [row for row in rows if (row.base_model, row.recipe) == (base_model, recipe)]
        return own or [row for row in rows if row.qualifies]

    place = "your warehouse" if usable(rows) else "the published study"
    rows = usable(rows) or usable(published(figure))
    of_training, of_group, of_cell = np.median([row.at(size) for row in rows], axis=0).tolist()
    names = " and ".join(sorted({row.recipe for row in rows}))
    return (of_training, of_group, of_cell), f"{names} in {place}"


def first_step(claim: Any) -> tuple[int, str]:
    """Among how many figures Holm's first step divides the level, and words for it. A chance is of this
    step, the hardest: of a figure that another one precedes it is larger.
    """
    if claim.adjust == "none":
        return 1, ""
    figures = len(claim.figures)
    level = (1 - LEVEL) / 2 / figures
    return figures, f" at Holm's first step (one-sided p below {level:.4f})"


def chance(
    components: Components,
    seeds: int,
    units: int,
    margin: float,
    difference: float = 0.0,
    figures: int = 1,
) -> float:
    """The share of STUDIES seeded studies that conclude "not worse" at a true difference, by the level
    divided among `figures`. With one seed it is that of the trained models themselves.
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
    half = student_quantile(1 - (1 - LEVEL) / 2 / figures, freedom) * error
    return float((seen - half > -margin).mean())


def enough(
    components: Components, seeds: int, units: int, margin: float, figures: int = 1
) -> tuple[int | None, int | None]:
    """Seeds with these units, and units with these seeds, at which POWER of the studies conclude
    "not worse" without a true difference; None where no number does. One seed is never enough, since
    it does not tell how trainings differ.
    """

    def least(numbers: range, power: Callable[[int], float]) -> int | None:
        place = bisect_left(numbers, POWER, key=power)
        return numbers[place] if place < len(numbers) else None

    several = range(max(seeds, 2), seeds + MOST_SEEDS)
    more_seeds = least(
        several, lambda more: chance(components, more, units, margin, figures=figures)
    )
    if seeds == 1:
        return more_seeds, None
    many = range(units, MOST_UNITS * units)
    return more_seeds, least(
        many, lambda more: chance(components, seeds, more, margin, figures=figures)
    )


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
        labels = planned_labels("test", data.seed, data.shares, data.sizes, data.test_problems)
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
    # By base model and recipe, then by precision.
    seeds: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for spec in selection.cells:
        if spec.recipe.kind in TRAINED:
            seeds[spec.model.name, spec.recipe.name][spec.precision.name].add(spec.seed)

    claim = selection.grid.primary_claim
    if claim is not None and (claim.base_model, claim.recipe) in seeds:
        return claim

    at_both = {name: tuple(sorted(of["4bit"] & of["8bit"])) for name, of in seeds.items()}
    name = max(at_both, key=lambda name: len(at_both[name]), default=None)
    if name is None or not at_both[name]:
        return None
    return Primary(base_model=name[0], recipe=name[1], seeds=at_both[name])


def power_lines(claim: Primary, every: PlannedCases, emergencies: PlannedCases) -> Iterator[str]:
    """What the seeds of a claim and the planned cases can show, the chance to conclude "not worse"
    where both sides are equal, and what makes this POWER.
    """
    seeds = len(claim.seeds or ())
    steps, at_step = first_step(claim)
    can_show = []
    chances = []
    takes = []
    sources = []
    for figure in claim.figures:
        name = heading(figure)
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
        share = chance(components, seeds, units, claim.margin, figures=steps)
        chances.append(f"{100 * share:.0f} % in {name}")
        more_seeds, more_units = enough(components, seeds, units, claim.margin, steps)
        sizes = [counted(more_seeds, "seed")] if more_seeds else []
        if more_units:
            # In two digits, since an estimate is no better.
            step = 10 ** max(len(str(more_units)) - 2, 0)
            sizes.append(f"about {planned.named(math.ceil(more_units / step) * step)}")
        takes.append(f"{' or '.join(sizes) or 'more than can be planned'} in {name}")

    subject = f"{claim.base_model} {claim.recipe}, {counted(seeds, 'seed')}"
    shown = f"{subject}, {every.named(every.units)}: can show {' and '.join(can_show)}"
    if not sources:
        yield f"{shown}."
        return

    training = ""
    # One seed is enough where the same adapters are on both sides.
    is_moved = seeds == 1 and claim.sides != Primary.model_fields["sides"].default
    if is_moved:
        shown += ", of these adapters alone"
    elif seeds == 1:
        shown += ", of these trained models alone: chance in training is not known"
        training = ", chance in training included,"
    origin = " and ".join(dict.fromkeys(sources))
    yield f"{shown} (half of a 95 % interval; variances of 4bit against 8bit, {origin})."
    yield (
        f"if {' and '.join(claim.sides)} are equal, the chance to conclude "
        f'"not worse by {100 * claim.margin:g} points"{at_step} is {" and ".join(chances)}.'
    )
    if not is_moved:
        yield f"a chance of {100 * POWER:g} %{training} takes {', and '.join(takes)}."


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
