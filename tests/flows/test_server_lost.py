"""Prefect's temporary server is killed while a sweep runs, and no other one can be started."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from deployments.server import LOST
from tests.flows.test_kill import server_of
from tests.place import Place, one_sentence, wait_until

# Every process of Prefect's server but the first ends at once.
NO_OTHER_SERVER = """
import subprocess
from deployments import server as temporary_server
from flows.cli.main import main
real, starts = temporary_server._start, []
def start(listener):
    starts.append(listener)
    return real(listener) if len(starts) == 1 else subprocess.Popen("false")
temporary_server._start = start
main()
"""


@pytest.mark.nightly  # that another server is started, and a sweep told, is tested in cli/test_sweep_command.py
def test_a_sweep_without_any_server_ends_in_order_with_exit_code_one(tmp_path: Path):
    place = Place(tmp_path / "place", ("-c", NO_OTHER_SERVER))
    process = place.start("sweep", "smoke", "--model", "tiny-llama", "--recipe", "baseline", "--limit", "1")
    wait_until(lambda: "weights  tiny-llama" in (place.folder / "out").read_text(), 200)
    child_processes = psutil.Process(process.pid).children(recursive=True)
    os.kill(server_of(place), signal.SIGKILL)
    killed = time.monotonic()
    ended = place.finish(process)
    assert time.monotonic() - killed < 30, "five seconds, on a machine that is not busy"
    assert ended.returncode == 1 and ended.stderr == f"triage: {LOST}\n" and one_sentence(ended.stderr)
    _, alive = psutil.wait_procs(child_processes, timeout=10)
    assert [" ".join(process.cmdline()) for process in alive] == []
