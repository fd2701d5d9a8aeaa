"""Steps of a sweep are forked from a process that has their imports behind it, and run as any others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.runtime import children
from tasks.runtime.backend import can_fork
from tasks.runtime.children import forked_steps, run_child, stop_children
from tasks.runtime.errors import LostChild, Stopped
from tasks.runtime.events import Event, Note
from tests.runtime.test_child import ROOT, alive, ended, process_id

STEPS = "tests.runtime.programs.steps"
pytestmark = pytest.mark.skipif(not can_fork(), reason="steps are forked on Linux's CPU only")


@pytest.fixture(autouse=True)
def steps_are_forked() -> Iterator[None]:
    with forked_steps():
        yield


def parent_of(folder: Path) -> int:
    """The process id of what a step was forked from, or of what started it."""
    events: list[Event] = []
    run_child(f"{STEPS}:name_processes", {}, folder, events.append)
    (note,) = events
    assert isinstance(note, Note)
    return int(note.message.split()[1])


def test_steps_are_forked_from_one_server_with_the_environment_of_their_time_and_print_to_their_own_logs(
    tmp_path, monkeypatch
):
    server = parent_of(tmp_path / "first")
    events: list[Event] = []
    assert run_child(f"{STEPS}:chatter", {}, tmp_path / "second", events.append) == {"sum": 3}
    assert parent_of(tmp_path / "third") == server != os.getpid()
    calls = [run_child(f"{STEPS}:count_calls", {}, tmp_path)["calls"] for _ in range(2)]
    assert calls == [1, 1], "nothing is left of the step before"
    assert events == [Note("a line\nwith a break and ünïcode")]
    log = (tmp_path / "second" / "child.log").read_text()
    assert "a warning" in log and "not from us" in log and not (tmp_path / "first" / "child.log").read_text()

    monkeypatch.setenv("TRIAGE_X", "1")
    monkeypatch.chdir(tmp_path)
    outcome = run_child(f"{STEPS}:surroundings", {"name": "TRIAGE_X"}, tmp_path)
    assert outcome == {"value": "1", "folder": str(tmp_path), "parent": server}
    monkeypatch.delenv("TRIAGE_X")
    assert run_child(f"{STEPS}:surroundings", {"name": "TRIAGE_X"}, tmp_path)["value"] is None


def test_a_killed_server_takes_its_step_along_and_is_replaced(tmp_path):
    server = parent_of(tmp_path)
    events: list[Event] = []
    of_others = set(children._running)

    def kill_and_end(event: Event) -> None:
        events.append(event)
        os.kill(server, signal.SIGKILL)
        (process,) = children._running - of_others
        assert process.wait(10) == -signal.SIGKILL

    with pytest.raises(LostChild):
        run_child(f"{STEPS}:wait", {"folder": str(tmp_path / "x")}, tmp_path, kill_and_end)

    assert ended(process_id(events[0])), "the step waits for a minute"
    assert parent_of(tmp_path) not in (server, os.getpid())


def test_a_server_that_dies_between_two_steps_is_replaced(tmp_path):
    first = parent_of(tmp_path)
    os.kill(first, signal.SIGKILL)
    while alive(first):
        time.sleep(0.01)
    assert parent_of(tmp_path) == parent_of(tmp_path) != first


def test_stopping_ends_the_step(tmp_path):
    pids: list[int] = []

    def stop(event: Event) -> None:
        pids.append(process_id(event))
        stop_children()

    for _ in range(2):  # and no other one is started
        with pytest.raises(Stopped) as caught:
            run_child(f"{STEPS}:wait", {"folder": str(tmp_path / "x")}, tmp_path, stop)
        assert not caught.value.transient, "a step that was stopped on purpose is not tried again"
    assert len(pids) == 1 and not alive(pids[0])


def test_the_server_leaves_with_its_parent(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tasks.runtime.children import run_child; from tasks.runtime.children import forked_steps\n"
        "with forked_steps():\n"
        f"    result = run_child('{STEPS}:surroundings', {{'name': 'HOME'}}, Path(sys.argv[1]))\n"
        "print(result['parent'], flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert ended(int(result.stdout)), result.stderr


def test_ctrl_c_while_the_server_imports_prints_nothing_and_the_parent_decides_what_ends(tmp_path):
    code = (
        "import os, signal, sys, time; from multiprocessing import forkserver; from pathlib import Path\n"
        "from tasks.runtime.children import forked_steps, import_ahead, run_child\n"
        f"with forked_steps('{STEPS}', 'tests.runtime.programs.slow_import'):\n"
        "    import_ahead()\n"
        "    while not Path(os.environ['BEGUN']).exists():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)\n"
        f"    print(run_child('{STEPS}:add', {{'a': 1, 'b': 2}}, Path(sys.argv[1]))['sum'])\n"
    )
    environment = {**os.environ, "BEGUN": str(tmp_path / "begun")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (result.stdout, result.stderr) == ("3\n", "")
