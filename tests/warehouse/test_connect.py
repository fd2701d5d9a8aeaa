import subprocess
import sys
import threading
import time

import duckdb
import pytest

from tasks.runtime.errors import BadInput, Locked
from tests.place import ROOT
from tests.warehouse.test_waiting import held_warehouse
from warehouse.connect import reading, unused, warehouse_path, writing


def test_the_file_is_the_named_one_else_the_checkouts_else_the_homes(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / "named.duckdb"))
    assert warehouse_path() == tmp_path / "named.duckdb"
    monkeypatch.delenv("TRIAGE_WAREHOUSE")
    monkeypatch.chdir(tmp_path)
    for project, folder in ((None, "home"), ("another", "home"), ("triage-sweep", "warehouse")):
        if project:
            (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
        assert warehouse_path() == tmp_path / folder / "triage.duckdb"


@pytest.mark.parametrize("use", [writing, unused])
def test_a_held_file_is_waited_for_then_its_holder_is_named_and_one_that_is_freed_in_time_is_opened(use, tmp_path):
    path = tmp_path / "held.duckdb"
    with held_warehouse("writing", path) as holder:
        for at_once in (use, reading):
            started = time.monotonic()
            with pytest.raises(Locked, match=rf"process {holder.pid}\)|by another process"), at_once(path, wait=0.3):
                pass
            assert time.monotonic() - started >= 0.3
        threading.Timer(0.4, holder.stdin.close).start()
        with use(path, wait=20):
            pass


def test_a_missing_warehouse_another_kind_of_file_and_a_full_disk_are_one_sentence_and_a_reader_cannot_write(
    tmp_path, monkeypatch
):
    file = tmp_path / "w.duckdb"
    with pytest.raises(BadInput, match="run `triage sweep demo` first"), reading(file):
        pass
    file.write_text("not a database" * 1000)
    with monkeypatch.context() as patch, pytest.raises(BadInput, match="cannot be opened as a warehouse"):
        patch.setattr(time, "sleep", lambda _: pytest.fail("only a lock is worth another attempt"))
        with writing(file, wait=60):
            pass
    file.unlink()
    words = 'Failed to commit: Could not write file "w.duckdb.wal": No space left on device'
    with pytest.raises(BadInput, match=f"The disk is full: .*{tmp_path.name}"), writing(file):
        raise duckdb.TransactionException(words)
    with reading(file) as con, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        con.execute("CREATE TABLE t (i INTEGER)")


@pytest.mark.usefixtures("landing")
def test_a_warehouse_that_is_current_is_found_to_be_so_without_the_heavy_libraries():
    heavy = {"prefect", "mlx", "mlx_lm", "scipy", "pandas", "pyarrow", "sklearn", "numpy"}
    if duckdb.__version__.startswith("1."):
        heavy -= {"numpy"}  # DuckDB 1.5 imports it for a parameter
    code = "import sys, warehouse.query, warehouse.health; warehouse.health.bring_up_to_date(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert heavy & {name.split(".")[0] for name in loaded.split()} == set()
