"""`triage data forget` after an interruption, after a killed builder, and of what came through a fleet's shared folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tasks import removal
from tasks.forget_data import forget, known_names, matching_names, plan
from tasks.identity import INGREDIENTS
from tasks.runtime.shared import SharedFolder, shared_folder
from tasks.runtime.store import intact_manifest, seal
from tasks.sharing import bring_adapter
from tests.flows.cli.test_forget import job, made_home
from tests.place import one_sentence

FILES = ("train.jsonl", "adapters.safetensors", "scores.parquet")


def filled_home(root: Path) -> Path:
    """`made_home` with a file in each folder."""
    made_home(root)
    for place, name in (("data", FILES[0]), ("experiments", FILES[1]), ("baselines", FILES[2])):
        for folder in (root / place).glob("*/"):
            (folder / name).write_text("what is to go")
    return root


def what_is_left(root: Path, name: str) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.name in FILES and name in str(path)]


@pytest.mark.parametrize("removed", range(4))
def test_a_removal_that_was_interrupted_is_finished_when_it_is_typed_again(removed, place, monkeypatch):
    root = filled_home(place.home)
    whole_folders = removed
    rmtree = shutil.rmtree

    def interrupted(folder, ignore_errors=False):
        nonlocal whole_folders
        if ignore_errors:
            return
        if not whole_folders:
            for path in folder.glob("*.json"):  # spec and manifest are the first to go
                path.unlink()
            raise KeyboardInterrupt
        whole_folders -= 1
        rmtree(folder)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(removal.shutil, "rmtree", interrupted)
        forget(root, plan(root, ["own-1"]))

    shutil.rmtree(root / "logs")
    assert what_is_left(root, "own-1")
    result = place.ask("data", "forget", "own-1", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert what_is_left(root, "own-1") == [] and not list(root.rglob(".forgotten-*"))
    assert len(what_is_left(root, "own-2")) == 3

    again = place.ask("data", "forget", "own-1", "--yes")
    assert again.returncode == 2 and "holds nothing of a data set 'own-1'; did you mean own-2?" in again.stderr


def test_adapters_that_were_set_aside_are_known_by_their_jobs_where_the_texts_are_gone(tmp_path):
    root = filled_home(tmp_path)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "baselines")
    experiments = root / "experiments"
    (experiments / "cell-other-3").rename(experiments / ".forgotten-cell-other-3")
    scores = experiments / "cell-own-1" / "scores" / "s"
    job(root / "logs" / "evaluate-s", {"scores": scores, "data": root / "data" / "own-1", "home": root})
    (experiments / "cell-own-1" / "spec.json").unlink()
    (experiments / "cell-own-1").rename(experiments / ".forgotten-cell-own-1")
    assert known_names(root) == ["other-3", "own-1", "own-2"]
    forget(root, plan(root, matching_names(root, "other")))
    assert not what_is_left(root, "other-3") and known_names(root) == ["own-2"], "each removes what all left"


def test_what_an_interrupted_removal_left_goes_with_what_has_its_name_again(tmp_path):
    root = filled_home(tmp_path)
    trained = root / "experiments" / "cell-own-1"
    shutil.copytree(trained, root / "experiments" / ".forgotten-cell-own-1")
    shutil.copytree(trained, trained / "scores" / ".forgotten-s")
    shutil.copytree(trained, root / "experiments" / ".forgotten-gone" / "scores" / ".forgotten-s")
    forget(root, plan(root, ["own-1"]))
    assert what_is_left(root, "own-1") == [] and not list(root.rglob(".forgotten-*"))


def test_what_no_longer_says_of_what_it_is_is_named_and_not_called_nothing(place):
    adapter = place.home / "experiments" / ".forgotten-cell" / "adapters.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_text("weights")
    result = place.ask("data", "forget", "clinic", "--yes")
    assert result.returncode == 2 and one_sentence(result.stderr)
    assert (
        "holds nothing of a data set 'clinic', nor of any other. An interrupted removal left experiments/.forgotten-cell, "
        "which may be of it: `triage clean` removes that." in result.stderr
    )
    assert place.ask("clean", "--yes").returncode == 0 and not adapter.exists()
    assert place.ask("data", "forget", "clinic").stderr.endswith("a data set 'clinic', nor of any other.\n")


@pytest.mark.parametrize("name", ["clinic", "clinic-0123456789ab", "0123456789ab"])
@pytest.mark.parametrize("aside", ["", ".forgotten-"])
def test_texts_of_a_killed_builder_are_known_by_the_name_that_they_were_to_have(aside, name, place):
    texts = place.home / "data" / f"{aside}.tmp-clinic-0123456789ab-fedcba987654" / "train.jsonl"
    texts.parent.mkdir(parents=True)
    texts.write_text('{"text": "my chest hurts"}')
    result = place.ask("data", "forget", name, "--yes")
    assert (result.returncode, result.stderr) == (0, "") and "Removed: clinic-0123456789ab, " in result.stdout
    assert list((place.home / "data").iterdir()) == []


def test_a_name_that_no_file_can_have_is_a_sentence(place):
    place.home.mkdir(parents=True)
    for name in ("n" * 300, "n" * 300 + ".toml"):
        result = place.ask("data", "forget", name, "--yes")
        assert result.returncode == 2 and one_sentence(result.stderr), result.stderr
        assert "nnn..." in result.stderr


# --- through the shared folder ------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path, monkeypatch) -> SharedFolder:
    monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / "mount"))
    mount = shared_folder()
    assert mount is not None
    return mount


def brought(shared: SharedFolder, root: Path, name: str, ingredients: str) -> Path:
    """An experiment that another machine trained, as `tasks/train.py` leaves it in this home."""
    trained = root.parent / "other machine" / name
    job(trained, {"folder": trained, "data": root.parent / "data" / "own-1", "home": root.parent})
    (trained / "adapters.safetensors").write_text("weights")
    seal(trained, {}, ["adapters.safetensors"])
    shared.put(trained, f"experiments/{name}")
    folder = root / "experiments" / name
    bring_adapter(shared, folder, lambda event: None)
    (folder / INGREDIENTS).write_text(ingredients)
    assert intact_manifest(folder) and not (folder / "spec.json").exists()
    return folder


def learned(root: Path, name: str, train: str, valid: str) -> None:
    """A data set with the two sets that an adapter learns from."""
    (root / "data" / name).mkdir(parents=True)
    sets = {key: {"digest": digest, "cases": 1, "labels": {}} for key, digest in (("train", train), ("valid", valid))}
    seal(root / "data" / name, {"sets": sets})


def test_an_adapter_of_another_machine_goes_with_the_cases_that_it_learned_from(shared, tmp_path):
    root = tmp_path / "home"
    learned(root, "own-1", "t1", "v1")
    learned(root, "own-2", "t1", "v2")
    brought(shared, root, "cell-1", json.dumps({"train": "t1", "valid": "v1"}))
    brought(shared, root, "cell-2", json.dumps({"train": "t1", "valid": "v2"}))
    for name, ingredients in (("cell-odd", "[]"), ("cell-broken", "{"), ("cell-old", "{}")):
        brought(shared, root, name, ingredients)

    moved = root / "moved" / "m"
    moved.mkdir(parents=True)
    adapter = root / "experiments" / "cell-1"
    job(root / "logs" / "move", {"scores": moved, "adapter": adapter, "home": root})
    half_brought = root / "experiments" / ".tmp-cell-1-0123456789ab"
    half_brought.mkdir()

    planned = plan(root, ["own-1"])
    assert [part.folder for part in planned.parts] == [root / "data" / "own-1", adapter, moved, half_brought]
    assert planned.elsewhere == ("own-2",)
    forget(root, planned)
    assert {path.name for path in (root / "experiments").glob("*/")} == {
        "cell-2", "cell-odd", "cell-broken", "cell-old",
    }  # fmt: skip


def test_an_adapter_of_another_machine_goes_also_where_only_one_of_this_machine_names_the_data(shared, tmp_path):
    root = tmp_path / "home"
    cases = json.dumps({"train": "t1", "valid": "v1"})
    brought(shared, root, "cell-1", cases)
    job(root / "experiments" / "cell-2", {"folder": root / "experiments/cell-2", "data": "own-1", "home": root})
    (root / "experiments" / "cell-2" / INGREDIENTS).write_text(cases)
    assert [part.folder.name for part in plan(root, ["own-1"]).parts] == ["cell-1", "cell-2"]


def test_every_adapter_of_a_home_that_trained_none_itself_goes(smoke, tmp_path):
    swept = smoke[0].copy(tmp_path / "copy")
    shutil.rmtree(swept.home / "logs")
    specs = list((swept.home / "experiments").glob("*/spec.json"))
    for path in specs:
        path.unlink()
    assert len(specs) == 8
    assert swept.ask("data", "forget", "embedded", "--yes").returncode == 0
    assert not list((swept.home / "experiments").glob("*/"))


def test_the_shared_folder_from_which_adapters_would_come_back_is_named(place, tmp_path):
    made_home(place.home)
    mount = str(tmp_path / "mount")
    assert "TRIAGE_SHARED" not in place.ask("data", "forget", "own-1").stdout
    printed = " ".join(place.ask("data", "forget", "own-1", TRIAGE_SHARED=mount).stdout.split())
    assert "the next sweep brings adapters back" in printed and "mount (TRIAGE_SHARED) stays" in printed
