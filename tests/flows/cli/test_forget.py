"""`triage data forget`: what came from a data set goes, what came from another one stays, and nothing is guessed."""

from __future__ import annotations

import fcntl
import json
import os
import re
from functools import partial
from pathlib import Path

import pytest

from flows.experiment import experiment
from flows.search import search
from flows.sweep import sweep
from tasks import removal
from tasks.forget_data import forget, matching_names, plan
from tasks.removal import refuse_while_working
from tasks.runtime.errors import Locked
from tasks.runtime.home import home
from tasks.runtime.locks import locked
from tasks.runtime.store import seal
from tests.flows.test_privacy import pieces_of
from tests.place import one_sentence
from tests.stopping import stop_for_this_test_only


@pytest.fixture
def swept(smoke, tmp_path):
    """A copy of a home with eight trained experiments, whose jobs name the folders of the home that was copied."""
    return smoke[0].copy(tmp_path / "copy")


def test_a_dry_run_says_what_would_go_and_removes_nothing(swept):
    before = sorted(swept.home.rglob("*"))
    result = swept.ask("data", "forget", "smoke")
    assert (result.returncode, result.stderr) == (0, "")
    (data,) = (path.name for path in (swept.home / "data").glob("embedded-*"))
    assert f"data/{data}" in result.stdout and result.stdout.count("│ adapters │") == 8
    sizes = re.findall(r"([\d.]+) (kB|MB) +│$", result.stdout, re.MULTILINE)
    assert len(sizes) > 8 and all(float(size) > 0 for size, _ in sizes), "small folders have a size, too"
    assert "│ scores   │ baselines/" in result.stdout and "exports, reports" in result.stdout
    assert result.stdout.rstrip().endswith("Nothing was removed. To remove it: triage data forget smoke --yes")
    assert sorted(swept.home.rglob("*")) == before


def test_no_file_holds_a_piece_of_a_text_afterwards_and_results_stay(swept):
    pattern = pieces_of(swept.home)
    result = swept.ask("data", "forget", "embedded", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    files = [path for path in swept.home.rglob("*") if path.is_file()]
    assert files and [str(path) for path in files if pattern.search(path.read_bytes())] == []

    for place in ("data", "experiments", "prefixes", "baselines", "moved"):
        assert not list((swept.home / place).glob("*/")), place

    assert not list(swept.home.rglob("adapters*.safetensors"))
    assert len(swept.query("SELECT training_id FROM experiment WHERE recipe_kind <> 'baseline'")) == 8
    again = swept.ask("data", "forget", "embedded")
    assert again.returncode == 2 and one_sentence(again.stderr)
    assert "holds nothing of a data set 'embedded', nor of any other" in again.stderr


def test_a_name_that_is_not_there_is_a_sentence_with_the_nearest(swept):
    result = swept.ask("data", "forget", "embeded", "--yes")
    assert result.returncode == 2 and "holds nothing of a data set 'embeded'; did you mean embedded-" in result.stderr
    paper = swept.ask("data", "forget", "paper")
    assert paper.returncode == 2 and "holds nothing of a data set 'embedded-" in paper.stderr


def made_home(root: Path) -> Path:
    """Two data sets, an adapter and an untuned model's scores of each; `new` has another test set than `own`."""
    for name, tests in (("own-1", "t1"), ("own-2", "t2"), ("other-3", "t3")):
        (root / "data" / name).mkdir(parents=True)
        shared = "learned" if name.startswith("own") else "elsewhere"
        sets = {
            "train": {"digest": shared, "cases": 1, "labels": {}},
            "test": {"digest": tests, "cases": 1, "labels": {}},
        }
        seal(root / "data" / name, {"sets": sets})
        trained = root / "experiments" / f"cell-{name}"
        job(trained, {"folder": trained, "data": root / "data" / name, "home": root})
        scores = root / "baselines" / f"untuned-{name}"
        scores.mkdir(parents=True)
        job(root / "logs" / name, {"scores": scores, "data": root / "data" / name, "home": root})

    moved = root / "moved" / "m"
    moved.mkdir(parents=True)
    adapter = root / "experiments" / "cell-own-1"
    ranked = root / "valid" / "v"
    ranked.mkdir(parents=True)
    # This job's `folder` is where the paths of its bundle begin: the home itself.
    job(root / "logs" / "valid", {"scores": ranked, "data": root / "data" / "own-2", "home": root, "folder": root})
    job(root / "logs" / "move", {"scores": moved, "data": root / "data" / "own-2", "home": root, "adapter": adapter})

    return root


def job(folder: Path, args: dict[str, Path]) -> None:
    folder.mkdir(parents=True)
    spec = {"function": "f", "args": {key: str(value) for key, value in args.items()}}
    (folder / "spec.json").write_text(json.dumps(spec))


def folders(root: Path) -> set[str]:
    return {
        str(path.relative_to(root)) for place in ("data", "experiments", "baselines", "moved", "valid")
        for path in (root / place).glob("*/")
    }  # fmt: skip


def test_what_came_from_other_data_stays_and_a_shared_set_is_named(tmp_path):
    root = made_home(tmp_path)
    assert matching_names(root, "own") == ["own-1", "own-2"] and matching_names(root, "dataset-3") == ["other-3"]
    planned = plan(root, ["own-1"])
    assert planned.elsewhere == ("own-2",)
    forget(root, planned)
    assert folders(root) == {
        "data/own-2", "valid/v", "data/other-3", "experiments/cell-own-2", "experiments/cell-other-3",
        "baselines/untuned-own-2", "baselines/untuned-other-3",
    }, "the moved adapter goes with its adapter"  # fmt: skip
    assert matching_names(root, "own") == ["own-2"]


def test_adapters_of_a_data_set_whose_texts_are_gone_already_are_found(tmp_path):
    root = made_home(tmp_path)
    (root / "data" / "other-3" / "manifest.json").unlink()
    (root / "data" / "other-3").rmdir()
    assert [part.folder.name for part in plan(root, matching_names(root, "other")).parts] == [
        "cell-other-3", "untuned-other-3",
    ]  # fmt: skip


def test_what_an_interrupted_removal_left_goes_the_next_time(tmp_path, monkeypatch):
    root = made_home(tmp_path)

    def interrupted(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            removal.shutil, "rmtree", lambda folder, ignore_errors=False: ignore_errors or interrupted(folder)
        )
        forget(root, plan(root, ["own-1"]))

    assert list(root.rglob(".forgotten-*")), "set aside, and not removed yet"
    forget(root, plan(root, ["other-3"]))
    assert not list(root.rglob(".forgotten-*"))


@pytest.mark.parametrize("subfolder", ["experiments", "data", "landing"])
def test_it_is_refused_while_anything_works_in_the_home(subfolder, tmp_path):
    root = made_home(tmp_path)
    with (
        locked(root / subfolder / "something"),
        pytest.raises(Locked, match=f"Another process is working in .*{subfolder}/something"),
    ):
        forget(root, plan(root, ["own-1"]))

    building = root / subfolder / ".tmp-x-0"
    building.mkdir()
    before = folders(root)
    descriptor = os.open(building, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    with pytest.raises(Locked):
        forget(root, plan(root, ["own-1"]))

    os.close(descriptor)
    assert folders(root) == before
    forget(root, plan(root, ["own-1"]))


class SeenAtWork(Exception):
    """Raised by a flow that is asked between two steps."""


@pytest.mark.parametrize(
    ("flow", "module", "step"),
    [
        (partial(sweep, grid="smoke"), "flows.sweep", "submit_experiments"),
        (partial(sweep, grid="smoke", pool="fleet"), "flows.sweep", "sweep_in_pool"),
        (partial(experiment, model="tiny-llama", recipe="baseline", grid="smoke"), "flows.experiment", "submit_experiments"),
        (partial(search, grid="smoke", model="tiny-llama"), "flows.search", "refill_warehouse"),
    ],
)  # fmt: skip
def test_it_is_refused_while_a_flow_of_a_process_without_a_server_of_its_own_runs(flow, module, step, monkeypatch):
    """As with a server that `triage up` started: of it the home has no record, and no step holds a lock yet."""

    def look(*args: object, **named: object) -> None:
        with pytest.raises(Locked, match=r"Another process is working in .* \((flows/\d+-|searches/smoke-)"):
            refuse_while_working(home())
        raise SeenAtWork

    stop_for_this_test_only(monkeypatch)
    monkeypatch.setattr(f"{module}.{step}", look)
    monkeypatch.setattr(f"{module}.label_run", lambda *args, **named: None)  # there is no run
    with pytest.raises(SeenAtWork):
        flow.func.fn(**flow.keywords)
    refuse_while_working(home())
