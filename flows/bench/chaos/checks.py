"""What must hold after a sweep under faults: everything landed once, with the figures of a sweep
that nothing disturbed, and nothing stayed behind.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows.bench.chaos.place import ChaosPlace
from tasks.runtime.locks import ABANDONED_SECONDS
from tasks.runtime.store import PLACES
from warehouse.connect import quoted, reading
from warehouse.health import run_audits

LEAVE_SECONDS = 10.0
# Which sweeps there were, when what was loaded, and how often a set was looked at.
OF_THE_RUN = ("schema_migrations", "landed", "sweep", "sweep_member", "look")
# Columns that say how long something took, or what the machine had to spare at that moment.
MEASURED = ("seconds", "per_second", "memory", "rss", "gflops")
# Digests of landing folders, whose manifests say when they were written.
OF_MANIFESTS = ("pool", "looks")
SHOWN = 3  # of what differs
LOST_RETRIED = (
    "SELECT count(*) FROM log WHERE message LIKE '%LostChild(%' AND message LIKE '%Retry%'"
)


@dataclass(frozen=True)
class ChaosCheck:
    """A condition, whether it holds, and what was found."""

    name: str
    holds: bool
    detail: str


def checks(place: ChaosPlace, undisturbed: ChaosPlace) -> Iterator[ChaosCheck]:
    """Examine a place whose sweep has finished."""
    yield _all_landed(place)
    yield _none_twice(place)
    yield _as_undisturbed(place, undisturbed)
    yield _audits(place)
    yield _no_temporary_folder(place)
    yield _no_retry_for_a_lost_child(place)
    # Last, since it makes the place leave, where a check above may start a sweep once more.
    yield _no_orphan(place)


def differences(path_a: Path, path_b: Path) -> list[str]:
    """A line for each table of two warehouses whose rows differ, times and speeds aside."""
    with contextlib.closing(duckdb.connect()) as con:
        for name, path in (("one", path_a), ("other", path_b)):
            con.execute(f"ATTACH {quoted(str(path))} AS {name} (READ_ONLY)")
        return [line for table in _tables(con) if (line := _difference(con, table))]


def _tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'one' ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in rows if name not in OF_THE_RUN]


def _difference(con: duckdb.DuckDBPyConnection, table: str) -> str | None:
    columns = con.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = 'one' AND table_name = ? ORDER BY column_index",
        [table],
    ).fetchall()
    compared = [
        f'"{name}"'
        for name, kind in columns
        if kind != "TIMESTAMP"
        and name not in OF_MANIFESTS
        and not any(word in name for word in MEASURED)
    ]
    rows = f"SELECT {', '.join(compared)} FROM"

    only = []
    for database, other_database in (("one", "other"), ("other", "one")):
        # EXCEPT ALL keeps repeats, so that a row that landed twice differs.
        query = (
            f"SELECT count(*) FROM ({rows} {database}.{table} EXCEPT ALL {rows} "
            f"{other_database}.{table})"
        )
        only.append(con.execute(query).fetchall()[0][0])

    return f"{table}: {only[0]} rows here and {only[1]} there" if any(only) else None


def _all_landed(place: ChaosPlace) -> ChaosCheck:
    (count,) = _row(
        place, "SELECT count(*) FROM experiment WHERE status = 'completed' AND NOT {extra_kinds}"
    )
    experiments = place.study.experiments
    return ChaosCheck("all experiments landed", count == experiments, f"{count} of {experiments}")


def _none_twice(place: ChaosPlace) -> ChaosCheck:
    twice = (
        "SELECT count(*) FROM (SELECT cell_id FROM experiment GROUP BY cell_id HAVING count(*) > 1 "
        "UNION ALL SELECT training_id FROM evaluation GROUP BY training_id, evaluation_set "
        "HAVING count(*) > 1)"
    )
    (count,) = _row(place, twice)
    gave_way = place.gave_way()
    sentence = f"{count} twice" + (f"; {gave_way} came second and gave way" if gave_way else "")

    return ChaosCheck("none landed twice", count == 0, sentence)


def _as_undisturbed(place: ChaosPlace, undisturbed: ChaosPlace) -> ChaosCheck:
    unequal_tables = differences(place.warehouse, undisturbed.warehouse)
    text = "; ".join(unequal_tables[:SHOWN]) or "every table but for times"
    return ChaosCheck("warehouse as without faults", not unequal_tables, text)


def _audits(place: ChaosPlace) -> ChaosCheck:
    with reading(place.warehouse) as con:
        failing_audits = [name for name, rows in run_audits(con).items() if rows]
    return ChaosCheck("audits", not failing_audits, ", ".join(failing_audits) or "none finds a row")


def _no_orphan(place: ChaosPlace) -> ChaosCheck:
    place.leave()
    deadline = time.monotonic() + LEAVE_SECONDS
    while (processes := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return ChaosCheck(
        "no process stayed",
        not processes,
        ", ".join(str(process.pid) for process in processes) or "none",
    )


def _no_temporary_folder(place: ChaosPlace) -> ChaosCheck:
    """A young folder is spared by every sweep, so one more runs when none is young any more."""
    if _temporary(place):
        time.sleep(ABANDONED_SECONDS + 1)
        place.start_anew()
    leftovers = _temporary(place)
    return ChaosCheck(
        "no temporary folder stayed", not leftovers, ", ".join(leftovers[:SHOWN]) or "none"
    )


def _temporary(place: ChaosPlace) -> list[str]:
    leftovers = [path for home in place.homes for pattern in PLACES for path in home.glob(pattern)]
    return sorted(str(path.relative_to(place.disk)) for path in leftovers)


def _no_retry_for_a_lost_child(place: ChaosPlace) -> ChaosCheck:
    """What Prefect has logged of the attempts that it counts."""
    count = place.prefect_count(LOST_RETRIED)
    return ChaosCheck("lost children used up no retries", count == 0, f"{count} retries")


def _row(place: ChaosPlace, query: str) -> tuple[int, ...]:
    extra_kinds = "recipe_kind IN ('baseline', 'moved_adapter')"
    with reading(place.warehouse) as con:
        (row,) = con.execute(query.replace("{extra_kinds}", extra_kinds)).fetchall()
        return tuple(row)
