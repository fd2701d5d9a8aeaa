"""The results of another machine, in landing folders and in packs: a pack that is damaged or newer is refused."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import MANIFEST, seal
from tests.published.write import write_pack
from tests.warehouse.rows import evaluation, land_arm, land_pair, training
from tests.warehouse.test_studies import land_dataset, land_sweep
from warehouse.landing import PACK, LandingManifest, folders_at, landing_folders, merge, unpack, write_landing
from warehouse.load import load_all
from warehouse.query import query


@pytest.fixture
def folders(tmp_path):
    """Another machine's, of four kinds, with tables of no row and of several."""
    land_pair(tmp_path / "folders")
    land_dataset(tmp_path / "folders", "d1", "sets-1")
    land_sweep(tmp_path / "folders", "pairs", ["t4", "t8", "e4", "e8"])
    return tmp_path / "folders"


@pytest.fixture
def pack(folders, tmp_path):
    write_pack(landing_folders(folders), tmp_path / "pack")
    return tmp_path / "pack"


def seal_again(folder, manifest):
    (folder / MANIFEST).unlink()
    seal(folder, manifest)


def digests(root):
    return {folder.name: LandingManifest.read(folder, deep=True).digest for folder in landing_folders(root)}


def test_results_of_another_machine_are_taken_over_and_what_is_here_stays(landing, tmp_path):
    other = tmp_path / "other" / "landing"
    land_pair(other)  # the same rows, but for one that differs
    write_landing(other, "e8", "evaluation", evaluation("e8", "t8", accuracy=0.6))
    land_arm(other, "9")
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

    seal_again(folder, {"id": "t9", "kind": "training" if newer == "column" else "prophecy"})
    merged = merge(other, landing)
    assert not (landing / "t9").exists()
    shutil.copytree(folder, landing / "t9")
    loaded = load_all(landing)
    assert len(loaded.unchanged) == 4
    sentence = "column 'novelty' of a newer version of triage; update triage."
    for report in (merged, loaded):
        assert report.skipped == ({"prophecy": 1} if newer == "kind" else {})
        assert [text.endswith(sentence) for text in report.refused.values()] == [True] * (newer == "column")


def test_the_same_folders_come_out_of_a_pack(folders, pack, tmp_path):
    unpack(pack, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(folders) and len(digests(folders)) == 6
    write_pack([folders / "t8"], pack)
    assert {path.name for path in pack.iterdir()} == {"experiment.parquet", "training_curve.parquet", MANIFEST}


def test_a_column_that_one_folder_lacks_is_null_for_it(folders, tmp_path):
    folder = folders / "t4"
    older = pq.read_table(folder / "experiment.parquet").drop_columns("machine")
    pq.write_table(older, folder / "experiment.parquet")
    seal_again(folder, {"id": "t4", "kind": "training"})

    write_pack([folder, folders / "t8"], tmp_path / "pack")
    unpack(tmp_path / "pack", tmp_path / "again")
    rows = [pq.read_table(tmp_path / "again" / id / "experiment.parquet") for id in ("t4", "t8")]
    assert rows[0]["machine"].to_pylist() == [None]
    landed = pq.read_table(folders / "t8" / "experiment.parquet")
    assert rows[1].select(landed.column_names).equals(landed)


@pytest.mark.parametrize("place", ["", "landing"])
def test_merge_takes_over_a_pack_and_leaves_nothing_aside(place, folders, tmp_path):
    source, target = tmp_path / "other", tmp_path / "here"
    write_pack(landing_folders(folders), source / place)
    with folders_at(source) as unpacked:
        aside = unpacked[0].parent
        assert len(unpacked) == 6
    assert not aside.exists()

    write_landing(target, "t8", "training", training("t8", 8))
    write_landing(target, "e8", "evaluation", evaluation("e8", "t8", accuracy=0.6))
    report = merge(source, target)
    assert (report.present, report.differing, report.refused, len(report.additions)) == (["t8"], ["e8"], {}, 4)


def test_an_id_that_names_another_folder_is_refused_and_nothing_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("my only copy")
    for number, id in enumerate((str(victim), "../victim", "a/b", "", ".hidden")):
        pack = tmp_path / f"pack{number}"
        pack.mkdir()
        pq.write_table(pa.table({"look_id": [id]}), pack / "look.parquet")
        seal(pack, {"kind": PACK})
        with pytest.raises(BadInput, match="cannot name a landing folder"):
            unpack(pack, tmp_path / "here")
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_taken_over_is_a_sentence(landing, pack, tmp_path):
    for place, sentence in ((tmp_path / "nowhere", "has no landing folders"), (landing.parent, "this machine's own")):
        with pytest.raises(BadInput, match=sentence):
            merge(place, landing)
    pq.write_table(pa.table({"id": ["x"]}), pack / "prophecy.parquet")
    seal_again(pack, {"kind": PACK})
    with pytest.raises(BrokenFolder, match="table 'prophecy', .* update triage"):
        merge(pack, tmp_path / "here")


@pytest.mark.parametrize("name", ["prediction.parquet", MANIFEST])
def test_of_a_pack_with_a_flipped_bit_nothing_is_taken_over(name, landing, pack):
    content = bytearray((pack / name).read_bytes())
    for place in (0, len(content) // 2):
        flipped = content.copy()
        flipped[place] ^= 1
        (pack / name).write_bytes(flipped)
        before = digests(landing)
        with pytest.raises(BrokenFolder, match=rf"{name} .*\. Nothing was taken over; get the folder again, in a"):
            merge(pack, landing)
        assert digests(landing) == before


def test_a_sweep_that_went_on_since_is_taken_over_again(tmp_path):
    """Another machine's, merged while it ran, and at its end."""
    there, here = tmp_path / "there", tmp_path / "here"
    for members, outcome in ((["t4"], "additions"), (["t4", "t8"], "additions"), (["t4", "t8"], "present"),
                             (["t4"], "differing")):  # fmt: skip
        land_sweep(there, "s", members)
        assert getattr(merge(there, here), outcome) == ["sweep-s-1"], "an earlier copy takes no place"
