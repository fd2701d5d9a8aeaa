"""What machines share: a real folder and fsspec's memory, in the order in which two machines come by."""

import errno
import json
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from tasks import landing as landing_module
from tasks.corpus.case import SETS
from tasks.identity import INGREDIENTS
from tasks.landing import is_landed, land_together, landed_status, share_the_rest, take_over
from tasks.runtime import shared as shared_module
from tasks.runtime.errors import BadInput, BrokenFolder, NotShared
from tasks.runtime.events import StepWarning
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.shared import SharedFolder, bring_adapter, share_adapter, shared_folder
from tasks.runtime.store import MANIFEST, read_manifest, seal, verify
from tests.warehouse.rows import evaluation, training
from warehouse.connect import reading

DATASET = "dataset-0123456789ab"
DATA = Path("cases")  # which only an adapter needs


@pytest.fixture(params=["file", "memory"])
def shared(request, tmp_path, monkeypatch) -> SharedFolder:
    """An empty place, as TRIAGE_SHARED names it."""
    name = f"/shared-{tmp_path.name}-{os.urandom(4).hex()}"
    url = str(tmp_path / "mount é 1") if request.param == "file" else f"memory:/{name}"
    monkeypatch.setenv("TRIAGE_SHARED", url)
    outcome = shared_folder()
    assert outcome is not None and request.param in outcome.fs.protocol
    return outcome


@pytest.fixture
def mounted(tmp_path, monkeypatch) -> SharedFolder:
    """An empty mounted folder."""
    monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / "mount"))
    return shared_folder()


def sealed(folder: Path, text: str, **extra: object) -> Path:
    (folder / "below").mkdir(parents=True)
    (folder / "figures.txt").write_text(text)
    (folder / "below" / "more.txt").write_text("more")
    seal(folder, extra)
    return folder


@pytest.fixture
def ours(tmp_path) -> Path:
    return sealed(tmp_path / "a", "ours")


def test_a_folder_comes_back_as_it_was_and_the_first_version_stays(shared, tmp_path, ours):
    theirs = sealed(tmp_path / "b", "theirs")
    assert shared.manifest("x/1") is None and not shared.get("x/1", tmp_path / "none")
    digest = shared.put(ours, "x/1")["digest"]
    assert shared.put(theirs, "x/1")["digest"] == digest, "the first manifest wins"
    assert shared.get("x/1", theirs) and (theirs / "figures.txt").read_text() == "ours"
    assert verify(theirs) == verify(ours)


def test_two_machines_that_write_at_once_leave_one_whole_version(shared, tmp_path, monkeypatch, ours):
    theirs = sealed(tmp_path / "b", "theirs")

    def overtaken(folder, deep):
        monkeypatch.setattr(shared_module, "verify", verify)
        shared.put(theirs, "x/1")  # between our look and our files
        return verify(folder, deep)

    monkeypatch.setattr(shared_module, "verify", overtaken)
    assert shared.put(ours, "x/1")["digest"] == read_manifest(theirs)["digest"]
    assert shared.get("x/1", tmp_path / "c") and (tmp_path / "c" / "figures.txt").read_text() == "theirs"


def test_a_manifest_that_was_never_finished_is_written_again(shared, tmp_path, monkeypatch, ours):
    monkeypatch.setattr(shared_module, "READ_SECONDS", 0)
    shared.put(ours, "x/1")
    shared.fs.pipe_file(f"{shared.root}/x/1/{MANIFEST}", b'{"digest": "12')
    assert shared.manifest("x/1") is None
    assert shared.put(ours, "x/1") == read_manifest(ours) == shared.manifest("x/1")


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_version_that_is_damaged_or_lacks_a_file_no_longer_counts(shared, tmp_path, is_lost, ours):
    file = f"x/1/{shared.put(ours, 'x/1')['digest'][:12]}/figures.txt"
    shared.remove(file) if is_lost else shared.fs.pipe_file(f"{shared.root}/{file}", b"OURS")

    with pytest.raises(BrokenFolder, match="x/1 is damaged .* no longer counts"):
        shared.get("x/1", tmp_path / "b")

    assert not (tmp_path / "b").exists() and list(tmp_path.glob("*.tmp*")) == []
    assert shared.manifest("x/1") is None, "so that it can be put there again"
    shared.put(ours, "x/1")
    assert shared.get("x/1", tmp_path / "b") and verify(tmp_path / "b")


@pytest.mark.parametrize("name", ["../../outside.txt", "{}/outside.txt", "below/../../outside.txt"])
def test_a_manifest_writes_no_file_outside_its_folder(shared, tmp_path, name, ours):
    manifest = shared.put(ours, "x/1")
    manifest["files"][name.format(tmp_path)] = manifest["files"]["figures.txt"]
    shared.fs.pipe_file(f"{shared.root}/x/1/{MANIFEST}", json.dumps(manifest).encode())

    with pytest.raises(BrokenFolder, match="is damaged .*names a file outside"):
        shared.get("x/1", tmp_path / "home" / "landing" / "b")
    assert list(tmp_path.rglob("outside.txt")) == []


def test_a_password_stands_in_no_sentence_and_no_mark(monkeypatch):
    monkeypatch.setenv("TRIAGE_SHARED", "ftp://ann:SECRET@127.0.0.1:9/lab")
    with pytest.raises((BadInput, NotShared)) as caught:
        shared_folder().manifest("x/1")
    assert "SECRET" not in str(caught.value) and "127.0.0.1:9/lab" in str(caught.value)
    monkeypatch.setenv("TRIAGE_SHARED", "memory://ann:SECRET@nas/lab")
    assert shared_folder().url == "memory://nas/lab"


class NoCredentialsError(Exception):
    """As the library of an object store raises it: none of Python's own errors."""


class Refusing(LocalFileSystem):
    """A mounted folder that refuses to be written."""

    reason: Exception = OSError()

    def put_file(self, *args, **options):
        raise self.reason


@pytest.mark.parametrize("reason", [OSError(errno.ENOSPC, "No space"), NoCredentialsError("Unable to locate")])
def test_a_place_that_refuses_is_a_sentence(tmp_path, monkeypatch, reason):
    monkeypatch.setattr(Refusing, "reason", reason)
    refusing = SharedFolder(Refusing(), str(tmp_path / "mount"), "/mount")
    words = f"shared folder /mount cannot be used .*{type(reason).__name__}: .*; check that .* Nothing is lost"
    with pytest.raises(NotShared, match=words) as caught:
        refusing.put(sealed(tmp_path / "a", "ours"), "x/1")
    assert caught.value.transient and refusing.manifest("x/1") is None


def test_what_cannot_be_shared_has_landed_here_and_is_copied_later_to_whichever_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / "mount"))
    monkeypatch.setattr(Refusing, "reason", OSError(errno.ENOSPC, ""))
    refusing = SharedFolder(Refusing(), str(tmp_path / "mount"), "/mount")
    with monkeypatch.context() as patch, pytest.raises(NotShared):
        patch.setattr(landing_module, "shared_folder", lambda: refusing)
        land("fresh")

    assert landed_names() == ["fresh"]
    for name in ("mount", "another"):
        monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / name))
        share_the_rest()
        assert shared_folder().manifest(f"landing/{DATASET}") is not None

    away = SharedFolder(None, "", str(tmp_path / "another"))  # which even to ask is an error
    monkeypatch.setattr(landing_module, "shared_folder", lambda: away)
    share_the_rest()


@pytest.mark.parametrize("url", ["bogus://a/b", "s3://bucket/a", "~no-such-user/lab"])
def test_an_address_that_no_library_reads_is_a_sentence(monkeypatch, url):
    monkeypatch.setenv("TRIAGE_SHARED", url)
    with pytest.raises(BadInput, match=f"TRIAGE_SHARED={url} cannot be used .*library is installed."):
        shared_folder()


# --- landing ------------------------------------------------------------------------------------


def land(name: str) -> None:
    """A dataset whose figures are made up; only its name and digest count here."""
    row = dict.fromkeys(landing_module.known_tables()["dataset"].names)
    sizes = {column: 1 for column in row if column.endswith("_cases")}
    row |= sizes | {
        "dataset_id": DATASET, "dataset_digest": "0", "dataset": name, "sets_digest": "0", "is_embedded": True,
        "seed": 1, "further_sets": 0,
    }  # fmt: skip
    land_together([(DATASET, "dataset", {"dataset": [row], "dataset_set": []})])


def landed_names() -> list[str]:
    with reading() as con:
        return [name for (name,) in con.execute("SELECT dataset FROM dataset").fetchall()]


def another_home(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / name))
    monkeypatch.setenv("TRIAGE_WAREHOUSE", str(tmp_path / name / "triage.duckdb"))


def test_what_one_machine_lands_another_has_and_the_later_version_gives_way(mounted, tmp_path, monkeypatch):
    assert not is_landed(DATASET)
    land("first")
    another_home(monkeypatch, tmp_path, "second")
    land("second")
    assert landed_names() == ["first"], "once, and the same on both machines"

    another_home(monkeypatch, tmp_path, "third")
    assert is_landed(DATASET) and landed_names() == ["first"], "nothing is computed again"
    another_home(monkeypatch, tmp_path, "asks")
    take_over([DATASET], DATA)
    assert landed_names() == ["first"]


def damage(folder: Path) -> None:
    (file,) = folder.rglob("dataset.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def test_what_is_damaged_is_brought_again_or_put_there_again_by_the_machine_that_has_it(tmp_path, monkeypatch):
    place = tmp_path / "mount"
    monkeypatch.setenv("TRIAGE_SHARED", str(place))
    land("first")
    another_home(monkeypatch, tmp_path, "asks")
    take_over([DATASET], DATA)
    landed = tmp_path / "asks" / "landing" / DATASET
    damage(landed)
    take_over([DATASET], DATA)
    assert verify(landed), "its own copy was damaged"

    damage(place / "landing" / DATASET)
    damage(landed)
    with pytest.raises(BrokenFolder):
        take_over([DATASET], DATA)

    another_home(monkeypatch, tmp_path, "home")
    assert is_landed(DATASET), "not computed again"
    another_home(monkeypatch, tmp_path, "asks")
    take_over([DATASET], DATA)
    assert verify(landed) and landed_names() == ["first"]


def test_an_evaluation_comes_with_the_baseline_that_it_evaluates(mounted, tmp_path, monkeypatch):
    land_training("completed")
    land_together([("t-1-e1", "evaluation", evaluation("t-1-e1", "t-1"))])
    another_home(monkeypatch, tmp_path, "asks")
    take_over(["t-1-e1"], DATA)
    with reading() as con:
        assert con.execute("SELECT training_id FROM evaluation JOIN experiment USING (training_id)").fetchall()


def land_training(status: str, **values: object) -> None:
    land_together([("t-1", "training", training("t-1", status=status, **values))])


def test_a_failed_training_makes_way_for_the_one_that_completes(mounted, tmp_path, monkeypatch):
    land_training("failed")
    assert mounted.manifest("landing/t-1") is None and mounted.manifest("failed/t-1") is not None
    another_home(monkeypatch, tmp_path, "asks")
    take_over(["t-1"], DATA)
    assert landed_status("t-1") == "failed"

    another_home(monkeypatch, tmp_path, "second")
    land_training("completed")
    assert mounted.manifest("landing/t-1") is not None
    another_home(monkeypatch, tmp_path, "asks")
    take_over(["t-1"], DATA)
    assert landed_status("t-1") == "completed"


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_of_two_versions_of_a_training_a_failed_one_gives_way_and_else_the_shared_one_stays(
    status, mounted, tmp_path, monkeypatch
):
    land_training(status)
    another_home(monkeypatch, tmp_path, "asks")
    with monkeypatch.context() as alone:
        alone.delenv("TRIAGE_SHARED")
        land_training("completed", train_seconds=9.0)

    here = read_manifest(home() / "landing" / "t-1")["digest"]
    take_over(["t-1"], DATA)
    assert landed_status("t-1") == "completed"
    expected = here if status == "failed" else mounted.manifest("landing/t-1")["digest"]
    assert read_manifest(home() / "landing" / "t-1")["digest"] == expected
    assert status == "failed" or expected != here


# --- trainings ----------------------------------------------------------------------------------


def test_an_adapter_comes_with_its_training_and_the_cases_from_which_it_learned(mounted, tmp_path, monkeypatch):
    sets = {name: {"digest": f"{name}-digest", "cases": 1, "labels": {}} for name in SETS}
    data = tmp_path / "cases"
    data.mkdir()
    seal(data, {"sets": sets, "dataset_digest": "0", "name": "own", "is_embedded": False, "seed": 1})
    sealed(home() / "experiments" / "t-1", "weights")
    land_training("completed")

    another_home(monkeypatch, tmp_path, "asks")
    take_over(["t-1"], data)
    adapter = home() / "experiments" / "t-1"
    assert verify(adapter) and json.loads((adapter / INGREDIENTS).read_text()) == {
        "train": "train-digest", "valid": "valid-digest",
    }  # fmt: skip

    elsewhere = tmp_path / "two" / "t-1"
    with locked(elsewhere):
        assert not bring_adapter(mounted, elsewhere, print), "a process of this home trains it"
    assert bring_adapter(mounted, elsewhere, print) and not bring_adapter(mounted, elsewhere, print)
    assert verify(elsewhere)


def test_a_damaged_adapter_is_trained_again_and_shared_in_its_place(mounted, tmp_path):
    first = sealed(tmp_path / "one" / "t-1", "weights")
    share_adapter(mounted, first)
    digest = mounted.manifest("experiments/t-1")["digest"][:12]
    mounted.fs.pipe_file(f"{mounted.root}/experiments/t-1/{digest}/figures.txt", b"WEIGHTS")

    events = []
    second = tmp_path / "two" / "t-1"
    bring_adapter(mounted, second, events.append)
    assert not second.exists() and [type(event) for event in events] == [StepWarning]
    share_adapter(mounted, first)
    bring_adapter(mounted, second, events.append)
    assert verify(second)
