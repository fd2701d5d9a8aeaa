"""A sweep that is interrupted, killed with SIGKILL, and run again with its step killed: nothing is lost or repeated."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.runtime.children import run_child
from tasks.runtime.store import intact_manifest
from tests.place import Place, process_environments

SWEEP = [
    "sweep", "smoke", "--model", "tiny-llama", "--recipe", "balanced_safe",
    "--set", "recipe.iterations=80", "--set", "training.evaluate_every=8",
]  # fmt: skip
FIRST = "tiny-llama-4bit-balanced_safe-s42"
SECOND = "tiny-llama-8bit-balanced_safe-s42"


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command of every running process by its id; zombies are not running."""
    command = ["ps", "-ww", "-eo", "pid=,ppid=,stat=,command="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 3) for line in listed.splitlines())
    return {int(pid): (int(parent), command) for pid, parent, state, command in rows if not state.startswith("Z")}


def has_gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while pid in processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    return pid not in processes()


def training_child(parent: int) -> int:
    """The process that trains: forked by a child of the sweep, or that child itself where steps are not forked."""
    steps = {pid: ppid for pid, (ppid, command) in processes().items() if "tasks.runtime.child" in command}
    children = [pid for pid, ppid in steps.items() if ppid == parent]
    return next((pid for pid, ppid in steps.items() if ppid in children), children[0])


def checkpoint(place: Place, cell: str) -> int:
    """Update of the newest checkpoint of an experiment, 0 where there is none yet."""
    paths = (place.home / "experiments").glob(f"{cell}-*/checkpoint/[0-9]*")
    return max((int(path.name) for path in paths), default=0)


def start_and_wait(place: Place, cell: str, beyond: int = 0) -> tuple[subprocess.Popen[str], int]:
    """The sweep, running, with the training of `cell` past a later checkpoint; and the id of its child process."""
    process = place.start(*SWEEP)
    deadline = time.monotonic() + 300
    while checkpoint(place, cell) <= beyond and time.monotonic() < deadline:
        assert process.poll() is None, (place.folder / "err").read_text()
        time.sleep(0.02)
    assert checkpoint(place, cell) > beyond, f"no checkpoint of {cell} beyond {beyond} within the wait"
    return process, training_child(process.pid)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What was seen of three runs of one command: interrupted, killed, finished."""
    place = Place(tmp_path_factory.mktemp("kill") / "place")
    process, child = start_and_wait(place, FIRST)
    server = server_of(place)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that the sweep has started, too
    interrupted = place.finish(process)
    seconds = time.monotonic() - start
    gone = [has_gone(child, 30), has_gone(server, 30)]
    finished = [intact_manifest(folder) for folder in (place.home / "experiments").glob(f"{FIRST}-*")]

    process, child = start_and_wait(place, SECOND)
    server = server_of(place)
    process.kill()
    process.wait()
    gone += [has_gone(child, 30), has_gone(server, 30)]
    written = adapter(place, FIRST).stat().st_mtime_ns
    at = checkpoint(place, SECOND)

    process, child = start_and_wait(place, SECOND, beyond=at)
    os.kill(child, signal.SIGKILL)  # as the system does when memory is short, or a user by mistake
    return SimpleNamespace(
        place=place, interrupted=interrupted, seconds_to_stop=seconds, stopped_before_its_end=not any(finished),
        gone=gone, first_written=written, killed_at=at, finished=place.finish(process),
    )  # fmt: skip


def server_of(place: Place) -> int:
    """The process of Prefect's server that a sweep of this home has started."""
    of_sweep = {pid for pid, environment in process_environments() if environment.get("TRIAGE_HOME") == str(place.home)}
    (server,) = [pid for pid, (_, command) in processes().items() if pid in of_sweep and "prefect.server" in command]
    return server


def adapter(place: Place, cell: str) -> Path:
    return place.experiment(cell) / "adapters.safetensors"


def test_ctrl_c_ends_the_step_at_once_and_no_process_stays_after_a_kill_either(story):
    assert story.interrupted.returncode == 130
    assert story.interrupted.stderr == (
        "triage: Interrupted. Finished work is kept; run the same command again to continue.\n"
    )
    assert story.seconds_to_stop < 30 and story.stopped_before_its_end
    assert story.gone == [True] * 4, "the training process and Prefect's server leave with their sweep"


def test_a_step_that_is_killed_is_started_again_in_the_same_sweep_and_uses_up_no_retry(story):
    assert "ended by signal 9" in story.finished.stdout and "It is started again." in story.finished.stdout
    assert story.place.last_steps()["train tiny-llama 8bit balanced_safe s42"] == ("Completed", 1)


def test_the_same_command_finishes_the_sweep(story):
    assert (story.finished.returncode, story.finished.stderr) == (0, "")
    landed = story.place.query(
        "SELECT cell_id, recipe_kind, status FROM experiment JOIN evaluation USING (training_id)"
    )
    assert set(landed.status) == {"completed"}
    assert sorted(landed[landed.recipe_kind != "baseline"].cell_id) == [FIRST, SECOND]
    assert list(story.place.home.rglob(".tmp-*")) == [] and story.place.audits() == {}


def test_what_was_finished_before_the_kill_is_not_repeated_and_the_killed_training_goes_on(story):
    assert adapter(story.place, FIRST).stat().st_mtime_ns == story.first_written
    assert f"train {FIRST}" not in story.finished.stdout
    assert 0 < story.killed_at < 80
    updates = [int(n) for n in re.findall(rf"train {SECOND}  iteration (\d+): validation", story.finished.stdout)]
    assert updates[0] > story.killed_at and updates[-1] == 80


def test_a_sweep_that_is_killed_before_its_first_result_has_registered_its_primary_claim(place):
    claim = ("seeds=[42, 43]", "primary.recipe=balanced_safe", "primary.base_model=tiny-llama")
    process = place.start(*SWEEP, *(word for item in claim for word in ("--set", item)))
    landing = place.home / "landing"
    deadline = time.monotonic() + 300
    while not list(landing.glob("sweep-smoke-*/manifest.json")) and time.monotonic() < deadline:
        assert process.poll() is None, (place.folder / "err").read_text()
        time.sleep(0.02)

    process.kill()
    process.wait()
    kinds = {json.loads(path.read_text())["kind"] for path in landing.glob("[!.]*/manifest.json")}
    assert "sweep" in kinds and "evaluation" not in kinds
    assert place.run("warehouse", "rebuild").returncode == 0
    (row,) = place.query("FROM primary_claim").to_dict("records")
    assert (row["study"], row["recipe"], list(row["seeds"])) == ("smoke", "balanced_safe", [42, 43])
    assert row["changed_after_results"] is False


@pytest.mark.parametrize("cell", [FIRST, SECOND], ids=["interrupted", "killed"])
def test_the_adapter_equals_byte_for_byte_that_of_a_training_that_never_stopped(cell, story, tmp_path):
    folder = story.place.experiment(cell)
    spec = json.loads((folder / "spec.json").read_text())
    whole = tmp_path / "whole"
    run_child(spec["function"], spec["args"] | {"folder": str(whole), "home": str(tmp_path)}, whole)
    assert intact_manifest(whole, deep=True)
    for name in ("adapters.safetensors", "adapters_last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
