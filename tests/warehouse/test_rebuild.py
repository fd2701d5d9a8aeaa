"""A warehouse is derived: one with other tables is built again from the landing folders, and nothing that it alone holds
is lost."""

import itertools
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput, Locked, TriageError
from tasks.runtime.store import seal
from tests.forked import run_forked
from tests.warehouse.rows import assert_sound, evaluation, load_landing, training
from tests.warehouse.test_load import contents, die
from tests.warehouse.test_waiting import held_warehouse
from warehouse import rebuild as rebuilding
from warehouse.connect import reading, unused, warehouse_path, writing
from warehouse.health import bring_up_to_date, examine
from warehouse.landing import landing_folders, write_landing
from warehouse.load import load_all
from warehouse.query import query_rows
from warehouse.rebuild import current, rebuild
from warehouse.schema import FACTS, TABLES, digests


def make_older(path: Path | None = None) -> None:
    """As an earlier version left it: numbered migrations, and a table that has left."""
    with writing(path) as con:
        con.execute("DELETE FROM schema_migrations")
        con.execute(
            "INSERT INTO schema_migrations VALUES (1, '0001_bookkeeping', 'x', '2026-01-01', 'x'), "
            "(144, '0144_pairs_anew', 'x', '2026-01-01', 'x')"
        )
        con.execute("CREATE TABLE claim (claim VARCHAR)")


def kept_files() -> list[Path]:
    return sorted(warehouse_path().parent.glob("triage.duckdb.*-*[0-9]"))


def test_a_file_with_other_tables_is_built_again_by_a_load_with_identical_tables_and_nothing_is_left_beside_it(
    landing, capfd
):
    before = contents()
    make_older()
    with writing() as con:
        con.execute("DELETE FROM prediction")
    assert examine(warehouse_path()) is None, "a look changes nothing"
    load_all(landing)
    assert contents() == before
    files = {path.name for path in warehouse_path().parent.iterdir()}
    assert files == {"landing", "triage.duckdb", ".triage.duckdb.rebuild.lock"}
    assert "Another version made the tables" in capfd.readouterr().err
    assert_sound()
    load_all(landing)
    assert capfd.readouterr().err == "", "once"


def test_results_without_a_landing_folder_become_landing_folders_and_the_old_file_is_kept(landing, capfd):
    """A warehouse may hold the results of several homes, and precisions were named by the loader before they had a
    column."""
    before = contents()
    make_older()
    for id in ("t8", "e8"):
        shutil.rmtree(landing / id)
    path = landing / "t4" / "experiment.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["precision"]), path)
    (landing / "t4" / "manifest.json").unlink()
    seal(landing / "t4", {"kind": "training", "id": "t4"})
    bring_up_to_date()

    assert contents() == before, "the folders are those that were there, byte for byte"
    assert [folder.name for folder in landing_folders(landing)] == ["e4", "e8", "t4", "t8"]
    (kept,) = kept_files()
    of_facts = [row for fact in FACTS.values() for name in fact.tables for row in before[name]]
    rows = sum(row.startswith(("('t4'", "('t8'", "('e8'")) for row in of_facts)
    said = capfd.readouterr().err
    assert "written as one first: 3." in said
    assert f"no landing folder of this version had {rows} of its rows: {kept}" in said


def test_a_warehouse_without_any_landing_folder_is_kept_and_loses_nothing(landing):
    make_older()
    with writing() as con:
        con.execute("ALTER TABLE training_curve DROP COLUMN macro_f1")
    before = contents()
    shutil.rmtree(landing)
    bring_up_to_date()
    after = contents()
    assert len(kept_files()) == 1
    assert {name for name in before if before[name] != after[name]} == {"training_curve", "landed"}
    assert [row.replace(", None)", ")") for row in after["training_curve"]] == before["training_curve"]


def test_the_old_file_is_kept_while_it_holds_what_the_new_one_lacks(landing):
    """Rows of a table that left, or a landing whose folder is damaged; one that was landed again since is the folder's."""
    make_older()
    with writing() as con:
        con.execute("INSERT INTO claim VALUES ('it is safe')")
    report = rebuild(landing)
    assert report.kept in kept_files() and report.refused == {} and report.rows == 1
    assert any("had 1 of its rows" in text for text in report.sentences())

    make_older()
    write_landing(landing, "e8", "evaluation", evaluation("e8", "t8", accuracy=0.6))
    bring_up_to_date()
    assert query_rows("SELECT accuracy FROM evaluation WHERE evaluation_id = 'e8'").rows == [(0.6,)]
    assert kept_files() == [report.kept]

    make_older()
    (landing / "e8" / "metric.parquet").write_bytes(b"short")
    report = rebuild(landing)
    assert report.kept in kept_files() and list(report.refused) == ["e8"]


def rebuild_and_die() -> None:
    """In a process of its own: rebuild, and be killed before or after the new file takes the place of the old one."""
    replace = rebuilding._replace
    rebuilding._replace = die if sys.argv[1] == "before" else lambda *names: die(replace(*names))
    rebuild(Path(sys.argv[2]))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rebuild_killed_by_signal_9_leaves_a_whole_file_and_the_next_one_ends_it(when, landing, tmp_path):
    before = contents()
    make_older()
    killed = run_forked(rebuild_and_die, [when, str(landing)], tmp_path, dict(os.environ), 60)
    assert killed.returncode == -signal.SIGKILL
    with reading() as con:
        assert (con.execute("SELECT max(version) FROM schema_migrations").fetchone() == (144,)) == (when == "before")
        assert con.execute("SELECT count(*) FROM prediction").fetchone() == (10,)
    bring_up_to_date()
    assert contents() == before and not list(warehouse_path().parent.glob(".*.rebuild"))


def test_where_the_disk_is_full_at_last_the_sound_file_stays(landing, monkeypatch):
    before = contents()
    fills = [rebuilding._fill]

    def fill(*args):
        if not fills:
            raise BadInput("The disk is full.")
        return fills.pop()(*args)

    monkeypatch.setattr(rebuilding, "_fill", fill)
    with pytest.raises(TriageError, match="The disk is full"):
        rebuild(landing)
    assert contents() == before and not list(warehouse_path().parent.glob("*.damaged-*"))


def test_a_rebuild_loads_in_the_order_of_landing(tmp_path, monkeypatch):
    """As `triage sweep --failed` and `triage status` ask: which run of a cell was the last one?"""
    moments = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute) for minute in itertools.count())
    monkeypatch.setattr("tasks.runtime.store.datetime", SimpleNamespace(now=lambda _: next(moments)))
    for id in ("t-z", "t-a", "t-m"):
        write_landing(tmp_path / "landing", id, "training", training(id, cell_id="cell"))
    rebuild(tmp_path / "landing")
    assert query_rows("SELECT id FROM landed ORDER BY loaded_at").rows == [("t-z",), ("t-a",), ("t-m",)]


def test_what_lands_during_a_rebuild_is_in_the_new_warehouse_and_a_second_one_is_refused(landing, monkeypatch):
    real = rebuilding.fill_part

    def fill_and_land(*arguments):
        real(*arguments)
        if not (landing / "t-later").exists():
            write_landing(landing, "t-later", "training", training("t-later", cell_id="later"))
            load_landing(landing / "t-later")
            with pytest.raises(Locked, match="Another process builds .* again"):
                rebuild(landing)

    monkeypatch.setattr(rebuilding, "fill_part", fill_and_land)
    (landing / "p1").mkdir()
    seal(landing / "p1", {"id": "p1", "kind": "prophecy"})
    report = rebuild(landing)
    assert (report.loaded[-1], report.kept, report.skipped) == ("t-later", None, {"prophecy": 1})
    assert report.sentences() == ["Skipped, since this version does not know the kind prophecy: 1."]
    assert query_rows("SELECT count(*) FROM experiment WHERE training_id = 't-later'").rows == [(1,)]


def open_current() -> None:
    with current(wait=300):
        pass


def test_processes_that_open_an_older_file_at_once_build_it_once_and_all_of_them_end_well(landing, tmp_path):
    before = contents()
    make_older()
    with rebuilding._one_rebuild(warehouse_path(), 0.0), pytest.raises(Locked, match="Another process builds"):
        load_all(landing, wait=0.1)

    def opened(name: str):
        (tmp_path / name).mkdir()
        return run_forked(open_current, [], tmp_path / name, dict(os.environ), 300)

    with ThreadPoolExecutor(2) as pool:
        processes = list(pool.map(opened, "ab"))
    assert [process.returncode for process in processes] == [0, 0], processes
    assert sum("it is built again" in process.stderr for process in processes) == 1
    assert contents() == before


def test_a_damaged_file_is_replaced_and_kept_with_its_log(landing):
    path = warehouse_path()
    path.write_bytes(b"damaged")
    Path(f"{path}.wal").write_bytes(b"log")
    report = rebuild(landing)
    assert report.kept is not None and report.kept.name.startswith("triage.duckdb.damaged-")
    assert report.kept.read_bytes() == b"damaged" and Path(f"{report.kept}.wal").read_bytes() == b"log"
    assert sorted(report.loaded) == ["e4", "e8", "t4", "t8"] and report.refused == {}
    assert report.rows is None and report.sentences() == [f"The old file is damaged and kept: {report.kept}"]
    assert_sound()
    recorded = query_rows("SELECT sha256 FROM schema_migrations WHERE version = $tables", {"tables": TABLES})
    assert recorded.rows == [(digests()[TABLES],)]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_rebuild_is_refused_while_another_uses_the_file_and_leaves_it_as_it_is(is_damaged, landing, monkeypatch):
    def read(path, *_):
        if is_damaged:
            raise BadInput("damaged")
        return reading(path, 0.1)

    monkeypatch.setattr(rebuilding, "reading", read)
    monkeypatch.setattr(rebuilding, "unused", lambda path: unused(path, wait=0.1))
    before = warehouse_path().read_bytes()
    with held_warehouse("writing"), pytest.raises(Locked, match="is in use by"):
        rebuild(landing)
    assert warehouse_path().read_bytes() == before
    assert (rebuild(landing).kept is not None) == is_damaged
