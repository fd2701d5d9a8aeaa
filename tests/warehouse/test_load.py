import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import duckdb
import pytest

from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import seal
from tests.forked import run_forked
from tests.warehouse.rows import FIVE, evaluation, land_pair, load_landing, load_pair, training
from warehouse.comparison import pairs
from warehouse.connect import reading, warehouse_path, writing
from warehouse.fill import fill
from warehouse.landing import LandingManifest, landing_folders, write_landing
from warehouse.load import load_all, load_landings
from warehouse.query import query_rows
from warehouse.rebuild import current
from warehouse.schema import FACTS

WORSE = [(a, b, a) for a, b, _ in FIVE] * 4


def contents(database=None):
    """Every row of every table, but for the time of loading and what made the file."""
    with reading(database) as con:
        names = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {
            name: sorted(map(repr, con.sql(f"SELECT * {without} FROM {name}").fetchall()))
            for name in names
            for without in ["EXCLUDE (loaded_at)" if name == "landed" else ""]
            if name not in ("schema_migrations", "claim")
        }


def test_rows_in_are_rows_out_loading_again_does_nothing_and_new_content_leaves_no_stale_row(tmp_path):
    rows = evaluation("e1", "t1")
    folder = write_landing(tmp_path, "e1", "evaluation", rows)
    assert load_landing(folder)
    for name in FACTS["evaluation"].tables:
        loaded = query_rows(f"FROM {name}").rows
        assert sorted(map(repr, loaded)) == sorted(repr(tuple(row.values())) for row in rows.get(name, []))
    landed = query_rows("FROM landed").rows
    assert not load_landing(folder)
    assert query_rows("FROM landed").rows == landed

    load_landing(write_landing(tmp_path, "e2", "evaluation", evaluation("e2", "t1")))
    assert load_landing(write_landing(tmp_path, "e1", "evaluation", evaluation("e1", "t1", FIVE[:3])))
    counts = query_rows("SELECT evaluation_id, count(*) FROM prediction GROUP BY 1 ORDER BY 1")
    assert counts.rows == [("e1", 3), ("e2", 5)]


def test_what_was_seen_to_be_loaded_is_not_looked_for_again_until_the_file_changes(tmp_path, monkeypatch):
    folder = write_landing(tmp_path / "landing", "e1", "evaluation", evaluation("e1", "t1"))
    assert load_landing(folder)
    with monkeypatch.context() as closed:
        closed.setattr("warehouse.load.current", None)
        assert not load_landing(folder)
    with duckdb.connect(str(warehouse_path())) as other:
        other.execute("UPDATE landed SET manifest_digest = 0")
    assert load_landing(folder), "another program has written the file"
    warehouse_path().unlink()
    assert load_landing(folder) and not load_landing(folder)


def test_of_landings_loaded_together_what_is_before_a_refused_one_stays_and_a_damaged_one_stops_all(
    tmp_path, monkeypatch
):
    """Of the refused one the old rows stay."""
    monkeypatch.setattr("warehouse.landing.check", lambda landing: None)
    load_landing(write_landing(tmp_path, "e1", "evaluation", evaluation("e1", "t1")))
    before = contents()
    rows = evaluation("e1", "t1", FIVE[:3])
    rows["gate"][0]["state"] = "MAYBE"
    refused = write_landing(tmp_path, "e1", "evaluation", rows)
    with pytest.raises(BadInput, match="e1: Table gate refuses a row"):
        load_landings([write_landing(tmp_path, "t1", "training", training("t1")), refused])

    (refused / "metric.parquet").write_bytes(b"short")
    with pytest.raises(BrokenFolder):
        load_landings([write_landing(tmp_path, "t2", "training", training("t2")), refused])

    after = contents()
    assert query_rows("SELECT id FROM landed ORDER BY 1").rows == [("e1",), ("t1",)]
    assert all(after[name] == before[name] for name in FACTS["evaluation"].tables)


def test_a_broken_folder_is_refused_one_of_an_unknown_kind_is_counted_and_neither_stops_the_others(tmp_path):
    land_pair(tmp_path)
    (tmp_path / "e4" / "metric.parquet").write_bytes(b"short")
    (tmp_path / "half").mkdir()
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    shutil.copytree(tmp_path / "t4", tmp_path / "renamed")
    (tmp_path / "p1").mkdir()
    seal(tmp_path / "p1", {"id": "p1", "kind": "prophecy"})

    with pytest.raises(BrokenFolder):
        load_landing(tmp_path / "e4")
    assert load_landings([tmp_path / "p1", tmp_path / "t4"]) == ["t4"]

    result = load_all(tmp_path)
    assert (sorted(result.loaded), sorted(result.refused)) == (["e8", "t8"], ["e4", "odd", "renamed"])
    assert "metric.parquet" in result.refused["e4"] and result.skipped == {"prophecy": 1}


def test_a_row_that_stands_twice_is_refused_though_no_index_does_it(tmp_path, monkeypatch):
    monkeypatch.setattr("warehouse.landing.check", lambda landing: None)
    monkeypatch.setattr("warehouse.landing.refuse_equal_keys", lambda *_: None)
    for table in ("prediction", "metric", "net_benefit"):
        rows = evaluation("e1", "t1")
        rows[table] += rows[table][:1]
        with pytest.raises(BadInput, match=rf"Table {table} .*evaluation_id, .* = e1, .* is there twice"):
            load_landing(write_landing(tmp_path, "e1", "evaluation", rows))


def test_neither_the_order_of_loading_nor_that_of_rows_nor_loading_together_matters(tmp_path):
    land_pair(tmp_path / "landing", WORSE, FIVE * 4)
    databases = []
    for number, order in enumerate(list(itertools.permutations(["t4", "e4", "t8", "e8"]))[5::12]):
        databases.append(tmp_path / f"{number}.duckdb")
        for id in order:
            load_landing(tmp_path / "landing" / id, databases[-1])

    databases.append(tmp_path / "together.duckdb")
    folders = landing_folders(tmp_path / "landing")
    assert load_landings(folders, databases[-1]) == ["e4", "e8", "t4", "t8"]
    assert load_landings(folders, databases[-1]) == []
    tables = contents(databases[-1])
    assert len(tables["pair_metric"]) == 2 * 6 + 2, "six figures by each rule, the AUROC and the loss"
    assert all(contents(database) == tables for database in databases)

    rows = evaluation("e4", "t4", WORSE)
    rows["prediction"].reverse()
    write_landing(tmp_path / "landing", "e4", "evaluation", rows)
    load_all(tmp_path / "landing", tmp_path / "reversed.duckdb")
    assert contents(tmp_path / "reversed.duckdb")["pair_metric"] == tables["pair_metric"]


def test_a_pair_follows_its_newest_sides_and_goes_when_both_are_judged_again_or_one_stops_matching(tmp_path):
    """What was the newest keeps its figures: a sweep that asks for it again shows them."""
    load_pair(tmp_path)

    def land(id, kind, rows):
        load_landing(write_landing(tmp_path, id, kind, rows))

    def pairs(only="SEMI JOIN matched_pair USING (evaluation_4bit, evaluation_8bit)"):
        return query_rows(f"SELECT DISTINCT evaluation_4bit, evaluation_8bit FROM pair_metric {only} ORDER BY ALL").rows

    assert pairs() == pairs(only="") == [("e4", "e8")]
    land("t4b", "training", training("t4b", 4, day=9))
    land("e4b", "evaluation", evaluation("e4b", "t4b"))
    assert pairs() == [("e4b", "e8")] and pairs(only="") == [("e4", "e8"), ("e4b", "e8")]
    for id, training_id in (("e4b", "t4b"), ("e8", "t8")):
        again = evaluation(f"{id}-again", training_id, scores_id=id, scoring_version=99)
        land(f"{id}-again", "evaluation", again)
    assert pairs() == [("e4b-again", "e8-again")]
    land("t8", "training", training("t8", 8, status="failed", error="out of disk"))
    assert pairs() == pairs(only="") == []


def test_the_figures_of_a_pair_are_of_what_is_loaded_whatever_became_of_the_landing_folder(tmp_path):
    root = tmp_path / "landing"
    land_pair(root, WORSE, FIVE * 4)
    load_landings([root / id for id in ("t8", "e8", "t4")], tmp_path / "w.duckdb")
    shutil.copy(tmp_path / "w.duckdb", tmp_path / "whole.duckdb")
    load_landing(root / "e4", tmp_path / "whole.duckdb")
    figures = contents(tmp_path / "whole.duckdb")["pair_metric"]
    with writing(tmp_path / "whole.duckdb") as con:
        con.execute("DELETE FROM pair_metric")
        pairs.refresh(con)
    assert contents(tmp_path / "whole.duckdb")["pair_metric"] == figures, "from the tables alone"

    write_landing(root, "e8", "evaluation", evaluation("e8", "t8", [("ED", "GP", "GP")] * 20))
    load_landing(root / "e4", tmp_path / "w.duckdb")
    assert contents(tmp_path / "w.duckdb")["pair_metric"] == figures


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def load_and_die() -> None:
    """In a process of its own: load a folder, and be killed before or after the commit."""
    folder = Path(sys.argv[1])
    if sys.argv[2] == "before commit":
        pairs.refresh = die
    with current() as con:
        fill(con, folder, LandingManifest.read(folder, deep=True))
        die()


def test_a_loader_killed_by_signal_9_leaves_all_of_a_folder_or_nothing(tmp_path):
    def killed(when):
        return run_forked(load_and_die, [str(folder), when], tmp_path, dict(os.environ), 60).returncode

    cases = "SELECT count(*), any_value(cases) FROM prediction, evaluation"
    folder = write_landing(tmp_path, "e1", "evaluation", evaluation("e1", "t1"))
    assert killed("before commit") == -signal.SIGKILL
    assert load_landing(folder), "a kill in the first load ever"
    write_landing(tmp_path, "e1", "evaluation", evaluation("e1", "t1", FIVE[:3]))
    assert killed("before commit") == -signal.SIGKILL and query_rows(cases).rows == [(5, 5)]
    assert killed("after commit") == -signal.SIGKILL and query_rows(cases).rows == [(3, 3)]
    assert not load_landing(folder)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["triage.duckdb"]
