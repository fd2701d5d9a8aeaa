"""Copies of a study in a warehouse, under other ids, for a warehouse of many studies."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

# What the copy of a study calls otherwise; digests of cases too, since studies of equal cases would
# form pairs with each other.
RENAMED = (
    "study",
    "sweep_id",
    "id",
    "training_id",
    "evaluation_id",
    "scores_id",
    "evaluation_4bit",
    "evaluation_8bit",
    "dataset_id",
    "dataset_digest",
    "sets_digest",
    "set_digest",
    "calibration_digest",
    "settings_digest",
    "manifest_digest",
)
WITHOUT_DROPOUT = ("'not available' AS mc_status", "NULL AS mc_cases")
COPIED = (
    "sweep",
    "sweep_member",
    "dataset",
    "dataset_set",
    "experiment",
    "training_curve",
    "evaluation",
    "prediction",
    "metric",
    "decision_rule",
    "gate",
    "subgroup_metric",
    "net_benefit",
    "reliability",
    "conformal",
    "landed",
    "cost",
    "decision_count",
    "pair_metric",
)


def copy_study(con: duckdb.DuckDBPyConnection, copies: int) -> Iterator[int]:
    """Add `copies` of the study that the warehouse holds, without its dropout
    rows; yields the number of each.
    """
    for table in COPIED:  # apart, since the tables grow
        con.execute(f"CREATE TEMP TABLE original_{table} AS FROM {table}")
    for number in range(1, copies + 1):
        con.begin()
        for table in COPIED:
            _copy_rows(con, table, number)
        con.commit()
        yield number


def _copy_rows(con: duckdb.DuckDBPyConnection, table: str, number: int) -> None:
    columns = [name for (name, *_) in con.execute(f"DESCRIBE {table}").fetchall()]
    replaced = [f"{name} || '-{number}' AS {name}" for name in RENAMED if name in columns]
    if table == "evaluation":
        replaced += WITHOUT_DROPOUT
    con.execute(
        f"INSERT INTO {table} SELECT * REPLACE ({', '.join(replaced)}) FROM original_{table}"
    )
