"""What must hold after a sweep under faults."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import duckdb

from tests.chaos.sweeps import PooledSweep, Sweep
from warehouse.connect import quoted

LEAVE_SECONDS = 10.0  # in which processes end
ABANDONED_SECONDS = 61.0  # a younger temporary folder is spared by every sweep
TEMPORARY = ("*/.tmp-*", "experiments/*/*/.tmp-*")
# Which sweeps there were, when what was loaded, and how often a set was looked at.
OF_THE_RUN = ("schema_migrations", "landed", "sweep", "sweep_member", "look")
# Columns that say how long something took, what the machine had to spare, or digest a moment.
MEASURED = ("seconds", "per_second", "memory", "rss", "gflops", "pool", "looks")
LANDED = """
    SELECT count(*) AS n FROM experiment
    WHERE status = 'completed' AND recipe_kind NOT IN ('baseline', 'moved_adapter')
"""
TWICE = """
    SELECT cell_id AS id FROM experiment GROUP BY cell_id HAVING count(*) > 1
    UNION ALL
    SELECT training_id FROM evaluation GROUP BY training_id, evaluation_set HAVING count(*) > 1
"""
LOST = "SELECT message FROM log WHERE message LIKE '%LostChild(%' AND message LIKE '%Retry%'"


def checks(sweep: Sweep, undisturbed: Sweep) -> dict[str, str]:
    """What does not hold, by the name of the check. Ends what runs beside the sweep."""
    place = sweep.place
    landed = int(place.query(LANDED).n[0])
    found = {
        "all experiments landed": "" if landed == sweep.experiments else f"{landed} did",
        "none landed twice": ", ".join(place.query(TWICE).id),
        "warehouse as without faults": "; ".join(
            differences(place.warehouse, undisturbed.place.warehouse)
        ),
        "audits find nothing": ", ".join(place.audits()),
    }
    if _temporary(sweep):  # young ones are left alone: one more sweep
        time.sleep(ABANDONED_SECONDS)
        sweep.running().wait()
    found["no temporary folder stayed"] = ", ".join(_temporary(sweep))
    if not isinstance(sweep, PooledSweep):
        lost = place.prefect(LOST)
        found["lost steps used up no retries"] = ", ".join(str(row) for row in lost)

    sweep.leave()
    deadline = time.monotonic() + LEAVE_SECONDS
    while (stayed := sweep.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    found["no process stayed"] = ", ".join(str(process.pid) for process in stayed)
    return found


def _temporary(sweep: Sweep) -> list[str]:
    return [str(path) for home in sweep.homes for each in TEMPORARY for path in home.glob(each)]


def differences(path: Path, other_path: Path) -> list[str]:
    """A line for each table of two warehouses whose rows differ, times and speeds aside."""
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(str(path))} AS one (READ_ONLY)")
        con.execute(f"ATTACH {quoted(str(other_path))} AS other (READ_ONLY)")
        tables = con.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'one' ORDER BY ALL"
        ).fetchall()

        lines = []
        for (table,) in tables:
            if table in OF_THE_RUN:
                continue
            columns = con.execute(
                "SELECT column_name FROM duckdb_columns() WHERE database_name = 'one' "
                "AND table_name = ? AND data_type != 'TIMESTAMP' ORDER BY column_index",
                [table],
            ).fetchall()
            compared = [f'"{c}"' for (c,) in columns if not any(word in c for word in MEASURED)]
            rows = f"SELECT {', '.join(compared)} FROM"
            counts = []
            for left, right in (("one", "other"), ("other", "one")):
                # EXCEPT ALL keeps repeats, so that a row that landed twice differs.
                only = f"({rows} {left}.{table} EXCEPT ALL {rows} {right}.{table})"
                counts += con.execute(f"SELECT count(*) FROM {only}").fetchone() or ()
            if any(counts):
                lines.append(f"{table}: {counts[0]} rows here and {counts[1]} there")
        return lines
