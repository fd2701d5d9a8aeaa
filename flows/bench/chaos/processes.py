"""The processes of a home: what they are started with, and which of them does what."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
CHILD = "tasks.runtime.child"
OPTION = "multiprocessing.forkserver"
OURS = ("PREFECT_", "TRIAGE_", "HF_")  # settings of the caller that must not reach what is started
KEPT = "TRIAGE_BACKEND"


def own_environment(home: Path, prefect_home: Path) -> dict[str, str]:
    """The environment of a process that works in a home, whatever the caller's settings are."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == KEPT or not name.startswith(OURS)
    }
    return inherited | {
        "TRIAGE_HOME": str(home),
        "TRIAGE_WAREHOUSE": str(home / "triage.duckdb"),
        "PREFECT_HOME": str(prefect_home),
        # Prefect leaves folders there when it is killed.
        "TMPDIR": str(prefect_home.with_name("tmp")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def processes_of(homes: Collection[Path]) -> list[psutil.Process]:
    """The running processes whose TRIAGE_HOME is one of `homes`."""
    home_names = {str(home) for home in homes}
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get("TRIAGE_HOME") in home_names:
                processes.append(process)

    return processes


def command(process: psutil.Process) -> str:
    """Its command line, empty if it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def fork_servers(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that fork steps, whose command line a step that they forked has, too."""
    having = {process.pid: process for process in processes if OPTION in command(process)}
    return [process for process in having.values() if _parent(process) not in having]


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def steps(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes of steps, forked or not."""
    step_processes = [
        process
        for process in processes
        if CHILD in command(process) and OPTION not in command(process)
    ]
    for server in fork_servers(processes):
        with contextlib.suppress(psutil.Error):
            step_processes += server.children()
    return step_processes


def mapped_files(processes: list[psutil.Process]) -> set[str] | None:
    """Files that processes have mapped: they have verified them, and would not see a later change.
    None where the system does not say which these are, as macOS.
    """
    if not hasattr(psutil.Process, "memory_maps"):
        return None

    paths: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            paths.update(part.path for part in process.memory_maps())
    return paths
