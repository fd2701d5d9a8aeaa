"""Steps of a sweep are forked from a process that has their imports behind it, and run as any others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.runtime import children, fork_server
from tasks.runtime.children import run_child, stop_children
from tasks.runtime.errors import LostChild, Stopped
from tasks.runtime.events import Event, Note
from tests.runtime.test_child import ROOT, alive, ended, process_id
from tests.stopping import stop_for_this_test_only

STEPS = "tests.runtime.programs.steps"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux only")


@pytest.fixture(autouse=True)
def server_kept() -> Iterator[None]:
    with fork_server.forked_steps():
        yield


def server() -> int:
    assert fork_server._server is not None
    return fork_server._server.process.pid


def parent_of(folder: Path, **options) -> int:
    """The process id of what a step was forked from."""
    events: list[Event] = []
    run_child(f"{STEPS}:name_processes", {}, folder, events.append, **options)
    assert isinstance(events[0], Note)
    return int(events[0].message.split()[1])


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    """A thread that works, started, and what it raises."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_steps_are_forked_from_one_server_and_what_they_print_goes_to_their_own_logs(tmp_path):
    assert parent_of(tmp_path / "first") == server()
    events: list[Event] = []
    assert run_child(f"{STEPS}:chatter", {}, tmp_path / "second", events.append) == {"sum": 3}
    assert parent_of(tmp_path / "third") == server()
    assert events == [Note("a line\nwith a break and ünïcode")]
    log = (tmp_path / "second" / "child.log").read_text()
    assert "a warning" in log and "not from us" in log and not (tmp_path / "first" / "child.log").read_text()


def test_a_step_finds_its_imports_done_and_nothing_of_the_step_before(tmp_path):
    args = {"spec": str(tmp_path / "spec.json")}
    run_child(f"{STEPS}:imported_early", args, tmp_path)
    assert run_child(f"{STEPS}:imported_early", args, tmp_path) == {"early": True}
    counts = [run_child(f"{STEPS}:count_calls", {}, tmp_path)["calls"] for _ in range(2)]
    assert counts == [1, 1]


def test_mlx_and_the_blas_compute_in_forked_steps_as_in_others(tmp_path):
    """MLX is imported before the fork, as it is by the real steps' modules."""
    step = "tests.runtime.programs.mlx_steps:product"
    forked = [run_child(step, {}, tmp_path) for _ in range(2)]
    own_values = run_child(step, {}, tmp_path, environment={"TRIAGE_X": "1"})
    assert forked == [own_values, own_values]


def test_each_step_gets_the_environment_and_folder_of_its_time(tmp_path, monkeypatch):
    assert parent_of(tmp_path) == server()
    monkeypatch.setenv("TRIAGE_X", "1")
    monkeypatch.chdir(tmp_path)
    outcome = run_child(f"{STEPS}:surroundings", {"name": "TRIAGE_X"}, tmp_path)
    assert outcome == {"value": "1", "folder": str(tmp_path), "parent": server()}
    monkeypatch.delenv("TRIAGE_X")
    assert run_child(f"{STEPS}:surroundings", {"name": "TRIAGE_X"}, tmp_path)["value"] is None


def test_a_step_that_asks_for_an_environment_as_in_a_benchmark_is_not_forked(tmp_path):
    assert parent_of(tmp_path) == server()
    assert parent_of(tmp_path, environment={"TRIAGE_X": "2"}) == os.getpid()


def test_imports_can_be_made_ahead_of_the_first_step(tmp_path):
    args = {"spec": str(tmp_path / "spec.json")}
    for seconds in (2, 10, 30):  # for the imports, on a busy machine
        with fork_server.forked_steps():
            children.import_ahead(STEPS)
            time.sleep(seconds)
            if run_child(f"{STEPS}:imported_early", args, tmp_path)["early"]:
                return

    pytest.fail("the first step came before its imports")


def test_beside_a_running_step_another_is_started_as_a_new_process(tmp_path):
    started = threading.Event()
    events = []

    def on_event(event: Event) -> None:
        events.append(event)
        started.set()

    args = {"folder": str(tmp_path / "locked")}
    other, errors = in_thread(lambda: run_child(f"{STEPS}:wait", args, tmp_path, on_event))
    assert started.wait(60)
    assert parent_of(tmp_path / "beside") == os.getpid()
    os.kill(process_id(events[0]), signal.SIGKILL)
    other.join(60)
    assert [type(error) for error in errors] == [LostChild]
    assert parent_of(tmp_path) == server()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGTERM])
def test_a_forked_step_that_a_signal_ends_is_lost_and_the_next_is_forked(number, tmp_path):
    with pytest.raises(LostChild, match=f"signal {int(number)}"):
        run_child(f"{STEPS}:signalled", {"signal": int(number)}, tmp_path)
    assert parent_of(tmp_path) == server()


def test_a_killed_server_takes_its_step_along_and_is_replaced(tmp_path):
    killed: list[int] = []
    events: list[Event] = []
    of_others = set(children._running)

    def kill_and_end(event: Event) -> None:
        events.append(event)
        killed.append(server())
        os.kill(server(), signal.SIGKILL)
        (process,) = children._running - of_others
        assert process.wait(10) == -signal.SIGKILL

    started = time.monotonic()
    with pytest.raises(LostChild):
        run_child(f"{STEPS}:wait", {"folder": str(tmp_path / "x")}, tmp_path, kill_and_end)

    assert ended(process_id(events[0])) and time.monotonic() - started < 30, "the step waits for a minute"
    assert parent_of(tmp_path) == server() and killed != [server()]


def test_a_server_that_dies_between_two_steps_is_replaced(tmp_path):
    first = parent_of(tmp_path)
    os.kill(first, signal.SIGKILL)
    while alive(first):
        time.sleep(0.01)
    assert parent_of(tmp_path) == server() != first
    assert parent_of(tmp_path) == server()


def test_a_server_that_hangs_is_replaced_and_its_step_runs_as_a_new_process(tmp_path, monkeypatch):
    first = parent_of(tmp_path)
    monkeypatch.setattr(fork_server, "SILENT_SECONDS", 0.2)
    os.kill(first, signal.SIGSTOP)
    assert parent_of(tmp_path) == os.getpid() and not alive(first)
    monkeypatch.undo()
    assert parent_of(tmp_path) == server() != first


def test_stopping_ends_the_step_and_the_server(tmp_path, monkeypatch):
    stop_for_this_test_only(monkeypatch)
    pids: list[int] = []

    def stop(event: Event) -> None:
        pids.extend([server(), process_id(event)])
        stop_children()

    with pytest.raises(Stopped):
        run_child(f"{STEPS}:wait", {"folder": str(tmp_path / "x")}, tmp_path, stop)

    assert not any(alive(pid) for pid in pids) and fork_server._server is None


def test_stopping_does_not_wait_for_the_imports_of_the_server(tmp_path, monkeypatch):
    stop_for_this_test_only(monkeypatch)
    step, errors = in_thread(lambda: run_child("tests.runtime.programs.slow_import:nothing", {}, tmp_path))
    while fork_server._server is None:
        time.sleep(0.01)

    started = time.monotonic()
    stop_children()
    step.join(60)
    assert [type(error) for error in errors] == [Stopped] and time.monotonic() - started < 20


def test_steps_are_not_forked_without_a_server_as_in_a_benchmark(tmp_path):
    with fork_server.forked_steps():
        parent_left = parent_of(tmp_path)
        assert parent_left == server()
    assert not alive(parent_left)
    assert parent_of(tmp_path) == os.getpid() and fork_server._server is None


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_server_leaves_with_its_parent(end, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from tasks.runtime import fork_server\n"
        "from tasks.runtime.children import run_child\n"
        f"fork_server._forked_steps.set(); run_child('{STEPS}:name_processes', {{}}, Path(sys.argv[1]))\n"
        "print(fork_server._server.process.pid, flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)}) if {end == 'kill'} else None"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    deadline = time.monotonic() + 30
    while alive(int(result.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not alive(int(result.stdout))
