"""A sweep that is killed with SIGKILL, then loses its step, then is interrupted: nothing is lost or repeated."""

import contextlib
import json
import os
import re
import signal
import subprocess
from pkgutil import resolve_name
from types import SimpleNamespace

import psutil
import pytest

from tasks.runtime.store import intact_manifest
from tests.place import Place, wait_until

CLAIM = ("seeds=[42, 43]", "primary.recipe=balanced_safe", "primary.base_model=tiny-llama")
FEWER_STEPS = ("scoring.untuned=false", "scoring.fidelity_cases=0", "scoring.generated_cases=0")
CHANGES = ("recipe.iterations=48", "training.evaluate_every=8", *FEWER_STEPS, *CLAIM)
SWEEP = ["sweep", "smoke", "--model", "tiny-llama", "--recipe", "balanced_safe", "--limit", "2"]
SWEEP += [word for change in CHANGES for word in ("--set", change)]
FIRST = "tiny-llama-4bit-balanced_safe-s42"
SECOND = "tiny-llama-4bit-balanced_safe-s43"


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def has_gone(pid: int, seconds: float) -> bool:
    wait_until(lambda: not is_running(pid), seconds)
    return not is_running(pid)


def started_by(pid: int, words: str) -> list[psutil.Process]:
    """The processes below another one whose command has these words."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error, SystemError):  # it has ended meanwhile
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def server_of(sweep: int) -> int:
    (server,) = started_by(sweep, "prefect.server")
    return server.pid


def training_child(sweep: int) -> int:
    """The process that trains: forked by a child of the sweep, or that child itself where steps are not forked."""
    steps = started_by(sweep, "tasks.runtime.child")
    return next((process for process in steps if process.ppid() != sweep), steps[0]).pid


def checkpoint(place: Place, cell: str) -> int:
    """Update of the newest checkpoint of an experiment, 0 where there is none yet."""
    paths = (place.home / "experiments").glob(f"{cell}-*/checkpoint/[0-9]*")
    return max((int(path.name) for path in paths), default=0)


def wait_for_checkpoint(place: Place, process: subprocess.Popen[str], cell: str, beyond: int = 0) -> int:
    """The id of the process that trains `cell`, past a later checkpoint."""
    wait_until(lambda: checkpoint(place, cell) > beyond or process.poll() is not None, 300)
    assert process.poll() is None, (place.folder / "err").read_text()
    assert checkpoint(place, cell) > beyond, f"no checkpoint of {cell} beyond {beyond} within the wait"
    return training_child(process.pid)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What was seen of two runs of one command: the first is killed, the second loses its step and is interrupted when
    the first training has landed."""
    place = Place(tmp_path_factory.mktemp("kill") / "place")
    process = place.start(*SWEEP)
    child = wait_for_checkpoint(place, process, FIRST)
    server = server_of(process.pid)
    process.kill()
    process.wait()
    gone = [has_gone(child, 30), has_gone(server, 30)]
    landed = sorted(place.home.glob("landing/[!.]*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    kinds = [json.loads(path.read_text())["kind"] for path in landed]
    at = checkpoint(place, FIRST)

    process = place.start(*SWEEP)
    os.kill(wait_for_checkpoint(place, process, FIRST, beyond=at), signal.SIGKILL)  # as where memory is short
    child = wait_for_checkpoint(place, process, SECOND)
    server = server_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that the sweep has started, too
    interrupted = place.finish(process)
    gone += [has_gone(child, 30), has_gone(server, 30)]
    return SimpleNamespace(place=place, gone=gone, landed=kinds, killed_at=at, interrupted=interrupted)


def test_ctrl_c_ends_the_step_at_once_and_no_process_stays_after_a_kill_either(story):
    assert story.interrupted.returncode == 130
    assert story.interrupted.stderr.startswith("triage: Interrupted. Finished work is kept; run the same command again")
    assert intact_manifest(story.place.experiment(SECOND)) is None
    assert story.gone == [True] * 4, "the training process and Prefect's server leave with their sweep"


def test_a_step_that_is_killed_is_started_again_in_the_same_sweep_and_uses_up_no_retry(story):
    assert "ended by signal 9" in story.interrupted.stdout and "It is started again." in story.interrupted.stdout
    assert story.place.last_steps()["train tiny-llama 4bit balanced_safe s42"] == ("Completed", 1)


def test_a_training_goes_on_where_its_sweep_was_killed_and_lands_when_it_is_finished(story):
    assert 0 < story.killed_at < 48
    updates = [int(n) for n in re.findall(rf"train {FIRST}  iteration (\d+): validation", story.interrupted.stdout)]
    assert updates[0] > story.killed_at and updates[-1] == 48
    landed = story.place.query(
        "SELECT cell_id, status FROM experiment JOIN evaluation USING (training_id) WHERE recipe_kind <> 'baseline'"
    )
    assert landed.values.tolist() == [[FIRST, "completed"]]
    assert story.place.query("FROM experiment WHERE recipe = 'zero_shot'").empty, "scoring.untuned is false"
    assert story.place.audits() == {}


def test_a_sweep_has_registered_its_primary_claim_before_its_first_result(story):
    assert "evaluation" not in story.landed[: story.landed.index("sweep")]
    (row,) = story.place.query("FROM primary_claim").to_dict("records")
    assert (row["study"], row["recipe"], list(row["seeds"])) == ("smoke", "balanced_safe", [42, 43])
    assert row["changed_after_results"] is False


def test_the_adapter_equals_byte_for_byte_that_of_a_training_that_never_stopped(story, tmp_path):
    folder = story.place.experiment(FIRST)
    spec = json.loads((folder / "spec.json").read_text())
    whole = tmp_path / "whole"
    train = resolve_name(spec["function"])
    train(spec["args"] | {"folder": str(whole), "home": str(tmp_path)}, lambda event: None)
    assert intact_manifest(whole, deep=True)
    for name in ("adapters.safetensors", "adapters_last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
