"""A sealed claim: how many of its seeds are judged, what they say about a number of seeds, and how it is
opened.

Until then no view shows a figure of its models. Between seeds the standard deviation alone is shown,
once all are judged: it says nothing about which side is better.
"""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import stdev
from typing import Any
from uuid import uuid4

from flows.report.answer import missing_seeds
from flows.report.figures import counted, heading
from flows.report.rows import COMMON_RULES, TRAINED, Row, rows_of
from tasks.runtime.errors import BadInput
from warehouse.connect import listed, quoted, reading

OPENED = "primary claim"  # what is looked at, as a row of `look` says
_JUDGED = """(
    SELECT seed, precision, last(evaluation_id ORDER BY created_at, evaluation_id) AS evaluation_id
    FROM evaluation JOIN experiment USING (training_id)
    WHERE evaluation_set = 'test'
        AND base_model = {base_model} AND recipe = {recipe} AND recipe_kind IN {trained}
    GROUP BY seed, precision
)"""


def progress(claim: Row) -> list[str]:
    """Lines on a sealed claim, without a figure of a side."""
    pairs, missing = _pairs(claim)
    count = len(pairs) + len(missing)
    lines = [
        f"The study {claim.study} is sealed: {len(pairs)} of {counted(count, 'seed')} of "
        f"{claim.base_model} {claim.recipe} are judged at {claim.side} and {claim.reference}, and no "
        "figure of its models is shown before all are and it is opened."
    ]
    if missing:
        seeds = ", ".join(map(str, missing))
        return [*lines, f"Missing: {seeds}. The same sweep goes on with them."]

    further = [seed for seed in claim.further_seeds if seed not in pairs]
    lines += _between_seeds(claim, pairs, len(further))
    if further:
        names = ", ".join(map(str, further))
        lines.append(f"Seeds that may join, all of them, before it is opened: {names}.")
    command = f"triage compare {claim.study} --open"
    return [*lines, f"Next: {command}, which records the time and shows every figure."]


def open_claim(claim: Row) -> None:
    """Record that a sealed claim is opened; from then on views show its models. Raises BadInput where a
    seed is missing.
    """
    from tasks.landing import land_rows, whole_row  # pyarrow comes with it

    pairs, missing = _pairs(claim)
    if missing:
        raise BadInput(" ".join(progress(claim)))

    now = datetime.now(UTC).replace(tzinfo=None)
    look_id = f"look-{claim.study}-{now:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
    look = {
        "look_id": look_id,
        "looked_at": now,
        "study": claim.study,
        "objective": f"{OPENED} {claim.digest}",
        "candidates": 2 * len(pairs),
    }
    land_rows(look_id, "look", {"look": [whole_row("look", look)]})


def _pairs(claim: Row) -> tuple[dict[int, tuple[str, str]], list[int]]:
    """By seed, the evaluations of both sides, and the claimed seeds that lack one: of the further ones
    all, once one of them is judged.
    """
    names = {name: quoted(getattr(claim, name)) for name in ("base_model", "recipe")}
    sides: dict[int, dict[str, str]] = {}
    for row in rows_of(_JUDGED.format(**names, trained=listed(TRAINED))):
        sides.setdefault(row.seed, {})[row.precision] = row.evaluation_id

    claimed = [*claim.seeds, *claim.further_seeds]
    pairs = {
        seed: (sides[seed][claim.side], sides[seed][claim.reference])
        for seed in claimed
        if {claim.side, claim.reference} <= sides.get(seed, {}).keys()
    }
    return pairs, missing_seeds(claim, [pairs])


def _between_seeds(claim: Row, pairs: dict[int, tuple[str, str]], further: int) -> list[str]:
    """The standard deviation of each figure's difference between seeds, and the chance to conclude with
    these seeds and with the further ones.
    """
    # NumPy and SciPy come with these.
    from flows.power import chance
    from warehouse.comparison.cells import judged_cases
    from warehouse.comparison.differences import differences

    if len(pairs) == 1:
        return []
    with reading() as con:
        cases = judged_cases(con, [id for pair in pairs.values() for id in pair])

    numbers = [len(pairs), len(pairs) + further] if further else [len(pairs)]
    every = list(range(len(pairs)))
    lines: list[tuple[dict[str, Any], list[int]]] = [
        ({}, every),
        *(({}, [place]) for place in every),
    ]
    deviations = []
    chances: dict[int, list[str]] = {number: [] for number in numbers}
    for figure in claim.figures:
        together, *each = differences(cases, lines, [COMMON_RULES[figure]], [figure])
        if together["training_component"] is None:
            continue
        deviation = stdev(row["difference"] for row in each)
        deviations.append(f"{heading(figure)} {100 * deviation:.2f}")
        components = tuple(together[f"{name}_component"] for name in ("training", "group", "cell"))
        units = together["groups"] or together["cases"]
        for number in numbers:
            share = chance(components, number, units, claim.margin)
            chances[number].append(f"{100 * share:.0f} % in {heading(figure)}")

    if not deviations:
        return []
    said = "; ".join(f"{number} seeds {', '.join(of)}" for number, of in chances.items())
    return [
        f"Standard deviation of {claim.side} minus {claim.reference} between seeds, in points: "
        f"{', '.join(deviations)}.",
        f'Chance of each figure to be "not worse by {100 * claim.margin:g} points" if both sides are '
        f"equal: {said}.",
    ]
