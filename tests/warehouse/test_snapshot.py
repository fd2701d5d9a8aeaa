"""`snapshot`: what a block reads is of one moment, through one sealed connection."""

import subprocess
import sys
import threading

import duckdb
import pytest

from tasks.runtime.errors import BadInput
from warehouse.connect import reading, snapshot, warehouse_path
from warehouse.query import Bounds, query_rows

DELETE = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('DELETE FROM gate')"
NARROWED = "SELECT evaluation_id FROM leaderboard ORDER BY 1"
PAIR = ["e4", "e8"]
pytestmark = pytest.mark.usefixtures("landing")


def test_a_block_opens_the_warehouse_once_and_another_process_writes_after_it_alone(monkeypatch):
    """Views are narrowed for one query alone, and the file is free after an error too."""
    openings = []
    connect = duckdb.connect
    monkeypatch.setattr("duckdb.connect", lambda *args, **options: openings.append(args) or connect(*args, **options))
    command = [sys.executable, "-c", DELETE, str(warehouse_path())]
    with pytest.raises(BadInput, match="nothing_like_it"), snapshot(), snapshot():
        before = query_rows("FROM gate").rows
        with reading() as con:
            assert con.execute("FROM gate").fetchall() == before != []
        assert "lock on file" in subprocess.run(command, capture_output=True, text=True).stderr
        for id in PAIR:
            assert query_rows(NARROWED, only=[id]).rows == [(id,)]
        assert query_rows(NARROWED).rows == [(id,) for id in PAIR]
        assert query_rows("FROM gate").rows == before
        with pytest.raises(AssertionError, match="settings of its own"):
            query_rows("FROM gate", bounds=Bounds(memory=60_000_000))
        query_rows("FROM nothing_like_it")

    assert len(openings) == 1
    subprocess.run(command, check=True)
    assert query_rows("FROM gate").rows == []


def test_what_a_block_reads_is_sealed():
    with snapshot(), pytest.raises(BadInput, match="disabled"):
        query_rows("FROM read_csv('/etc/passwd')")
    with snapshot(), reading() as con, pytest.raises(duckdb.Error, match="locked"):
        con.execute("SET enable_external_access = true")


def test_another_thread_waits_for_its_own_connection():
    lines: list[str] = []
    other = threading.Thread(target=lambda: lines.append(f"thread {len(query_rows('FROM gate').rows)}"))
    with snapshot():
        other.start()
        query_rows("FROM gate")
        lines.append("block")
    other.join()
    assert lines == ["block", "thread 6"]


def test_a_block_about_another_file_reads_that_one_and_leaves_the_outer_as_it_is(tmp_path):
    other = tmp_path / "other.duckdb"
    with snapshot(), pytest.raises(BadInput, match="no warehouse"):
        query_rows("FROM gate", database=other)

    duckdb.connect(str(other)).execute("CREATE TABLE gate AS SELECT 1").close()
    with snapshot():
        with snapshot(other):
            assert query_rows("FROM gate", database=other).rows == [(1,)]
        assert query_rows(NARROWED).rows == [(id,) for id in PAIR]
