"""`triage data forget`: what came from a data set goes, what came from another one stays, and nothing is guessed."""

import fcntl
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from flows.cli.clean import remove_if_told
from flows.experiment import experiment
from flows.search import search
from flows.selection import Narrowing
from flows.sweep import sweep
from tasks.identity import INGREDIENTS
from tasks.removable import matching_names, of_data, sharing_sets
from tasks.runtime import store
from tasks.runtime.errors import Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import kept_passes, refuse_while_working, seal
from tests.flows.test_privacy import pieces_of
from tests.place import refusal

FILES = ("train.jsonl", "adapters.safetensors", "scores.parquet")


@pytest.fixture
def swept(smoke, tmp_path):
    """A copy of a home with eight trained experiments, whose jobs name the folders of the home that was copied."""
    return smoke[0].copy(tmp_path / "copy")


def forget(root: Path, *names: str) -> None:
    remove_if_told(root, of_data(root, names), yes=True)


# --- On the home of a sweep ----------------------------------------------------------------------


def test_without_yes_it_says_what_would_go_and_with_it_no_file_holds_a_piece_of_a_text_and_results_stay(swept):
    before = sorted(swept.home.rglob("*"))
    result = swept.ask("data", "forget", "smoke")
    assert (result.returncode, result.stderr) == (0, "")
    (data,) = (path.name for path in (swept.home / "data").glob("embedded-*"))
    assert data in result.stdout and re.search(r"experiments +8 ", result.stdout)
    size = sum(path.stat().st_size for path in (swept.home / "data" / data).rglob("*") if path.is_file())
    assert f"{size:,}" in result.stdout and "exports, reports" in result.stdout
    assert result.stdout.rstrip().endswith("Nothing was removed. To remove it, add --yes.")
    assert sorted(swept.home.rglob("*")) == before

    has_piece = pieces_of(swept.home)
    result = swept.ask("data", "forget", "embedded", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    files = [path for path in swept.home.rglob("*") if path.is_file()]
    assert files and [str(path) for path in files if has_piece(path.read_bytes())] == []
    for place in ("data", "experiments", "prefixes", "baselines", "moved"):
        assert not list((swept.home / place).glob("*/")), place
    assert not list(swept.home.rglob("adapters*.safetensors"))
    assert len(swept.query("SELECT training_id FROM experiment WHERE recipe_kind <> 'baseline'")) == 8
    assert "nor of any other" in refusal(swept.ask("data", "forget", "embedded"))


def test_a_name_that_is_not_there_is_a_sentence_and_every_adapter_of_a_home_that_trained_none_itself_goes(swept):
    for name, sentence in (
        ("embeded", "a data set 'embeded'; did you mean embedded-"),
        ("paper", "holds nothing of a data set 'embedded-"),
        ("n" * 300, "nnn..."),
        ("n" * 300 + ".toml", "nnn..."),
    ):
        assert sentence in refusal(swept.ask("data", "forget", name, "--yes"))

    shutil.rmtree(swept.home / "logs")
    specs = list((swept.home / "experiments").glob("*/spec.json"))
    for path in specs:
        path.unlink()
    assert len(specs) == 8
    assert swept.ask("data", "forget", "embedded", "--yes").returncode == 0
    assert not list((swept.home / "experiments").glob("*/"))


# --- On homes of a few folders -------------------------------------------------------------------


def sets_of(root: Path, name: str, **digests: str) -> None:
    """A data set with these sets."""
    (root / "data" / name).mkdir(parents=True)
    seal(root / "data" / name, {"sets": {k: {"digest": d, "cases": 1, "labels": {}} for k, d in digests.items()}})


def made_home(root: Path) -> Path:
    """Two data sets, an adapter and an untuned model's scores of each; `new` has another test set than `own`.

    Each holds a file of what is to go.
    """
    for name, tests in (("own-1", "t1"), ("own-2", "t2"), ("other-3", "t3")):
        sets_of(root, name, train="learned" if name.startswith("own") else "elsewhere", test=tests)
        trained = root / "experiments" / f"cell-{name}"
        scores = root / "baselines" / f"untuned-{name}"
        job(trained, {"folder": trained, "data": root / "data" / name, "home": root})
        job(root / "logs" / name, {"scores": scores, "data": root / "data" / name, "home": root})
        scores.mkdir(parents=True)
        for folder, file in zip((root / "data" / name, trained, scores), FILES, strict=True):
            (folder / file).write_text("what is to go")

    moved, ranked = root / "moved" / "m", root / "valid" / "v"
    for folder in (moved, kept_passes(moved), ranked):
        folder.mkdir(parents=True)
    shared = {"data": root / "data" / "own-2", "home": root}
    # This job's `folder` is where the paths of its bundle begin: the home itself.
    job(root / "logs" / "valid", shared | {"scores": ranked, "folder": root})
    job(root / "logs" / "move", shared | {"scores": moved, "adapter": root / "experiments" / "cell-own-1"})
    return root


def job(folder: Path, args: dict[str, Path]) -> None:
    folder.mkdir(parents=True)
    spec = {"function": "f", "args": {key: str(value) for key, value in args.items()}}
    (folder / "spec.json").write_text(json.dumps(spec))


def folders(root: Path) -> set[str]:
    kinds = ("data", "experiments", "baselines", "moved", "valid")
    return {str(path.relative_to(root)) for kind in kinds for path in (root / kind).glob("*/")}


def what_is_left(root: Path, name: str) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.name in FILES and name in str(path)]


def test_what_came_from_other_data_stays_and_a_shared_set_is_named(tmp_path):
    root = made_home(tmp_path)
    assert matching_names(root, "own") == ["own-1", "own-2"] and matching_names(root, "dataset-3") == ["other-3"]
    assert sharing_sets(root, ["own-1"]) == ["own-2"]
    forget(root, "own-1")
    assert folders(root) == {
        "data/own-2", "valid/v", "data/other-3", "experiments/cell-own-2", "experiments/cell-other-3",
        "baselines/untuned-own-2", "baselines/untuned-other-3",
    }, "the moved adapter goes with its adapter"  # fmt: skip
    assert matching_names(root, "own") == ["own-2"]


@pytest.mark.parametrize("subfolder", ["experiments", "data", "landing"])
def test_it_is_refused_while_anything_works_in_the_home(subfolder, tmp_path):
    root = made_home(tmp_path)
    refused = f"Another process is working in .*{subfolder}/something"
    with locked(root / subfolder / "something"), pytest.raises(Locked, match=refused):
        forget(root, "own-1")

    building = root / subfolder / ".tmp-x-0"
    building.mkdir()
    before = folders(root)
    descriptor = os.open(building, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Locked):
        forget(root, "own-1")

    os.close(descriptor)
    assert folders(root) == before
    forget(root, "own-1")


class SeenAtWork(Exception):
    """Raised by a flow that is asked between two steps."""


@pytest.mark.parametrize(
    ("flow", "module", "step"),
    [
        (partial(sweep, grid="smoke"), "flows.sweep", "submit_experiments"),
        (partial(sweep, grid="smoke", pool="fleet"), "flows.sweep", "sweep_in_pool"),
        (partial(experiment, model="tiny-llama", recipe="baseline", grid="smoke"), "flows.experiment", "submit_experiments"),
        (partial(search, grid="smoke", only=Narrowing(models=["tiny-llama"])), "flows.search", "refill_warehouse"),
    ],
)  # fmt: skip
def test_it_is_refused_while_a_flow_of_a_process_without_a_server_of_its_own_runs(flow, module, step, monkeypatch):
    """As with a server that `triage up` started: of it the home has no record, and no step holds a lock yet."""

    def look(*args: object, **named: object) -> None:
        with pytest.raises(Locked, match=r"Another process is working in .* \((flows/\d+-|searches/smoke-)"):
            refuse_while_working(home())
        raise SeenAtWork

    monkeypatch.setattr(f"{module}.{step}", look)
    monkeypatch.setattr(f"{module}.label_run", lambda *args, **named: None)  # there is no run
    with pytest.raises(SeenAtWork):
        flow.func.fn(**flow.keywords)
    refuse_while_working(home())


# --- After an interruption -----------------------------------------------------------------------


@pytest.mark.parametrize("removed", range(4))
def test_a_removal_that_was_interrupted_is_finished_when_it_is_typed_again(removed, place, monkeypatch):
    root = made_home(place.home)
    whole_folders = removed
    rmtree = shutil.rmtree

    def interrupted(folder, ignore_errors=False):
        nonlocal whole_folders
        if ignore_errors:
            return None
        whole_folders -= 1
        if whole_folders >= 0:
            return rmtree(folder)
        for path in folder.glob("*.json"):  # spec and manifest are the first to go
            path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.shutil, "rmtree", interrupted)
        forget(root, "own-1")

    shutil.rmtree(root / "logs")
    assert what_is_left(root, "own-1")
    result = place.ask("data", "forget", "own-1", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert what_is_left(root, "own-1") == [] and not list(root.rglob(".forgotten-*"))
    assert len(what_is_left(root, "own-2")) == 3

    sentence = refusal(place.ask("data", "forget", "own-1", "--yes"))
    assert "holds nothing of a data set 'own-1'; did you mean own-2?" in sentence


def test_what_an_interrupted_removal_left_goes_with_what_has_its_name_again(tmp_path):
    root = made_home(tmp_path)
    experiments = root / "experiments"
    trained = experiments / "cell-own-1"
    shutil.copytree(trained, experiments / ".forgotten-cell-own-1")
    shutil.copytree(trained, trained / "scores" / ".forgotten-s")
    shutil.copytree(trained, experiments / ".forgotten-gone" / "scores" / ".forgotten-s")
    forget(root, "own-1")
    assert what_is_left(root, "own-1") == [] and not list(root.rglob(".forgotten-*"))


def test_what_no_longer_says_of_what_it_is_is_named_and_not_called_nothing(place):
    adapter = place.home / "experiments" / ".forgotten-cell" / "adapters.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_text("weights")
    sentence = refusal(place.ask("data", "forget", "clinic", "--yes"))
    assert "nor of any other. An interrupted removal left experiments/.forgotten-cell" in sentence
    assert place.ask("clean", "--yes").returncode == 0 and not adapter.exists()
    assert place.ask("data", "forget", "clinic").stderr.endswith("a data set 'clinic', nor of any other.\n")


@pytest.mark.parametrize(
    ("aside", "name"), [("", "clinic"), (".forgotten-", "clinic-0123456789ab"), (".forgotten-", "0123456789ab")]
)
def test_texts_of_a_killed_builder_are_known_by_the_name_that_they_were_to_have(aside, name, place):
    texts = place.home / "data" / f"{aside}.tmp-clinic-0123456789ab-fedcba987654" / "train.jsonl"
    texts.parent.mkdir(parents=True)
    texts.write_text('{"text": "my chest hurts"}')
    result = place.ask("data", "forget", name, "--yes")
    assert (result.returncode, result.stderr) == (0, "") and "Removed: " in result.stdout
    assert list((place.home / "data").iterdir()) == []


# --- Adapters that another machine trained -------------------------------------------------------


def brought(root: Path, name: str, ingredients: str) -> Path:
    """An experiment as the shared folder gives it: it has no job in this home."""
    folder = root / "experiments" / name
    folder.mkdir(parents=True)
    (folder / "adapters.safetensors").write_text("weights")
    seal(folder, {}, ["adapters.safetensors"])
    (folder / INGREDIENTS).write_text(ingredients)
    return folder


def test_an_adapter_of_another_machine_goes_with_the_cases_that_it_learned_from(tmp_path):
    root = tmp_path / "home"
    sets_of(root, "own-1", train="t1", valid="v1")
    sets_of(root, "own-2", train="t1", valid="v2")
    for name, ingredients in (
        ("cell-1", json.dumps({"train": "t1", "valid": "v1"})), ("cell-2", json.dumps({"train": "t1", "valid": "v2"})),
        ("cell-odd", "[]"), ("cell-broken", "{"), ("cell-old", "{}"),
    ):  # fmt: skip
        brought(root, name, ingredients)

    moved = root / "moved" / "m"
    moved.mkdir(parents=True)
    adapter = root / "experiments" / "cell-1"
    job(root / "logs" / "move", {"scores": moved, "adapter": adapter, "home": root})
    half_brought = root / "experiments" / ".tmp-cell-1-0123456789ab"
    half_brought.mkdir()

    assert of_data(root, ["own-1"]) == [adapter, moved, half_brought, root / "data" / "own-1"], "the texts are the last"
    assert sharing_sets(root, ["own-1"]) == ["own-2"]
    forget(root, "own-1")
    left = {path.name for path in (root / "experiments").glob("*/")}
    assert left == {"cell-2", "cell-odd", "cell-broken", "cell-old"}

    # Only an adapter of this machine names the data.
    brought(root, "cell-3", json.dumps({"train": "t9", "valid": "v9"}))
    own = root / "experiments" / "cell-4"
    job(own, {"folder": own, "data": "own-9", "home": root})
    (own / INGREDIENTS).write_text(json.dumps({"train": "t9", "valid": "v9"}))
    assert [path.name for path in of_data(root, ["own-9"])] == ["cell-3", "cell-4"]


def test_the_shared_folder_from_which_adapters_would_come_back_is_named(place, tmp_path):
    made_home(place.home)
    mount = str(tmp_path / "mount")
    assert "TRIAGE_SHARED" not in place.ask("data", "forget", "own-1").stdout
    printed = " ".join(place.ask("data", "forget", "own-1", TRIAGE_SHARED=mount).stdout.split())
    assert "the next sweep brings adapters back" in printed and "mount (TRIAGE_SHARED) stays" in printed
