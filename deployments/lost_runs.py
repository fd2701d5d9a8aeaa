"""Flow runs whose process is gone, as after a power cut: Prefect leaves them Running for ever, so they are queued again.

Only runs of our work pool, only where no process of this machine carries the run's id, and not what a worker elsewhere
has taken. Running one again repeats no finished work: every step is content-addressed, and a training resumes from its
checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from deployments.prefect_api import post
from deployments.worker_names import is_elsewhere, other_workers


def queue_lost_runs(api: str, pool: str) -> list[str]:
    """Names of the runs that were put back into the queue of `pool`; `api` is the server's API address."""
    states = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
    runs = post(
        f"{api}/flow_runs/filter",
        {"flow_runs": {"state": states}, "work_pools": {"name": {"any_": [pool]}}},
    )
    processes = process_environments() if runs else ""
    lost = [run for run in runs if f"PREFECT__FLOW_RUN_ID={run['id']}" not in processes]
    others = other_workers(api, pool) if lost else []
    lost = [
        run
        for run in lost
        if not is_elsewhere(run["labels"].get("prefect.worker.name", ""), others)
    ]
    for run in lost:
        ending = run["state"]["type"] == "CANCELLING"
        state = {"type": "CANCELLED"} if ending else {"type": "SCHEDULED", "name": "AwaitingRetry"}
        post(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return [str(run["name"]) for run in lost]


def end_runs(api: str, home: Path) -> None:
    """Kill the processes of flow runs that report to `api` from this TRIAGE_HOME; the steps they started leave too."""
    ours = {"PREFECT_API_URL": api, "TRIAGE_HOME": str(home)}
    for line in process_environments().splitlines():
        of_us = all(_sets(line, name, value) for name, value in ours.items())
        if "prefect.engine" in line and "PREFECT__FLOW_RUN_ID=" in line and of_us:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def _sets(line: str, name: str, value: str) -> bool:
    """Whether a process has a variable of this value: `ps` divides with spaces, and a value may hold some itself."""
    return re.search(rf" {name}={re.escape(value)}(?= [^ =]+=| *$)", line) is not None


def process_environments() -> str:
    """Commands and environments of this user's processes, as `ps` of Linux and macOS prints them."""
    return subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
