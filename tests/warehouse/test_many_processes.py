"""Many processes at one warehouse file, and a loader that is killed again and again: nothing is lost, nothing is there twice.

uv run pytest -m nightly tests/warehouse/test_many_processes.py
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.landing import load_the_rest
from tests.place import ROOT
from tests.warehouse.rows import FIVE, evaluation, training
from warehouse.connect import reading
from warehouse.health import run_audits
from warehouse.landing import landing_folders, write_landing
from warehouse.load import load_all

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
LANDERS = 8
EACH = 50
KILLS = 50

LAND = """
import sys
from tasks.landing import land_rows, load_the_rest
from tests.warehouse.rows import evaluation, training
lander = sys.argv[1]
for number in range(int(sys.argv[2])):
    id = f"p{lander}-{number:02}"
    land_rows(id, "training", training(id, 4 if number % 2 else 8, cell_id=id, recipe=f"r{lander}-{number // 2}"))
    land_rows(f"{id}-e", "evaluation", evaluation(f"{id}-e", id))
load_the_rest()
"""
HOLD = """
import duckdb, sys, time
while True:
    try:
        con = duckdb.connect(sys.argv[1], read_only=True)
        break
    except duckdb.Error:
        time.sleep(0.01)
time.sleep(20)
con.close()
"""
ASK = """
import sys
from pathlib import Path
from warehouse.query import query_rows
last = 0
while not Path(sys.argv[1]).exists():
    (count,) = query_rows("SELECT count(*) FROM experiment").rows[0]
    assert count >= last, "an experiment has gone"
    last = count
print(last)
"""
LOAD = """
import sys
from pathlib import Path
from warehouse.load import load_all
print("ready", flush=True)
load_all(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What a process printed that ended well and said nothing of errors."""
    out, err = process.communicate(timeout=1500)
    assert (process.returncode, err) == (0, "")
    return out


def complaints(file: Path) -> dict[str, int]:
    with reading(file) as con:
        return {name: rows for name, rows in run_audits(con).items() if rows}


def test_eight_processes_land_while_a_ninth_holds_the_file_and_a_tenth_queries(tmp_path: Path) -> None:
    file = Path(os.environ["TRIAGE_WAREHOUSE"])
    folder = tmp_path / "home" / "landing"
    write_landing(folder, "first", "training", training("first"))
    load_all(folder, file)

    stop = tmp_path / "stop"
    reader = start(ASK, stop)

    landers = [start(LAND, number, EACH) for number in range(LANDERS)]
    holder = start(HOLD, file)
    for process in (*landers, holder):
        ended(process)

    stop.touch()
    ended(reader)

    assert load_the_rest() is None
    with reading(file) as con:
        counts = con.execute("SELECT count(*), count(DISTINCT training_id) FROM experiment").fetchone()
        judged = con.execute("SELECT count(*), count(DISTINCT evaluation_id) FROM evaluation").fetchone()

    assert counts == (LANDERS * EACH + 1,) * 2 and judged == (LANDERS * EACH,) * 2
    assert complaints(file) == {}


def test_a_loader_killed_at_random_moments_leaves_a_file_that_opens_passes_its_audits_and_is_completed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "landing"
    for pair in range(10):
        for bits in (4, 8):
            id = f"t{pair:02}-{bits}"
            write_landing(folder, id, "training", training(id, bits, recipe=f"r{pair}", cell_id=id))
            rows = evaluation(f"{id}-e", id, FIVE * 20, groups=True)
            write_landing(folder, f"{id}-e", "evaluation", rows)

    whole = tmp_path / "whole.duckdb"
    loader = start(LOAD, folder, whole)
    assert loader.stdout and loader.stdout.readline() == "ready\n"
    began = time.monotonic()
    ended(loader)
    seconds = time.monotonic() - began

    file = tmp_path / "killed.duckdb"
    moments = random.Random(1)

    killed = 0
    while killed < KILLS:
        loader = start(LOAD, folder, file)
        assert loader.stdout and loader.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, seconds))
        loader.kill()
        was_killed = loader.wait() != 0
        killed += was_killed
        if not file.exists():  # before the first connection
            continue

        with reading(file) as con:
            loaded = con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'landed'").fetchone()
            whole_views = con.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'pooled_pair'").fetchone()

        if loaded == whole_views == (1,):
            assert complaints(file) == {}

        if not was_killed:  # nothing is left to load, and the next loader begins from nothing
            for part in tmp_path.glob("killed.duckdb*"):
                part.unlink()

    load_all(folder, file)
    with reading(file) as con:
        assert con.execute("SELECT count(*) FROM landed").fetchone() == (len(landing_folders(folder)),)

    assert complaints(file) == {}
