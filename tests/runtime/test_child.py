"""A step in a process of its own: results and typed errors come back, and no child outlives its parent."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tasks.runtime import children
from tasks.runtime.children import LOSSES, forked_steps, run_child, run_step
from tasks.runtime.errors import (
    BY_NAME,
    LOST_PARENT,
    BadInput,
    GpuFailed,
    LostChild,
    OutOfMemory,
    TookTooLong,
    TriageError,
    device_error,
)
from tasks.runtime.events import Event, Note, StepWarning
from tasks.runtime.locks import locked
from tests.place import ROOT, wait_until


def step(name: str, args: dict, folder: Path, **options):
    events: list[Event] = []
    return run_child(f"tests.runtime.programs.steps:{name}", args, folder, events.append, **options), events


def test_a_result_and_the_events_come_back_from_any_folder_and_the_spec_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    result, events = step("surroundings", {"name": "MLX_ENABLE_TF32"}, tmp_path)
    assert result["value"] == "0", "products in float32 are not rounded there"
    assert events == [Note("surroundings")]
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec == {"function": "tests.runtime.programs.steps:surroundings", "args": {"name": "MLX_ENABLE_TF32"}}


@pytest.fixture
def forked():
    """For the tests that start many steps: a fork takes a tenth of the time of a start."""
    with forked_steps():
        yield


@pytest.mark.usefixtures("forked")
def test_a_step_that_may_open_fewer_files_than_mlx_lm_asks_for_opens_as_many_as_it_may(tmp_path):
    assert step("file_limits", {"allowed": 1000, "requested": [2048, 4096]}, tmp_path)[0] == {"limits": [1000, 1000]}
    assert step("file_limits", {"allowed": 3000, "requested": [2048, 4096]}, tmp_path)[0] == {"limits": [2048, 3000]}


@pytest.mark.usefixtures("forked")
def test_the_steps_of_a_process_share_the_record_of_verified_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIAGE_CHAIN", raising=False)
    chains = [step("surroundings", {"name": "TRIAGE_CHAIN"}, tmp_path / name)[0]["value"] for name in ("a", "b")]
    assert chains[0] and chains[0] == chains[1]


@pytest.mark.usefixtures("forked")
def test_a_typed_error_comes_back_as_itself_and_a_bug_is_terminal_with_its_traceback_in_the_log(tmp_path):
    for name in ("TriageError", "DoesNotFit", "SourceUnavailable", "Locked"):
        with pytest.raises(TriageError, match=r"^A sentence\.$") as caught:
            step("fail", {"error": name}, tmp_path)
        assert type(caught.value) is BY_NAME[name]

    with pytest.raises(TriageError, match=r"ValueError: an ordinary bug.*Its log is .*child\.log") as caught:
        step("untyped", {"error": "bug"}, tmp_path)
    assert type(caught.value) is TriageError and not caught.value.transient
    assert "Traceback" in (tmp_path / "child.log").read_text()


ON_METAL = {
    "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)": OutOfMemory,
    "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)": GpuFailed,
    "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)": GpuFailed,
    "Discarded (victim of GPU error/recovery) (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)": GpuFailed,
    "-[AppleParavirtDevice x:]": BadInput,  # a virtual Mac
}
# What a virtual Mac says: MLX's and Objective-C's own words.
NO_METAL = (
    "[metal::Device] Unable to load kernel rmsbfloat16",
    "*** Terminating app due to uncaught exception 'NSRangeException', reason: '*** -[__NSArray0 objectAtIndex:]: index 0 "
    "beyond bounds for empty array'",
)
FULL = r"^The disk is full: .*free some space"
FAILURES = [
    ("untyped", {"error": "memory"}, OutOfMemory, "ran out of memory.*a browser, and run the same command again"),
    ("untyped", {"error": "buffers"}, GpuFailed, r"buffers as Metal allows: .*499000.* new process.* report it"),
    ("untyped", {"error": "disk"}, BadInput, FULL),
    ("untyped", {"error": "disk in MLX"}, BadInput, FULL),
    ("leave", {"code": LOST_PARENT}, LostChild, r"^The step's process exited, .*pipe.*; its log is .*child\.log\.$"),
    *(("signalled", {"signal": int(n)}, LostChild, f"signal {int(n)}") for n in (signal.SIGKILL, signal.SIGSEGV)),
    *(("no_gpu", {"reason": "Caused GPU Hang Error", "caught": caught}, GpuFailed, "Hang.*let the display sleep")
      for caught in (True, False)),
    *(("no_gpu", {"reason": f"\n{text}", "caught": False}, BadInput, r"GPU.*\(.* [a-zA-Z:]+.*\); set TRIAGE_BACKEND=cpu")
      for text in NO_METAL),
    ("no_gpu", {"reason": NO_METAL[0], "caught": True}, BadInput, "set TRIAGE_BACKEND=cpu"),
]  # fmt: skip


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("name", "args", "kind", "words"), FAILURES)
def test_how_a_step_fails_decides_the_kind_of_its_error_and_whether_it_is_retried(name, args, kind, words, tmp_path):
    with pytest.raises(kind, match=words) as caught:
        step(name, args, tmp_path, memory_budget=1 << 40)
    assert caught.value.transient == (kind in (LostChild, GpuFailed))
    assert name != "leave" or "signal" not in str(caught.value)


@pytest.mark.usefixtures("forked")
def test_an_abort_is_metals_only_if_this_very_process_said_so(tmp_path):
    for reason, kind in ON_METAL.items():
        assert type(device_error(f"[METAL] Command buffer execution failed: {reason}")) is kind
    assert device_error("shapes (2,3) and (4,5) do not match") is None
    with pytest.raises(GpuFailed, match=r"The GPU's driver ended the step: \[METAL\] .*Invalid Resource"):
        step("no_gpu", {"reason": "Invalid Resource", "caught": False}, tmp_path)
    with pytest.raises(LostChild, match="signal 6"):
        step("signalled", {"signal": int(signal.SIGABRT)}, tmp_path)


@pytest.mark.usefixtures("forked")
def test_a_mapped_write_on_a_full_disk_is_no_other_bus_error(tmp_path, monkeypatch):
    with pytest.raises(LostChild, match="signal 7|signal 10"):
        step("signalled", {"signal": int(signal.SIGBUS)}, tmp_path)
    monkeypatch.setattr(children, "NEARLY_FULL_BYTES", 1 << 62)
    with pytest.raises(BadInput, match="The disk is full"):
        step("signalled", {"signal": int(signal.SIGBUS)}, tmp_path)


@pytest.mark.usefixtures("forked")
def test_ctrl_c_is_left_to_the_parent(tmp_path):
    """In a terminal it reaches the child too, which must not end before the parent has decided."""

    def interrupt(event: Event) -> None:
        os.kill(process_id(event), signal.SIGINT)

    assert run_child("tests.runtime.programs.steps:name_processes", {"seconds": 0.3}, tmp_path, interrupt) == {}


def test_a_kill_near_the_memory_budget_is_out_of_memory_and_far_from_it_a_lost_child(tmp_path):
    size = 200 << 20
    with pytest.raises(OutOfMemory, match="GB of a budget of"):
        step("large_then_killed", {"bytes": size}, tmp_path, memory_budget=size)
    with pytest.raises(LostChild):
        step("large_then_killed", {"bytes": size}, tmp_path, memory_budget=10 * size)


def test_a_child_leaves_within_seconds_when_its_parent_is_killed_and_frees_its_lock(tmp_path):
    """A grandparent (this test) kills the parent with SIGKILL: only the closed pipe can tell the child."""
    code = (
        "import sys; from pathlib import Path; from tasks.runtime.children import run_child\n"
        "run_child('tests.runtime.programs.steps:wait', {'folder': sys.argv[1]}, Path(sys.argv[2]), "
        "lambda event: print(event.message.split()[0], flush=True))"
    )
    folder = tmp_path / "experiment"

    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()

    assert ended(pid)
    with locked(folder, wait=10):  # its other threads may still be closing the file
        pass


def process_id(event: Event) -> int:
    assert isinstance(event, Note)
    return int(event.message.split()[0])


def ended(pid: int, seconds: float = 30.0) -> bool:
    wait_until(lambda: not alive(pid), seconds)
    return not alive(pid)


def alive(pid: int) -> bool:
    """True for a running process; an orphan that nobody has waited for yet is not one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_failing_listener_ends_the_child_and_nothing_keeps_running(tmp_path):
    pids = []
    before = set(children._running)  # of other tests' models that still answer

    def listener(event):
        pids.append(process_id(event))
        raise RuntimeError("the listener has a bug")

    with pytest.raises(RuntimeError, match="listener"):
        run_child("tests.runtime.programs.steps:wait", {"folder": str(tmp_path / "x")}, tmp_path / "log", listener)

    assert not alive(pids[0]) and children._running == before


@pytest.fixture
def endings(monkeypatch):
    """In the place of `run_child`: each call ends as told. A list of the calls."""

    def children_of(*ends: Exception | None) -> list[str]:
        started: list[str] = []

        def end(function, *_, **__) -> dict[str, int]:
            started.append(function)
            if (error := ends[len(started) - 1]) is not None:
                raise error
            return {"attempt": len(started)}

        monkeypatch.setattr(children, "run_child", end)
        return started

    return children_of


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("as_set", "in_the_step"), [(None, "1"), ("0", "0")])
def test_the_displays_watchdog_waits_longer_unless_the_user_says_otherwise(as_set, in_the_step, tmp_path, monkeypatch):
    name = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    if as_set:
        monkeypatch.setenv(name, as_set)
    assert step("surroundings", {"name": name}, tmp_path)[0]["value"] == in_the_step


@pytest.mark.usefixtures("forked")
def test_a_step_that_the_gpu_fails_goes_on_as_long_as_it_keeps_something_and_no_longer(tmp_path):
    def run(keeps: bool) -> dict:
        args = {"keeps": keeps, "attempts": str(tmp_path / str(keeps))}
        return run_step("tests.runtime.programs.steps:fails_five_times", args, tmp_path, events.append)

    events: list[Event] = []
    assert run(keeps=True) == {"attempts": 6}
    warnings = [event.message for event in events if isinstance(event, StepWarning)]
    assert len(warnings) == 5 > LOSSES and all("display sleep" in words for words in warnings)

    with pytest.raises(GpuFailed, match=r"Impacting Interactivity.*watchdog.*let the display sleep"):
        run(keeps=False)
    assert len((tmp_path / "False").read_text()) == LOSSES + 1


LOST = LostChild("Lost.")


def test_losses_without_progress_end_the_step_and_other_errors_at_once(endings):
    lost = endings(*[LOST] * (LOSSES + 1))
    with pytest.raises(LostChild):
        run_step("f", {}, Path(), lambda event: None)

    assert len(lost) == LOSSES + 1
    for error in (TookTooLong("Late."), BadInput("Wrong.")):
        ended = endings(error, None)
        with pytest.raises(type(error)):
            run_step("f", {}, Path(), lambda event: None)
        assert len(ended) == 1


def test_a_child_that_was_stopped_is_killed_and_counts_as_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "SILENT_SECONDS", 6.0)

    def stop(event):
        os.kill(int(event.message), signal.SIGSTOP)

    with pytest.raises(LostChild, match="sent no sign of life") as caught:
        run_child("tests.runtime.programs.steps:name_itself", {}, tmp_path, stop)

    assert caught.value.transient


@pytest.mark.usefixtures("forked")
def test_the_time_that_a_laptop_is_closed_is_none_of_its_steps(tmp_path, monkeypatch):
    clock = itertools.count(step=86400.0)  # a day at each look
    monkeypatch.setattr(children, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert step("name_processes", {}, tmp_path, at_most=60.0)[0] == {}


def test_a_child_that_takes_longer_than_it_may_is_killed_however_many_signs_it_sends(tmp_path):
    with pytest.raises(TookTooLong, match=r"longer than 0\.1 min, the time_limit of its grid") as caught:
        run_child("tests.runtime.programs.steps:name_itself", {}, tmp_path, at_most=6.0)

    assert caught.value.transient
