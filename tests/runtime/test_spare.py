"""The next step finds a process that has its imports behind it, and is run as any other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.runtime import child, spare
from tasks.runtime.child import run_child, stop_children
from tasks.runtime.errors import LostChild
from tests.runtime.test_child import ROOT, alive

STEPS = "tests.runtime.steps"


@pytest.fixture(autouse=True)
def two_cores_and_spares_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spare, "cores", lambda: 2)
    monkeypatch.setattr(child, "_modules", set())  # and not all that other tests' steps have needed
    with spare.kept():
        yield


def waiting() -> int:
    (found,) = spare._spares
    return found.process.pid


def pid_of(folder: Path) -> int:
    events: list[dict] = []
    run_child(f"{STEPS}:tell_pid", {}, folder, events.append)
    return events[0]["pid"]


def test_the_next_step_runs_in_the_spare_and_what_it_prints_goes_to_its_own_log(tmp_path):
    first = pid_of(tmp_path / "first")
    expected = waiting()
    events: list[dict] = []
    assert run_child(f"{STEPS}:chatter", {}, tmp_path / "second", events.append) == {"sum": 3}
    assert expected != first and not alive(expected) and waiting() != expected
    assert events == [{"event": "note", "message": "a line\nwith a break and ünïcode"}]
    log = (tmp_path / "second" / "child.log").read_text()
    assert "a warning" in log and "not from us" in log and not (tmp_path / "first" / "child.log").read_text()


def test_it_has_imported_what_the_steps_before_needed(tmp_path):
    args = {"spec": str(tmp_path / "spec.json")}
    assert run_child(f"{STEPS}:imported_early", args, tmp_path) == {"early": False}
    for _ in range(20):
        time.sleep(1)  # for its imports, on a busy machine
        if run_child(f"{STEPS}:imported_early", args, tmp_path)["early"]:
            return
    pytest.fail("no spare had its imports behind it when its step came")


def test_it_serves_no_step_of_another_environment_or_folder(tmp_path, monkeypatch):
    for change in (lambda: monkeypatch.setenv("TRIAGE_X", "1"), lambda: monkeypatch.chdir(tmp_path)):
        pid_of(tmp_path / "log")
        unfit = waiting()
        change()
        assert pid_of(tmp_path / "log") != unfit and not alive(unfit)
    pid_of(tmp_path / "log")
    run_child(f"{STEPS}:tell_pid", {}, tmp_path / "log", environment={"TRIAGE_X": "2"})
    assert not spare._spares, "a step with an environment of its own, as in a benchmark, starts none beside it"


def test_a_spare_that_died_is_passed_over_and_a_killed_step_in_one_is_lost_as_any_other(tmp_path):
    pid_of(tmp_path / "log")
    os.kill(waiting(), signal.SIGKILL)
    spare._spares[0].process.wait()
    assert pid_of(tmp_path / "log")
    unlucky = waiting()
    with pytest.raises(LostChild):
        run_child(f"{STEPS}:signalled", {"signal": int(signal.SIGKILL)}, tmp_path / "log")
    assert not alive(unlucky)


def test_stopping_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_stopping", type(child._stopping)())
    pid_of(tmp_path / "log")
    left = waiting()
    stop_children()
    assert not alive(left) and not spare._spares


def test_none_is_started_where_none_is_kept_as_in_a_benchmark(tmp_path):
    with spare.kept():
        pid_of(tmp_path / "log")
        left = waiting()
    assert not alive(left)
    pid_of(tmp_path / "log")
    assert not spare._spares


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_it_leaves_with_its_parent(end, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from tasks.runtime import spare; from tasks.runtime.child import run_child\n"
        f"spare.cores = lambda: 2; spare._kept.set(); run_child('{STEPS}:tell_pid', {{}}, Path(sys.argv[1]))\n"
        "print(spare._spares[0].process.pid, flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)}) if {end == 'kill'} else None"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    deadline = time.monotonic() + 30
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(done.stdout))
