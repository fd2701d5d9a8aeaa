"""Means over several trainings of a recipe: of its seeds at 4 and 8 bits, and of its adapters at a
precision and its reference. `pooled_metric` and `adjusted_bound` are kept equal to what the pairs and
models of now give.

Both tables name by a digest what they were made from, and the views show figures of this digest
alone, so that an old figure is never shown. Figures of many cases are made at the end of a sweep or
of a load rather than after each landing.

DuckDB alone at the top, so that a command which finds all figures loads no NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from warehouse.connect import reading, transaction
from warehouse.schema import insert_rows

# What is shown together, since a pool names exactly these pairs: all evaluations, those of each study,
# and those of the last sweep, which are often the same.
_SHOWN_TOGETHER = """
SELECT list(evaluation_id ORDER BY evaluation_id) AS ids FROM evaluation HAVING count(*) > 0
UNION
SELECT list(id ORDER BY id) FROM study_member WHERE kind = 'evaluation' GROUP BY study
UNION
SELECT list(id ORDER BY id)
FROM sweep_member JOIN landed USING (id)
WHERE kind = 'evaluation'
    AND sweep_id = (SELECT sweep_id FROM sweep ORDER BY started_at DESC, sweep_id LIMIT 1)
HAVING count(*) > 0
"""
_HAS_BOTH_SIDES = """
SELECT count(DISTINCT precision) = 2
FROM experiment SEMI JOIN evaluation USING (training_id)
WHERE precision IN ('4bit', '8bit')
"""
_POOLS = """
SELECT pool, list([evaluation_4bit, evaluation_8bit] ORDER BY evaluation_4bit) AS pairs
FROM pooled_pair_of($ids)
GROUP BY pool
"""
_RECIPES = """
SELECT base_model, recipe, seed_group, list(evaluation_id)
FROM evaluation JOIN experiment USING (training_id) JOIN seed_group USING (evaluation_id)
WHERE evaluation_id IN (SELECT unnest($ids))
GROUP BY ALL
ORDER BY ALL
"""
_ADAPTERS = """
WITH latest AS (
    FROM precision_pair_of($ids, $reference)
    WHERE adapter <> 'own'
    QUALIFY row_number() OVER (
        PARTITION BY
            base_model, recipe, seed, adapter, evaluation_set, set_digest, random_weights, precision
        ORDER BY
            scoring_version DESC,
            least(created_at, reference_created_at) DESC,
            greatest(created_at, reference_created_at) DESC,
            evaluation_id DESC,
            reference_evaluation DESC
    ) = 1
)
SELECT
    base_model,
    recipe,
    adapter,
    evaluation_set,
    set_digest,
    random_weights,
    precision,
    reference,
    avg(bytes_ratio) AS bytes_ratio,
    any_value(note) AS reference_note,
    list([evaluation_id, reference_evaluation] ORDER BY seed) AS pairs
FROM latest
-- Adapters that were trained alike.
JOIN (SELECT evaluation_id AS reference_evaluation, seed_group FROM seed_group) USING (reference_evaluation)
GROUP BY
    base_model,
    recipe,
    seed_group,
    adapter,
    evaluation_set,
    set_digest,
    random_weights,
    precision,
    reference
ORDER BY
    base_model, recipe, adapter, evaluation_set, set_digest, random_weights, avg(stored_bytes) DESC,
    precision, seed_group
"""
_LOOKS_WITHOUT_BOUNDS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) AS ids
FROM gate_bounds
GROUP BY looks
HAVING count(*) FILTER (adjusted_method IS NULL) > 0
ORDER BY looks
"""
# Cases of all models on one set up to which its figures are made after each landing.
AT_EACH_LANDING = 20_000

# Evaluations on the sets whose figures are made after a landing.
_TO_JUDGE = """
WITH new AS (SELECT unnest($ids::VARCHAR[])),
touched AS (
    SELECT set_digest, false AS is_over
    FROM evaluation
    WHERE evaluation_id IN (FROM new) OR training_id IN (FROM new)
    UNION
    SELECT set_digest, finished_at IS NOT NULL
    FROM sweep
    JOIN sweep_member USING (sweep_id)
    JOIN evaluation ON evaluation_id = id
    WHERE sweep_id IN (FROM new)
)
SELECT unnest(list(DISTINCT evaluation_id))
FROM touched JOIN evaluation USING (set_digest)
GROUP BY set_digest
HAVING bool_or(is_over) OR sum(cases) <= $most
"""
Pools = dict[str, list[list[str]]]  # both evaluations of each pair, by the digest of all


def is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether no figure is missing."""
    missing = without_figures(con, pools_to_store(con))
    return not missing and not con.execute(_LOOKS_WITHOUT_BOUNDS).fetchall()


def pools_to_store(con: duckdb.DuckDBPyConnection) -> Pools:
    """The pools of all that is shown together."""
    if con.execute(_HAS_BOTH_SIDES).fetchone() == (False,):
        return {}
    return {
        pool: pairs
        for (ids,) in con.execute(_SHOWN_TOGETHER).fetchall()
        for pool, pairs in con.execute(_POOLS, {"ids": ids}).fetchall()
    }


def without_figures(con: duckdb.DuckDBPyConnection, pools: Pools) -> Pools:
    stored = {pool for (pool,) in con.execute("SELECT DISTINCT pool FROM pooled_metric").fetchall()}
    return {pool: pairs for pool, pairs in pools.items() if pool not in stored}


def refresh(con: duckdb.DuckDBPyConnection, only: Collection[str] | None = None) -> None:
    """Make the figures that are missing, in a transaction; with `only`, those of the pools and looks
    on the cases of these evaluations.
    """
    with transaction(con):
        pools = pools_to_store(con)
        con.execute(
            # A pool that has changed has a new name, and the rows of the old one go.
            "DELETE FROM pooled_metric WHERE pool NOT IN (SELECT unnest($pools::VARCHAR[]))",
            {"pools": list(pools)},
        )

        missing = without_figures(con, pools)
        looks = dict(con.execute(_LOOKS_WITHOUT_BOUNDS).fetchall())
        if only is not None:
            # All evaluations of a pool are on one set, as are those of looks: the first tells it.
            missing = {pool: pairs for pool, pairs in missing.items() if pairs[0][0] in only}
            looks = {digest: ids for digest, ids in looks.items() if ids[0] in only}

        for pool, pairs in missing.items():
            insert_rows(con, "pooled_metric", pool_rows(con, pool, pairs))
        for digest, ids in looks.items():
            con.execute(
                "DELETE FROM adjusted_bound WHERE evaluation_id IN (SELECT unnest($ids))",
                {"ids": ids},
            )
            insert_rows(con, "adjusted_bound", bound_rows(con, digest, ids))


def refresh_after(con: duckdb.DuckDBPyConnection, ids: Collection[str]) -> None:
    """Make the figures that landings lack; those that take long wait for the end of their sweep, or
    for the next command that shows them.
    """
    values = {"ids": list(ids), "most": AT_EACH_LANDING}
    on_these_sets = {id for (id,) in con.execute(_TO_JUDGE, values).fetchall()}
    if on_these_sets:
        refresh(con, on_these_sets)


def pool_rows(
    con: duckdb.DuckDBPyConnection, pool: str, pairs: list[list[str]]
) -> list[dict[str, Any]]:
    """The rows of a pool in `pooled_metric`: a recipe's mean over its seeds, by rule and metric."""
    place = {first: i for i, (first, _) in enumerate(pairs)}
    found = con.execute(_RECIPES, {"ids": list(place)}).fetchall()
    recipes = [
        (
            {"pool": pool, "base_model": base_model, "recipe": recipe, "seed_group": seed_group},
            [place[id] for id in ids],
        )
        for base_model, recipe, seed_group, ids in found
    ]
    # What is of one pair alone.
    left_out = {"b", "c", "mcnemar_p"}
    rows = means(con, pairs, recipes)
    return [{key: row[key] for key in row.keys() - left_out} for row in rows]


def means(
    con: duckdb.DuckDBPyConnection,
    pairs: Sequence[Sequence[str]],
    recipes: Sequence[tuple[dict[str, Any], Sequence[int]]],
) -> Iterable[dict[str, Any]]:
    """Rows of `differences` over the pairs of each recipe, given as places in `pairs`."""
    from tasks.spec import ED_AUROC
    from warehouse.comparison.cells import RULES, judged_cases  # NumPy and SciPy come with both
    from warehouse.comparison.differences import METRICS, differences

    cases = judged_cases(con, [id for pair in pairs for id in pair])
    return differences(cases, recipes, tuple(RULES), (*METRICS, ED_AUROC))


def adapter_rows(
    only: Collection[str] | None = None, reference: str | None = None, database: Path | None = None
) -> list[dict[str, Any]]:
    """A precision against `reference`, else against that at which the adapter was trained: the mean
    over the adapters of a recipe that were judged at both. A row per recipe, arm (`adapter` of
    precision_arm, e.g. `from 8bit`), set, precision, rule and metric, of all evaluations or of those
    whose ids are in `only`; the largest precision first.

    Each adapter was trained once, at its source precision, and is judged at both by the same rule
    with the same threshold, so that only the weights differ, or with one that is chosen again at
    each. Adapters of different source precisions are kept apart, since those of one seed are no two
    independent trainings. Nothing is stored.

    `value_4bit` is that of the precision, `value_8bit` that of the reference, and all else as in
    `pooled_metric`; `reference_note` says what cannot follow from the reference.
    """
    ids = None if only is None else sorted(only)
    rows: list[dict[str, Any]] = []
    with reading(database) as con:
        for recipe in as_dicts(con.execute(_ADAPTERS, {"ids": ids, "reference": reference})):
            pairs = recipe.pop("pairs")
            rows += means(con, pairs, [(recipe, range(len(pairs)))])
    return rows


def as_dicts(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The rows of a query by column."""
    names = [name for name, *_ in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def bound_rows(con: duckdb.DuckDBPyConnection, looks: str, ids: list[str]) -> list[dict[str, Any]]:
    """The rows of these evaluations, which are looked at together, in `adjusted_bound`."""
    from warehouse.comparison.adjusted_gates import adjusted_bounds  # SciPy comes with it
    from warehouse.comparison.cells import judged_cases

    gates = adjusted_bounds(judged_cases(con, ids))
    return [
        {"evaluation_id": id, "looks": looks, **gate}
        for id, of_model in zip(ids, gates, strict=True)
        for gate in of_model
    ]
