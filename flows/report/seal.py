"""A sealed claim: how many of its seeds are judged, what they say about a number of seeds, and how it is
opened.

Until then no view shows a figure of its models. Once its seeds are judged, the standard deviation between
them alone is shown, which says nothing about the better side, and decides: unless each figure has a
chance of POWER, all further seeds are trained. A seed that diverged is left out, and the next further one
takes its place.
"""

from __future__ import annotations

from statistics import stdev
from typing import Any

from flows.report.figures import counted, heading
from flows.report.further_seeds import Pairs, diverged_seeds, named_seeds, trained_alike
from flows.report.rows import COMMON_RULES, TRAINED, Row, Study, evaluation_ids, rows_of
from tasks.runtime.errors import BadInput
from warehouse.connect import listed, quoted, reading

OPENED = "primary claim"  # what is looked at, as a row of `look` says
# The evaluation of such a model that came last, whose test set counts.
_LAST = """
evaluation JOIN experiment USING (training_id)
WHERE evaluation_id IN {ids} AND evaluation_set = 'test'
    AND base_model = {base_model} AND recipe = {recipe} AND recipe_kind IN {trained}
ORDER BY created_at DESC, evaluation_id
LIMIT 1
"""


def progress(claim: Row) -> list[str]:
    """Lines on a sealed claim, without a figure of a side."""
    return _standing(claim)[-1]


def open_claim(claim: Row) -> None:
    """Record that a sealed claim is opened, and for which seeds; from then on views show its models.
    Raises BadInput where a seed is missing.
    """
    from tasks.landing import land_look  # pyarrow comes with it

    seeds, missing, lines = _standing(claim)
    if missing:
        raise BadInput(" ".join(lines))

    objective = f"{OPENED} {claim.digest}"
    land_look(claim.study, objective=objective, candidates=2 * len(seeds), seeds=seeds)


def _standing(claim: Row) -> tuple[list[int], list[int], list[str]]:
    """The seeds that a claim is about, those of them that are missing, and lines on both."""
    pairs = _pairs(claim)
    diverged = diverged_seeds(claim, pairs)
    usable = [seed for seed in [*claim.seeds, *claim.further_seeds] if seed not in diverged]
    seeds = usable[: len(claim.seeds)]
    between: list[str] = []
    if pairs.keys() >= {*seeds}:
        further = usable[len(seeds) :]
        between, is_enough = _between_seeds(claim, [pairs[seed] for seed in seeds], further)
        seeds = seeds if is_enough else usable

    missing = [seed for seed in seeds if seed not in pairs]
    lines = [
        f"The study {claim.study} is sealed: {len(seeds) - len(missing)} of "
        f"{counted(len(seeds), 'seed')} of {claim.base_model} {claim.recipe} are judged at "
        f"{claim.side} and {claim.reference}, and no figure of its models is shown before all are and "
        "it is opened."
    ]
    if diverged:
        lines.append(
            f"Left out at both, since a training diverged: {named_seeds(diverged)}. The next further "
            "seed takes its place."
        )
    lines += between
    if missing:
        names = ", ".join(map(str, missing))
        lines.append(f"Missing: {names}. The same sweep goes on with them.")
    else:
        command = f"triage compare {claim.study} --open"
        lines.append(f"Next: {command}, which records the time and shows every figure.")
    return seeds, missing, lines


def _pairs(claim: Row) -> Pairs:
    """The pairs that the claim's answer would be about, of all its seeds and further ones."""
    names = {name: quoted(getattr(claim, name)) for name in ("base_model", "recipe")}
    ids = listed(evaluation_ids(claim.study))
    last = rows_of(_LAST.format(ids=ids, trained=listed(TRAINED), **names))
    if not last:
        return {}
    study = Study(claim.study, last)
    sides = (claim.side, claim.reference)
    every = trained_alike(study, claim.base_model, claim.recipe, sides)
    claimed = [*claim.seeds, *claim.further_seeds]
    return max((one.of(claimed) for one in every), key=len, default={})


def _between_seeds(
    claim: Row, pairs: list[tuple[str, str]], further: list[int]
) -> tuple[list[str], bool]:
    """The standard deviation of each figure's difference between seeds, the chance to conclude with
    these seeds and with the further ones, and whether these are enough.
    """
    # NumPy and SciPy come with these.
    from flows.power import POWER, chance, first_step
    from warehouse.comparison.cells import judged_cases
    from warehouse.comparison.differences import differences

    with reading() as con:
        cases = judged_cases(con, [id for pair in pairs for id in pair])

    numbers = [len(pairs), len(pairs) + len(further)] if further else [len(pairs)]
    every = list(range(len(pairs)))
    lines: list[tuple[dict[str, Any], list[int]]] = [
        ({}, every),
        *(({}, [place]) for place in every),
    ]
    steps, step = first_step(claim)
    deviations = []
    chances: dict[int, list[str]] = {number: [] for number in numbers}
    is_enough = True
    for figure in claim.figures:
        together, *each = differences(cases, lines, [COMMON_RULES[figure]], [figure])
        if together["training_component"] is None:
            continue
        deviation = stdev(row["difference"] for row in each)
        deviations.append(f"{heading(figure)} {100 * deviation:.2f}")
        components = tuple(together[f"{name}_component"] for name in ("training", "group", "cell"))
        units = together["groups"] or together["cases"]
        for number in numbers:
            share = chance(components, number, units, claim.margin, figures=steps)
            chances[number].append(f"{100 * share:.1f} % in {heading(figure)}")
            is_enough &= number > len(pairs) or share >= POWER

    if not deviations:
        return [], True
    said = "; ".join(f"{number} seeds {', '.join(of)}" for number, of in chances.items())
    between = [
        f"Standard deviation of {claim.side} minus {claim.reference} between seeds, in points: "
        f"{', '.join(deviations)}.",
        f'Chance of each figure to be "not worse by {100 * claim.margin:g} points"{step} if both sides '
        f"are equal: {said}.",
    ]
    if further:
        rule = f"It takes {100 * POWER:g} % in each with {counted(len(pairs), 'seed')}"
        names = ", ".join(map(str, further))
        between.append(
            f"{rule}, and these suffice: no further seed joins."
            if is_enough
            else f"{rule}, so that all further seeds join: {names}."
        )
    return between, is_enough
