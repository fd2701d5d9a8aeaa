"""Landing folders in a pack: the same folders come out, and a pack that is damaged or newer is refused."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import MANIFEST, seal
from tests.published.write import write_pack
from tests.warehouse.rows import evaluation, land_pair, training
from tests.warehouse.test_studies import land_dataset, land_sweep
from warehouse.landing import LandingManifest, landing_folders, write_landing
from warehouse.merge import PACK, folders_at, is_pack, merge, unpack


@pytest.fixture
def landing(tmp_path):
    """Folders of four kinds, with tables of no row and of several."""
    root = tmp_path / "landing"
    land_pair(root)
    land_dataset(root, "d1", "sets-1")
    land_sweep(root, "pairs", ["t4", "t8", "e4", "e8"])
    return root


@pytest.fixture
def pack(landing, tmp_path):
    write_pack(landing_folders(landing), tmp_path / "pack")
    return tmp_path / "pack"


def digests(root):
    return {folder.name: LandingManifest.read(folder, deep=True).digest for folder in landing_folders(root)}


def test_the_same_folders_come_out_of_a_pack(landing, pack, tmp_path):
    unpack(pack, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(landing) and len(digests(landing)) == 6


def test_a_pack_has_one_file_a_table_and_replaces_the_one_before(landing, pack):
    files = {path.name for path in pack.iterdir()}
    assert {"prediction.parquet", "experiment.parquet", MANIFEST} < files
    write_pack([landing / "t4"], pack)
    assert {path.name for path in pack.iterdir()} == {"experiment.parquet", "training_curve.parquet", MANIFEST}


def test_rows_of_the_same_case_stand_together(pack):
    ids = pq.read_table(pack / "prediction.parquet")["case_id"].to_pylist()
    assert ids[:4] == [ids[0], ids[0], ids[2], ids[2]] and ids[0] != ids[2]


def test_a_column_that_one_folder_lacks_is_null_for_it(landing, tmp_path):
    folder = landing / "t4"
    older = pq.read_table(folder / "experiment.parquet").drop_columns("machine")
    pq.write_table(older, folder / "experiment.parquet")
    (folder / MANIFEST).unlink()
    seal(folder, {"id": "t4", "kind": "training"})

    write_pack([folder, landing / "t8"], tmp_path / "pack")
    unpack(tmp_path / "pack", tmp_path / "again")
    rows = [pq.read_table(tmp_path / "again" / id / "experiment.parquet") for id in ("t4", "t8")]
    assert rows[0]["machine"].to_pylist() == [None]
    landed = pq.read_table(landing / "t8" / "experiment.parquet")
    assert rows[1].select(landed.column_names).equals(landed)


@pytest.mark.parametrize("place", ["", "landing"])
def test_merge_takes_over_a_pack_and_leaves_nothing_aside(place, landing, tmp_path):
    source = tmp_path / "other"
    write_pack(landing_folders(landing), source / place)
    with folders_at(source) as folders:
        aside = folders[0].parent
        assert len(folders) == 6
    assert not aside.exists()

    target = tmp_path / "here"
    write_landing(target, "t4", "training", training("t4"))
    write_landing(target, "e8", "evaluation", evaluation("e8", "t8", accuracy=0.6))
    report = merge(source, target)
    assert (report.present, report.differing, report.refused) == (["t4"], ["e8"], {})
    assert len(report.additions) == 4


def test_a_damaged_pack_names_its_file(pack, tmp_path):
    (pack / "gate.parquet").write_bytes(b"short")
    assert is_pack(pack)
    with pytest.raises(BrokenFolder, match=r"gate\.parquet is missing or has the wrong size"):
        merge(pack, tmp_path / "here")


def test_a_table_of_a_newer_version_is_a_sentence(pack, tmp_path):
    pq.write_table(pa.table({"id": ["x"]}), pack / "prophecy.parquet")
    (pack / MANIFEST).unlink()
    seal(pack, {"kind": PACK})
    with pytest.raises(BrokenFolder, match="table 'prophecy', which this version does not know; update triage"):
        merge(pack, tmp_path / "here")


@pytest.mark.parametrize("id", ["{}/victim", "../victim", "a/b", "", ".hidden"])
def test_an_id_that_names_another_folder_is_refused_and_nothing_is_replaced(id, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("my only copy")
    (tmp_path / "pack").mkdir()
    pq.write_table(pa.table({"look_id": [id.format(tmp_path)]}), tmp_path / "pack" / "look.parquet")
    seal(tmp_path / "pack", {"kind": PACK})

    with pytest.raises(BadInput, match="cannot name a landing folder"):
        unpack(tmp_path / "pack", tmp_path / "here")
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_no_landing_folder_is_not_packed(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(BrokenFolder, match="was never completed"):
        write_pack([tmp_path / "other"], tmp_path / "pack")
    with pytest.raises(BadInput, match="has no landing folders"):
        merge(tmp_path, tmp_path / "here")


def test_a_sweep_that_went_on_since_is_taken_over_again(tmp_path):
    """Another machine's, merged while it ran, and at its end."""
    there = tmp_path / "there"
    here = tmp_path / "here"
    land_sweep(there, "s", ["t4"])
    merge(there, here)
    land_sweep(there, "s", ["t4", "t8"])
    assert merge(there, here).additions == ["sweep-s-1"]
    assert merge(there, here).present == ["sweep-s-1"]

    land_sweep(there, "s", ["t4"])
    assert merge(there, here).differing == ["sweep-s-1"], "an earlier copy takes no place"
