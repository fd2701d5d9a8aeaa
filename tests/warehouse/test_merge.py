"""The results of another machine."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput
from tasks.runtime.store import Manifest, seal
from tests.warehouse.rows import evaluation, land_pair, training
from warehouse.landing import write_landing
from warehouse.load import load_all
from warehouse.merge import merge
from warehouse.query import query


@pytest.fixture
def landing(tmp_path):
    land_pair(tmp_path / "landing")
    load_all(tmp_path / "landing")
    return tmp_path / "landing"


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
def test_a_landing_of_a_newer_version_is_left_out_and_harms_no_other(newer, landing, tmp_path):
    other = tmp_path / "other"
    folder = write_landing(other, "t9", "training", training("t9"))
    if newer == "column":
        table = pq.read_table(folder / "experiment.parquet")
        pq.write_table(table.append_column("novelty", pa.array([1.0])), folder / "experiment.parquet")

    (folder / "manifest.json").unlink()
    seal(folder, {"id": "t9", "kind": "training" if newer == "column" else "prophecy"})
    merged = merge(other, landing)
    assert not (landing / "t9").exists()
    shutil.copytree(folder, landing / "t9")
    loaded = load_all(landing)
    assert len(loaded.unchanged) == 4

    for report in (merged, loaded):
        if newer == "kind":
            assert (report.skipped, report.refused) == ({"prophecy": 1}, {})
        else:
            sentence = "column 'novelty' of a newer version of triage; update triage."
            assert report.refused["t9"].endswith(sentence) and not report.skipped
    assert Manifest.read(landing / "t4", deep=True)


def test_a_folder_without_landing_folders_or_this_machines_own_is_a_sentence(landing, tmp_path):
    with pytest.raises(BadInput, match="has no landing folders; name the other machine's home"):
        merge(tmp_path / "nowhere", landing)
    with pytest.raises(BadInput, match="is this machine's own"):
        merge(landing.parent, landing)
