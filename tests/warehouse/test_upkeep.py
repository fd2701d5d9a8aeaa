"""Upkeep: a copy of the warehouse for others, and the results of another machine."""

from __future__ import annotations

import csv
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput
from tasks.runtime.store import Manifest, seal
from tests.warehouse.rows import evaluation, land_pair, training
from warehouse.connect import warehouse_path
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.merge import merge
from warehouse.publish import publish
from warehouse.query import query


@pytest.fixture
def landing(tmp_path):
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing")
    return tmp_path / "landing"


def test_a_published_copy_gives_the_same_figures_in_plain_duckdb_parquet_and_csv(landing, tmp_path):
    copy = publish(tmp_path / "it's mine").folder
    sql = "SELECT evaluation_4bit, accuracy_diff, accuracy_low FROM quantization_comparison"
    own_value = query(sql).values.tolist()

    with duckdb.connect(str(copy / "triage.duckdb"), read_only=True) as con:
        assert [list(row) for row in con.execute(sql).fetchall()] == own_value
        assert con.execute("SELECT count(*) FROM leaderboard_of(['e4'])").fetchall() == [(1,)]
        tables = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}

    assert {file.stem for file in (copy / "parquet").iterdir()} == tables
    assert pq.read_table(copy / "parquet" / "prediction.parquet").num_rows == 10
    with (copy / "csv" / "leaderboard.csv").open() as file:
        assert [row["evaluation_id"] for row in csv.DictReader(file)] == query("FROM leaderboard")[
            "evaluation_id"
        ].tolist()

    with (copy / "data_dictionary.csv").open() as file:
        meanings = {(row["table"], row["column"]): row["meaning"] for row in csv.DictReader(file)}

    assert all(meanings.values()) and ("leaderboard", "studies") in meanings
    assert "#### leaderboard" in (copy / "README.md").read_text()
    assert not (copy / "triage.duckdb").stat().st_mode & 0o222


def test_a_copy_takes_no_folder_that_is_there_and_leaves_nothing_half_done(landing, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="is there already; name a new folder"):
        publish(landing)

    monkeypatch.setattr("warehouse.publish._write_dictionary", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "new")

    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".tmp-*"))
    warehouse_path().unlink()
    with pytest.raises(BadInput, match="There is no warehouse yet"):
        publish(tmp_path / "new")


def test_results_of_another_machine_are_taken_over_and_what_is_here_stays(landing, tmp_path):
    other = tmp_path / "other" / "landing"
    land_pair(other)  # the same rows, but for one that differs
    write_landing(other, "e8", "evaluation", evaluation("e8", "t8", accuracy=0.6))
    write_landing(other, "t9", "training", training("t9"))
    write_landing(other, "e9", "evaluation", evaluation("e9", "t9"))
    write_landing(other, "t7", "training", training("t7"))
    write_landing(landing, "t7", "training", training("t7", status="failed", error="The disk is full."))
    (other / "e9" / "gate.parquet").write_bytes(b"short")

    report = merge(tmp_path / "other", landing)
    assert (report.additions, report.present, report.differing) == (["t7", "t9"], ["e4", "t4", "t8"], ["e8"])
    assert list(report.refused) == ["e9"] and "gate.parquet" in report.refused["e9"]
    load_all(landing)
    rows = query("SELECT training_id, status FROM experiment ORDER BY 1").values.tolist()
    assert rows == [["t4", "completed"], ["t7", "completed"], ["t8", "completed"], ["t9", "completed"]]
    assert merge(other, landing).additions == []


@pytest.mark.parametrize("newer", ["column", "kind"])
def test_a_landing_of_a_newer_version_is_refused_in_a_sentence_and_harms_no_other(newer, landing, tmp_path):
    other = tmp_path / "other"
    folder = write_landing(other, "t9", "training", training("t9"))
    if newer == "column":
        table = pq.read_table(folder / "experiment.parquet")
        pq.write_table(table.append_column("novelty", pa.array([1.0])), folder / "experiment.parquet")

    (folder / "manifest.json").unlink()
    seal(folder, {"id": "t9", "kind": "training" if newer == "column" else "prophecy"})
    sentence = (
        "column 'novelty' of a newer version of triage; update triage." if newer == "column" else "update triage."
    )

    assert merge(other, landing).refused["t9"].endswith(sentence)
    assert not (landing / "t9").exists()
    shutil.copytree(folder, landing / "t9")
    result = load_all(landing)
    assert result.refused["t9"].endswith(sentence) and len(result.unchanged) == 4
    assert Manifest.read(landing / "t4", deep=True)


def test_a_folder_without_landing_folders_or_this_machines_own_is_a_sentence(landing, tmp_path):
    with pytest.raises(BadInput, match="has no landing folders; name the other machine's home"):
        merge(tmp_path / "nowhere", landing)
    with pytest.raises(BadInput, match="is this machine's own"):
        merge(landing.parent, landing)
