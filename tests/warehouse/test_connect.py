"""Where the warehouse file is, who may open it, and which errors are retried."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from tasks.runtime.errors import BadInput, Locked, TriageError
from tests.warehouse.rows import land_pair
from warehouse import connect
from warehouse.connect import reading, warehouse_path, writing
from warehouse.load import load_all
from warehouse.rebuild import current

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@pytest.fixture
def held_warehouse(tmp_path):
    """A warehouse file that another process has open."""
    path = tmp_path / "held.duckdb"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin
        holder.stdout.readline()
        yield path, holder
        holder.stdin.close()


def test_the_file_is_the_named_one_else_the_checkouts_else_the_homes(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "named.duckdb"))
    assert warehouse_path() == tmp_path / "named.duckdb"
    monkeypatch.delenv("TRIAGE_WAREHOUSE")
    monkeypatch.chdir(tmp_path)
    assert warehouse_path() == tmp_path / "home" / "triage.duckdb"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert warehouse_path() == tmp_path / "home" / "triage.duckdb"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "triage-sweep"\n')
    assert warehouse_path() == tmp_path / "warehouse" / "triage.duckdb"


def test_a_full_disk_of_the_warehouse_is_a_sentence_that_names_it(tmp_path):
    words = 'Failed to commit: Could not write file "w.duckdb.wal": No space left on device'
    with pytest.raises(BadInput, match=f"The disk is full: .*{tmp_path.name}"), writing(tmp_path / "w.duckdb"):
        raise duckdb.TransactionException(words)


@pytest.mark.parametrize(
    ("error", "attempts", "becomes"),
    [
        (duckdb.IOException('Could not set lock on file "x": Conflicting lock is held in /bin/a (PID 1)'), 3, None),
        (duckdb.IOException("Cannot open file: No such file or directory"), 1, BadInput),
        (duckdb.SerializationException("not a DuckDB file"), 1, BadInput),
        (duckdb.ConnectionException("different configuration"), 1, BadInput),
        (ArithmeticError("x"), 1, ArithmeticError),
    ],
)
def test_only_a_lock_is_worth_another_attempt(error, attempts, becomes, tmp_path, monkeypatch):
    tried = []
    real = duckdb.connect

    def refusing(*args, **options):
        tried.append(args)
        if len(tried) < 3:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(duckdb, "connect", refusing)
    if becomes is None:
        with writing(tmp_path / "w.duckdb"):
            pass
    else:
        with pytest.raises(becomes), writing(tmp_path / "w.duckdb"):
            pass

    assert len(tried) == attempts


def test_a_held_file_is_waited_for_and_then_its_holder_is_named(held_warehouse):
    path, holder = held_warehouse
    started = time.monotonic()
    with pytest.raises(Locked, match=rf"process {holder.pid}\)"), writing(path, wait=0.5):
        pass
    assert 0.5 <= time.monotonic() - started < 5
    with pytest.raises(Locked), reading(path, wait=0.1):
        pass


def test_a_file_that_is_freed_in_time_is_opened(held_warehouse):
    path, holder = held_warehouse
    threading.Timer(0.4, holder.stdin.close).start()
    with writing(path, wait=20) as con:
        assert con.execute("SELECT 1").fetchone() == (1,)


def test_threads_of_one_process_take_turns_even_when_one_reads_and_one_writes(tmp_path):
    path = tmp_path / "w.duckdb"
    with writing(path) as con:
        con.execute("CREATE TABLE t (i INTEGER)")

    failures = []

    def use(number):
        try:
            with writing(path) as con:
                con.execute("INSERT INTO t VALUES (?)", [number])
            with reading(path) as con:
                con.execute("FROM t").fetchall()
        except (TriageError, duckdb.Error) as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with reading(path) as con:
        assert (con.execute("SELECT count(*) FROM t").fetchone(), failures) == ((8,), [])


def test_a_missing_warehouse_and_a_file_of_another_kind_are_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="run `triage sweep demo` first"), reading(tmp_path / "none.duckdb"):
        pass
    other = tmp_path / "other.duckdb"
    other.write_text("not a database" * 1000)
    with pytest.raises(BadInput, match="cannot be opened as a warehouse"), writing(other):
        pass


def test_a_reader_cannot_write(tmp_path):
    with current(tmp_path / "w.duckdb"):
        pass
    with reading(tmp_path / "w.duckdb") as con, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        con.execute("DELETE FROM experiment")


def loaded_by(modules, packages):
    """Which of `packages` a new process loads when it imports `modules`."""
    code = f"import sys, {modules}; print(*sorted({packages!r} & {{name.split('.')[0] for name in sys.modules}}))"
    root = Path(connect.__file__).parents[1]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return process.stdout.split()


def test_the_warehouse_imports_neither_prefect_nor_mlx():
    modules = "warehouse.load, warehouse.landing, warehouse.query, warehouse.health"
    assert loaded_by(modules, {"prefect", "mlx", "mlx_lm"}) == []


def test_what_a_query_needs_imports_none_of_the_heavy_libraries():
    modules = "warehouse.connect, warehouse.schema, warehouse.health, warehouse.query"
    assert loaded_by(modules, {"numpy", "scipy", "pandas", "pyarrow", "sklearn", "prefect"}) == []


def test_a_warehouse_that_is_current_is_found_to_be_so_without_numpy(tmp_path, monkeypatch):
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing", tmp_path / "w.duckdb")
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "w.duckdb"))
    modules = "warehouse.health; warehouse.health.bring_up_to_date()"
    own_values = (
        {"numpy"} if duckdb.__version__.startswith("1.") else set()
    )  # which DuckDB itself imports for a parameter
    assert loaded_by(modules, {"numpy", "scipy"} - own_values) == []
