"""Where a warehouse may be, and a damaged one: a sentence with the remedy, and a new file from the landing files."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from tasks.runtime.errors import BadInput, Locked
from tests.warehouse.rows import land_pair
from warehouse.connect import reading, unused, warehouse_path, writing
from warehouse.health import refuse_unusable, run_audits
from warehouse.load import load_all
from warehouse.query import query_rows
from warehouse.rebuild import rebuild

DAMAGED = "is damaged.*; it can be rebuilt from the landing files: triage warehouse rebuild.$"
EVERYTHING = "SELECT table_name FROM duckdb_tables() ORDER BY ALL"


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A home of a pair of experiments."""
    folder = tmp_path_factory.mktemp("filled")
    land_pair(folder / "landing")
    load_all(folder / "landing", folder / "triage.duckdb")
    return folder


def read_everything() -> None:
    for (name,) in query_rows(EVERYTHING).rows:
        query_rows(f"FROM {name}")


@pytest.mark.parametrize("place", ["folder", "device", "csv", "text"])
def test_a_place_where_no_warehouse_can_be_is_refused_before_anything_is_written(place, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cases.csv").write_text("text,label\nmy chest hurts,ED\n")
    (tmp_path / "notes").write_text("mine")
    names = {
        "folder": tmp_path / "folder",
        "device": "/dev/null",
        "csv": tmp_path / "cases.csv",
        "text": tmp_path / "notes",
    }
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(names[place]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    for use in (refuse_unusable, read_everything, lambda: writing().__enter__()):
        with pytest.raises(BadInput, match=r"set TRIAGE_WAREHOUSE to a file.*\.$") as caught:
            use()
        assert "\n" not in str(caught.value)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize("name", ["/proc/triage.duckdb", "/proc/none/triage.duckdb", "/proc/version"])
def test_a_path_in_proc_is_refused_before_anything_runs(name, monkeypatch):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", name)
    with pytest.raises(BadInput, match="set TRIAGE_WAREHOUSE to a file"):
        refuse_unusable()


def test_a_tilde_is_the_users_folder_and_a_place_without_a_file_is_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", "~/new/triage.duckdb")
    assert warehouse_path() == tmp_path / "new" / "triage.duckdb"
    refuse_unusable()
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"


def test_a_name_that_is_too_long_is_refused_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / ("x" * 300 + ".duckdb")))
    with pytest.raises(BadInput, match="path that is too long"):
        refuse_unusable()


def damages() -> list[int]:
    """Places of a file of 100,000 bytes and more: its headers, and what is in its blocks."""
    return [0, 8, 13, 100, 4096, 8200, 12288, 12400, *random.Random(1).sample(range(13000, 60000), 4)]


@pytest.mark.parametrize("place", damages())
def test_one_flipped_bit_of_the_file_is_told_with_the_remedy(place, filled, monkeypatch, tmp_path):
    content = bytearray((filled / "triage.duckdb").read_bytes())
    content[place] ^= 4
    path = tmp_path / "triage.duckdb"
    path.write_bytes(content)
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(path))

    try:
        read_everything()
    except BadInput as error:
        assert str(error).startswith(str(path)) and str(error).endswith("triage warehouse rebuild.")
    else:
        assert place > 12400, "a block that holds nothing"


@pytest.mark.parametrize("content", [b"", b"DUCK", b"x" * 100_000])
def test_an_empty_or_a_foreign_file_in_its_place_is_told_with_the_remedy(content):
    warehouse_path().parent.mkdir(parents=True, exist_ok=True)
    warehouse_path().write_bytes(content)
    with pytest.raises(BadInput, match=DAMAGED):
        refuse_unusable()
    with pytest.raises(BadInput, match=DAMAGED), writing():
        pass


def test_damage_that_shows_while_results_are_loaded_is_told_with_the_remedy(filled):
    warehouse_path().parent.mkdir(parents=True, exist_ok=True)
    content = bytearray((filled / "triage.duckdb").read_bytes())
    content[12400] ^= 4
    warehouse_path().write_bytes(content)
    with pytest.raises(BadInput, match=DAMAGED):
        load_all(filled / "landing")


def test_a_query_that_speaks_of_damage_is_no_damaged_file(filled):
    with pytest.raises(BadInput, match="The query failed: Corrupt database file"):
        query_rows("SELECT error('Corrupt database file')", database=filled / "triage.duckdb")


def test_a_rebuild_replaces_a_damaged_file_and_keeps_it_under_another_name(filled):
    path = warehouse_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"damaged")
    Path(f"{path}.wal").write_bytes(b"log")
    report = rebuild(filled / "landing")
    assert report.aside is not None and report.aside.name.startswith("triage.duckdb.damaged-")
    assert report.aside.read_bytes() == b"damaged" and Path(f"{report.aside}.wal").read_bytes() == b"log"
    assert sorted(report.loaded) == ["e4", "e8", "t4", "t8"] and report.refused == {}

    with reading() as con:
        assert not any(run_audits(con).values())

    aside = report.aside.name
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {path.name, aside, f"{aside}.wal", f".{path.name}.rebuild.lock"}


def test_a_rebuild_waits_for_who_uses_the_file_and_then_leaves_it(filled, monkeypatch):
    load_all(filled / "landing")
    before = warehouse_path().read_bytes()

    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(warehouse_path())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline()
        with pytest.raises(Locked, match="is in use by another process"), unused(warehouse_path(), wait=0.2):
            pass

        monkeypatch.setattr("warehouse.rebuild.unused", lambda path: unused(path, wait=0.0))
        with pytest.raises(Locked):
            rebuild(filled / "landing")

        assert warehouse_path().read_bytes() == before
        threading.Timer(0.3, holder.stdin.close).start()
        with unused(warehouse_path(), wait=20):
            pass

    assert isinstance(rebuild(filled / "landing").aside, Path)


def test_no_other_process_opens_a_file_while_it_is_replaced(filled):
    load_all(filled / "landing")
    code = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=True)"
    with unused(warehouse_path()):
        result = subprocess.run([sys.executable, "-c", code, str(warehouse_path())], capture_output=True, text=True)
    assert result.returncode and "lock on file" in result.stderr
    assert duckdb.connect(str(warehouse_path()), read_only=True).execute("SELECT 1").fetchall() == [(1,)]
