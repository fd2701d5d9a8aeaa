"""The trained pairs of a recipe, group by group of those that were trained alike: only these are
averaged. What a further seed changes in the estimate, and why one that was trained otherwise stands by
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.figures import heading, in_points
from flows.report.rows import (
    COMMON_RULES,
    THRESHOLD,
    Row,
    Study,
    evaluation_ids,
    grouped,
    is_number,
    rows_of,
)
from warehouse.comparison.crossed import (
    CANNOT_CONCLUDE,
    LEVEL,
    MARGIN,
    NOT_WORSE,
    WORSE,
    in_words,
)
from warehouse.connect import reading

Figures = dict[str, Row]  # rows of differences by metric, each by its rule of COMMON_RULES
Pairs = dict[int, tuple[str, str]]  # by seed, the evaluations of both sides

# A side that was not trained at its precision has the adapters of the reference, moved.
_PAIRS = """(
    WITH judged AS (
        SELECT
            e.evaluation_id,
            e.created_at,
            CASE WHEN own.source_training_id IS NOT NULL THEN coalesce(own.moved_rules, 'kept') END
                AS moved_rules,
            own.precision,
            seed_group,
            trained.training_id,
            trained.seed,
            trained.finished_at,
            trained.backend,
            trained.engine_version,
            trained.mlx_version,
            trained.mlx_lm_version,
            concat_ws(' ', trained.weights_source, trained.original_precision) AS weights,
            {
                learning_rate: trained.learning_rate,
                batch_size: trained.batch_size,
                rank: trained.rank,
                scale: trained.scale,
                dropout: trained.dropout,
                iterations: trained.iterations,
                num_layers: trained.num_layers,
                group_size: trained.group_size,
                cost_weight: trained.cost_weight,
                source_digest: trained.source_digest,
                dataset_digest: trained.dataset_digest
            } AS settings
        FROM evaluation AS e
        ANTI JOIN judged_again ON judged_again.evaluation_id = e.evaluation_id
        ANTI JOIN (FROM sealed_evaluation WHERE study IS DISTINCT FROM $study) AS sealed
            ON sealed.evaluation_id = e.evaluation_id
        JOIN seed_group ON seed_group.evaluation_id = e.evaluation_id
        JOIN experiment AS own ON own.training_id = e.training_id AND own.status = 'completed'
        JOIN experiment AS trained
            ON trained.training_id = coalesce(own.source_training_id, own.training_id)
        WHERE e.evaluation_set = 'test'
            AND e.set_digest = $cases
            AND trained.base_model = $base_model
            AND trained.recipe = $recipe
            AND trained.recipe_kind IN ('standard', 'safety')
            AND NOT coalesce(trained.random_weights, false)
    )
    SELECT
        reference.* EXCLUDE (evaluation_id, created_at, moved_rules, precision),
        side.moved_rules IS NOT NULL AS is_moved,
        side.evaluation_id AS side,
        reference.evaluation_id AS reference
    FROM judged AS side
    JOIN judged AS reference ON reference.seed = side.seed
    WHERE side.precision = $side
        AND reference.precision = $reference
        AND reference.moved_rules IS NULL
        AND CASE
            WHEN side.moved_rules IS NULL THEN side.seed_group = reference.seed_group
            ELSE side.moved_rules = $rules AND side.training_id = reference.training_id
        END
    QUALIFY row_number() OVER (
        PARTITION BY reference.seed, reference.seed_group
        ORDER BY
            side.moved_rules IS NOT NULL,
            least(side.finished_at, reference.finished_at) DESC NULLS LAST,
            least(side.created_at, reference.created_at) DESC,
            side.evaluation_id,
            reference.evaluation_id
    ) = 1
    ORDER BY reference.finished_at, reference.seed
)"""
_SWEEPS = """(
    SELECT
        id,
        bool_or(started_at = last) AS is_in_last,
        bool_or(started_at < last) AS is_in_earlier
    FROM (SELECT *, max(started_at) OVER () AS last FROM sweep WHERE study = $study)
    JOIN sweep_member USING (sweep_id)
    GROUP BY id
)"""
# How trainings differ, in words.
UNLIKE = {
    "backend": "on {}",
    "engine_version": "by engine version {}",
    "mlx_version": "with MLX {}",
    "mlx_lm_version": "with mlx-lm {}",
    "weights": "from the weights {}",
}


@dataclass(frozen=True)
class Trainings:
    """Pairs that were trained alike, so that chance alone differs; `row`: the first of them."""

    row: Row
    pairs: Pairs

    def of(self, seeds: Collection[int]) -> Pairs:
        return {seed: pair for seed, pair in self.pairs.items() if seed in seeds}


def trained_alike(
    study: Study, base_model: str, recipe: str, sides: Sequence[str], rules: str = ""
) -> list[Trainings]:
    """The pairs of a recipe in the whole study, on the cases of its board, those first that were
    trained first. `rules`: those by which moved adapters are judged, which count where no pair was
    trained at both precisions. A study's own seal hides none.
    """
    rows = rows_of(
        _PAIRS,
        evaluation_ids(study.name) if study.name else study.ids,
        study=study.name,
        cases=study.board[0].set_digest,
        base_model=base_model,
        recipe=recipe,
        side=sides[0],
        reference=sides[1],
        rules=rules,
    )
    trained = [row for row in rows if not row.is_moved]
    return [
        Trainings(alike[0], {row.seed: (row.side, row.reference) for row in alike})
        for alike in grouped(trained or rows, lambda row: row.seed_group).values()
    ]


def diverged_seeds(claim: Row, pairs: Collection[int]) -> list[int]:
    """Seeds of a claim's study that diverged at one of its precisions, and are in none of `pairs`. Each
    is left out at both: trained again, it would diverge again.
    """
    rows = rows_of(
        "(SELECT DISTINCT seed FROM experiment JOIN study_member ON id = training_id "
        "WHERE study = $study AND status = 'diverged' AND base_model = $base_model "
        "AND recipe = $recipe AND precision IN ($side, $reference) ORDER BY seed)",
        study=claim.study,
        base_model=claim.base_model,
        recipe=claim.recipe,
        side=claim.side,
        reference=claim.reference,
    )
    return [row.seed for row in rows if row.seed not in pairs]


def differences_of(
    pairs: Collection[tuple[str, str]], metrics: Collection[str], margin: float = MARGIN
) -> Figures:
    """Differences of evaluations in these metrics, first minus second, over trainings and groups of cases."""
    from warehouse.comparison.cells import judged_cases  # NumPy and SciPy come with both
    from warehouse.comparison.differences import differences

    with reading() as con:
        cases = judged_cases(con, [id for pair in pairs for id in pair])
    one: list[tuple[dict[str, Any], range]] = [({}, range(len(pairs)))]
    rows = differences(cases, one, ("argmax", THRESHOLD), tuple(metrics), margin=margin)
    return by_metric([Row(**row) for row in rows])


def by_metric(rows: Collection[Row]) -> Figures:
    """Differences of one recipe in each metric, by the rule that all share."""
    return {row.metric: row for row in rows if row.rule == COMMON_RULES[row.metric]}


def adjust(rows: Sequence[Row]) -> None:
    """Replace p values by Holm's for all of these rows, and verdicts by what these say: not worse, or
    nothing. `worse` stays, from an interval that nothing adjusts.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    largest = 0.0
    ordered = sorted(rows, key=lambda row: 1.0 if row.p_value is None else row.p_value)
    for place, row in enumerate(ordered):
        if row.p_value is None:
            continue
        largest = max(largest, min(1.0, (len(rows) - place) * row.p_value))
        row.p_value = largest
        if row.verdict != WORSE:
            row.verdict = NOT_WORSE if largest < (1 - LEVEL) / 2 else CANNOT_CONCLUDE


def further_seeds(
    study: Study,
    every: Sequence[Trainings],
    own: Trainings,
    claimed: Collection[int] | None,
    metrics: Sequence[str],
    margin: float = MARGIN,
    is_adjusted: bool = False,
) -> list[str]:
    """What seeds beside `claimed` change in the estimate of `own`, without a claim those that the last
    sweep of the study added; and which pairs of `every` stand by themselves, and why. `is_adjusted`:
    verdicts are those of `adjust`.
    """
    sweeps = {row.id: row for row in rows_of(_SWEEPS, study=study.name)} if study.name else {}

    is_of_one = own.row.is_moved

    def all_in(sweep: str, pair: Collection[str]) -> bool:
        return all(getattr(sweeps.get(id), sweep, False) for id in pair)

    def estimate(pairs: Pairs) -> Figures:
        rows = differences_of(pairs.values(), metrics, margin)
        if is_adjusted:
            adjust([*rows.values()])
        return rows

    def figures(pairs: Pairs) -> str:
        rows = estimate(pairs)
        return "; ".join(
            f"{heading(metric)} {in_points(rows[metric], ' points')}, {_verdict(rows[metric], is_of_one)}"
            for metric in metrics
        )

    asked = {seed for seed, pair in own.pairs.items() if all_in("is_in_last", pair)}
    there = {seed for seed in asked if all_in("is_in_earlier", own.pairs[seed])}
    before = own.of(own.pairs.keys() - (asked - there) if claimed is None else claimed)
    sentences = []
    further = sorted(own.pairs.keys() - before.keys())
    if further and before:
        first, then = estimate(before), estimate(own.pairs)
        moves = []
        for metric in metrics:
            verdicts = [_verdict(rows[metric], is_of_one) for rows in (first, then)]
            kinds = [verdict.partition(": ")[0] for verdict in verdicts]
            change = "stays" if kinds[0] == kinds[1] else f"changes from {kinds[0]!r} to"
            moves.append(
                f"{heading(metric)} from {in_points(first[metric], ' points')} to "
                f"{in_points(then[metric])}, the verdict {change} {kinds[1]!r}"
            )
        sentences.append(f"With {named_seeds(further)} the estimate moved: {'; '.join(moves)}.")
    if there and there < own.pairs.keys():
        sentences.append(_there_already(there))

    for other in every:
        unlike = [name for name in UNLIKE if getattr(other.row, name) != getattr(own.row, name)]
        is_new = any(all_in("is_in_last", pair) for pair in other.pairs.values())
        if other is own or not (unlike or claimed is not None or is_new):
            continue

        words = [
            UNLIKE[name].format(f"{getattr(other.row, name)}, not {getattr(own.row, name)}")
            for name in unlike
        ]
        how = " and ".join(words) or "with other settings or cases"
        alone = "by itself" if len(other.pairs) == 1 else "by themselves"
        sentence = (
            f"{named_seeds(other.pairs, 'Seed')} {_were(other.pairs)} trained {how}, and counted {alone}: "
            f"{figures(other.pairs)}."
        )
        together = other.pairs | own.pairs  # a seed that both have is no further one
        is_further = together.keys() > own.pairs.keys()
        if is_further and unlike == ["backend"] and other.row.settings == own.row.settings:
            sentence += f" Of both backends, {len(together)} seeds: {figures(together)}."
        if twice := other.pairs.keys() & own.pairs.keys():
            sentence += f" {_there_already(twice)}"
        sentences.append(sentence)
    return sentences


def _verdict(row: Row, is_of_one: bool) -> str:
    return in_words(row, is_of_one) if is_number(row.low) else row.note or "no interval"


def _there_already(seeds: Collection[int]) -> str:
    return f"{named_seeds(seeds, 'Seed')} {_were(seeds)} there already, and a seed counts once."


def named_seeds(seeds: Collection[int], word: str = "seed") -> str:
    return f"{word}{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"


def _were(seeds: Collection[int]) -> str:
    return "were" if len(seeds) > 1 else "was"
