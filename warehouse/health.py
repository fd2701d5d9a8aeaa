"""Whether the warehouse is sound and current."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from tasks.runtime.errors import BadInput, Locked
from warehouse.comparison import pools
from warehouse.connect import check_place, first_line, reading, warehouse_path
from warehouse.schema import FACTS, digests, recorded_digests, sql_files

WAIT_SECONDS = 3.0
# Keys of tables without an index that the loader fills.
FILLED = {
    "cost": ("evaluation_id", "label", "decision"),
    "decision_count": ("evaluation_id", "rule"),
    "pair_metric": ("evaluation_4bit", "evaluation_8bit", "rule", "metric"),
    "reference_metric": ("evaluation_id", "reference_evaluation", "rule", "metric"),
}
# The audits that are no SQL files, and what a row of each is.
COMPUTED = {
    "duplicate_keys": (
        "One row per key that occurs twice, and per text with two labels in one evaluation."
    ),
    "metrics_are_reproduced": "One row per landed metric that decision_count does not give again.",
    "pairs_are_reproduced": "One row per figure of a pair that predictions do not give again.",
    "pools_are_reproduced": (
        "One row per figure of a pool, or bound of a gate, that predictions do not give again."
    ),
}

# Checked are the rules whose decisions are stored: all three from scoring version 3 on.
_METRICS = """
SELECT evaluation_id, rule, metric, value
FROM metric JOIN evaluation USING (evaluation_id)
WHERE value IS NOT NULL
    AND metric IN (SELECT unnest($metrics))
    AND (scoring_version >= 3 OR rule IN ('argmax', primary_rule))
"""
_TABLES = """
SELECT evaluation_id, rule, [*COLUMNS('_as_')], costs
FROM decision_count LEFT JOIN evaluation_costs USING (evaluation_id)
WHERE rule <> 'primary'
"""
_LOOKS_WITH_BOUNDS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) FROM gate_bounds GROUP BY looks
HAVING count(adjusted_method) > 0
"""
Row = Mapping[str, Any]
Key = tuple[Any, ...]


def examine(path: Path) -> dict[str, int] | None:
    """Offending rows by audit; None if another version made the tables or views of the file, which
    the next load brings up to date. Empty where there is no file yet. Changes nothing.

    Raises BadInput for a file that is not a warehouse, Locked if it is in use.
    """
    try:
        check_place(path)
        if not path.is_file():
            return {}
        with reading(path, WAIT_SECONDS) as con:
            return run_audits(con) if _is_current(con) else None
    except duckdb.Error as error:
        raise BadInput(
            f"{path} cannot be used as a warehouse ({first_line(error)}); move it away, "
            "and the next sweep creates a new one."
        ) from error


def bring_up_to_date(path: Path | None = None) -> None:
    """Give a warehouse the tables and views of this version, and the figures of pools that are
    missing; a current one is opened for reading only.
    """
    with reading(path) as con:
        is_current = _is_current(con) and pools.is_current(con)
    if not is_current:
        from warehouse.rebuild import current  # NumPy comes with it

        with current(path) as con:
            pools.refresh(con)


def refuse_unusable() -> None:
    """Raise BadInput for a warehouse that is damaged, or cannot be where it is named; none yet is
    fine, and so is one that is in use.
    """
    path = warehouse_path()
    check_place(path)
    if path.is_file():
        with contextlib.suppress(Locked), reading(path, wait=0.0) as con:
            _is_current(con)


def _is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the tables and views are those of this version."""
    return recorded_digests(con) == digests()


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse.

    `warehouse/audits/<name>.sql` shows them. Of those of COMPUTED, keys are read from the tables'
    declaration, and intervals and bands are computed again, which SQL cannot.
    """
    queries = {audit.name: audit.text for audit in sql_files("audits")}
    return {
        **{name: len(con.execute(query).fetchall()) for name, query in queries.items()},
        "duplicate_keys": len(_duplicate_keys(con)),
        "metrics_are_reproduced": len(wrong_metrics(con)),
        "pairs_are_reproduced": len(wrong_pairs(con)),
        "pools_are_reproduced": len(wrong_pools(con)),
    }


def _duplicate_keys(con: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    landed = {
        name: (fact.id_column, *key) for fact in FACTS.values() for name, key in fact.keys.items()
    }
    rows = con.execute(
        "SELECT evaluation_id, case_digest FROM prediction WHERE case_digest IS NOT NULL "
        "GROUP BY ALL HAVING count(DISTINCT label) > 1"
    ).fetchall()
    for name, key in {**landed, **FILLED}.items():
        columns = ", ".join(f'"{column}"' for column in key)
        rows += con.execute(
            f"SELECT {columns} FROM {name} GROUP BY ALL HAVING count(*) > 1"
        ).fetchall()
    return rows


def wrong_metrics(con: duckdb.DuckDBPyConnection) -> list[Key]:
    """Landed metrics that the counts of decisions do not give: by evaluation, rule and metric. A
    value without a figure, and a figure without a value, differ too.
    """
    from tasks.judging.point_metrics import METRICS, metric_values  # NumPy comes with it

    landed = con.execute(_METRICS, {"metrics": list(METRICS)}).fetchall()
    stored = {tuple(key): value for *key, value in landed}
    again = {}
    for id, rule, counts, costs in con.execute(_TABLES).fetchall():
        table = [counts[:3], counts[3:6], counts[6:]]
        is_whole = costs is not None and len(costs) == len(counts)
        prices = [costs[:3], costs[3:6], costs[6:]] if is_whole else None
        for metric, figure in metric_values(table, prices).items():
            if figure == figure:  # not NaN, which is no figure
                again[id, rule, metric] = float(figure)

    return [
        key
        for key in stored.keys() | again.keys()
        if key not in stored
        or key not in again
        or abs(stored[key] - again[key]) > 1e-9 * max(1.0, abs(stored[key]))
    ]


def wrong_pairs(con: duckdb.DuckDBPyConnection) -> list[Key]:
    """Figures of pairs that predictions do not give, by the columns of their key, of the pairs that
    have figures; `pairs_agree` and its like name those that have none.
    """
    from warehouse.comparison.pairs import TABLES, figure_rows  # NumPy comes with it

    wrong = []
    for table in TABLES:
        sides = ", ".join(table.sides)
        pairs = con.execute(
            f"SELECT {', '.join(table.keys)} FROM {table.view} "
            f"SEMI JOIN {table.name} USING ({sides})"
        ).fetchall()
        again = [row for pair in pairs for row in figure_rows(con, table, pair)]
        stored = con.execute(f"FROM {table.name} SEMI JOIN {table.view} USING ({sides})")
        wrong += _differing(stored, again, (*table.keys, "rule", "metric"))
    return wrong


def wrong_pools(con: duckdb.DuckDBPyConnection) -> list[Key]:
    """Figures of pools, and bounds of gates, that predictions do not give: by pool, seed group, rule
    and metric; or by evaluation and gate.
    """
    of_now = pools.pools_to_store(con)
    missing = pools.without_figures(con, of_now)
    made = {pool: pairs for pool, pairs in of_now.items() if pool not in missing}
    again = [row for pool, pairs in made.items() for row in pools.pool_rows(con, pool, pairs)]
    stored = con.execute(
        "FROM pooled_metric WHERE pool IN (SELECT unnest($pools::VARCHAR[]))", {"pools": list(made)}
    )
    wrong = _differing(stored, again, ("pool", "seed_group", "rule", "metric"))

    for looks, ids in con.execute(_LOOKS_WITH_BOUNDS).fetchall():
        bounds = pools.bound_rows(con, looks, ids)
        stored = con.execute(
            "FROM adjusted_bound WHERE evaluation_id IN (SELECT unnest($ids))", {"ids": ids}
        )
        wrong += _differing(stored, bounds, ("evaluation_id", "gate"))
    return wrong


def _differing(
    stored: duckdb.DuckDBPyConnection, recomputed: Iterable[Row], keys: Sequence[str]
) -> list[Key]:
    """The keys of rows that are there once alone, or differ by over 1e-9."""
    first, second = (
        {tuple(row[key] for key in keys): row for row in rows}
        for rows in (pools.as_dicts(stored), recomputed)
    )

    def alike(row: Row, other: Row) -> bool:
        return row.keys() == other.keys() and all(
            abs(value - other[name]) <= 1e-9
            if isinstance(value, float) and isinstance(other[name], float)
            else value == other[name]
            for name, value in row.items()
        )

    every = first.keys() | second.keys()
    return [key for key in every if not alike(first.get(key, {}), second.get(key, {}))]
