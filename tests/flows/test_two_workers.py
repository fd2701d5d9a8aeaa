"""The example of a fleet on one machine: a real server, two workers, a shared folder and a sweep that is killed once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.place import ROOT

SCRIPT = ROOT / "deployments" / "examples" / "two_workers.sh"
EXPERIMENTS = 4


@pytest.mark.nightly
def test_two_workers_land_every_experiment_once_although_the_sweep_is_killed(tmp_path):
    python = sys.executable
    own_environment = {
        "TRIAGE": f"{python} -m flows.cli",
        "PREFECT": f"{python} -m prefect",
        "PORT": "4397",
        "PYTHONPATH": str(ROOT),
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TRIAGE_", "PREFECT_"))}
    command = ["sh", str(SCRIPT), str(EXPERIMENTS), str(tmp_path)]
    script = subprocess.Popen(
        command, env=inherited | own_environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip

    try:
        printed = []
        for line in script.stdout:
            printed.append(line)
            if "landed   " in line:  # kill the sweep in mid run; the machines go on
                asks = subprocess.run(
                    ["pgrep", "-g", str(script.pid), "-f", "sweep smoke"], capture_output=True, text=True
                )
                for pid in asks.stdout.split():
                    os.kill(int(pid), signal.SIGKILL)
                break

        printed += script.stdout.readlines()
        assert script.wait() != 0, "the killed sweep"
    finally:
        end(script)

    again = subprocess.run(command, env=inherited | own_environment, cwd=tmp_path, capture_output=True, text=True)
    figures = dict(line.split(":", 1) for line in again.stdout.splitlines() if line.count(":") == 1)
    assert again.returncode == 0, "".join(printed)[-3000:] + again.stdout[-3000:] + again.stderr[-2000:]
    assert int(figures["experiments landed"]) == int(figures["of them different"]) == EXPERIMENTS
    assert sum(map(int, figures["trained by the workers"].split("+"))) == EXPERIMENTS, "none is trained twice"
    assert "0 came twice" in figures["results in the shared folder"]


def end(script: subprocess.Popen) -> None:
    """End what the script started, if it still runs."""
    try:
        os.killpg(script.pid, signal.SIGTERM)
        time.sleep(5)
        os.killpg(script.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
