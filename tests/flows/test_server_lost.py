"""Prefect's temporary server is killed while a sweep runs, and a sweep is killed that has one."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from deployments.temporary_server import LOST
from tests.flows.test_kill import has_gone, server_of
from tests.place import Place, one_sentence

SWEEP = ["sweep", "smoke", "--model", "tiny-llama", "--recipe", "baseline"]
# Every process of Prefect's server but the first is replaced by this command.
OTHER_SERVERS = """
import subprocess, sys
from deployments import temporary_server
from flows.cli.main import main
real, starts = temporary_server._start, []
def start(listener):
    starts.append(listener)
    return real(listener) if len(starts) == 1 else subprocess.Popen({command})
temporary_server._start = start
main()
"""


@pytest.fixture
def with_other_servers(tmp_path: Path):
    return lambda *command: Place(tmp_path / "place", ("-c", OTHER_SERVERS.format(command=list(command))))


def wait_for(place: Place, text: str, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while text not in (place.folder / "out").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert text in (place.folder / "out").read_text(), (place.folder / "err").read_text()


def kill_server(place: Place) -> int:
    server = server_of(place)
    os.kill(server, signal.SIGKILL)
    return server


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def running_names(processes: list[psutil.Process]) -> list[str]:
    """Commands of those that still run, after they had some seconds to end."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return [" ".join(process.cmdline()) for process in alive]


@pytest.mark.nightly  # that another server is started is tested without a sweep, in cli/test_sweep_command.py
def test_a_sweep_whose_server_is_killed_says_so_starts_another_and_finishes(place):
    process = place.start(*SWEEP)
    wait_for(place, "landed   ")
    first = kill_server(place)
    wait_for(place, "Prefect's temporary server is gone (it was ended by signal 9); starting another ...", 10)
    wait_for(place, "Prefect's temporary server runs again; the sweep goes on.", 120)
    second = server_of(place)
    ended = place.finish(process)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "2 experiments are in the warehouse" in ended.stdout and ended.stdout.count("landed   ") == 2
    assert first != second and has_gone(second, 10)
    (state,) = place.prefect("SELECT state_name FROM flow_run WHERE name LIKE 'sweep%'")
    assert state == ("Completed",)


@pytest.mark.nightly  # that the sweep is told is tested without one, in cli/test_sweep_command.py
def test_a_sweep_without_any_server_ends_in_order_with_exit_code_one(with_other_servers):
    place = with_other_servers("false")
    process = place.start(*SWEEP, "--limit", "1")
    wait_for(place, "weights  tiny-llama")
    child_processes = descendants(process.pid)
    kill_server(place)
    killed = time.monotonic()
    ended = place.finish(process)
    assert time.monotonic() - killed < 30, "five seconds, on a machine that is not busy"
    assert ended.returncode == 1 and ended.stderr == f"triage: {LOST}\n" and one_sentence(ended.stderr)
    assert running_names(child_processes) == []


@pytest.mark.nightly  # that Ctrl-C reaches a sweep is tested in test_kill.py
def test_ctrl_c_ends_a_sweep_that_has_no_server_at_the_moment(with_other_servers):
    place = with_other_servers("sleep", "100")
    process = place.start(*SWEEP, "--limit", "1")
    wait_for(place, "weights  tiny-llama")
    kill_server(place)
    wait_for(place, "starting another", 10)
    child_processes = descendants(process.pid)
    interrupted = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    ended = place.finish(process)
    assert time.monotonic() - interrupted < 30, "five seconds, on a machine that is not busy"
    assert ended.returncode == 130 and one_sentence(ended.stderr) and "Interrupted." in ended.stderr
    assert running_names(child_processes) == []
