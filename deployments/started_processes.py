"""Records the processes that `triage up` and `triage join` start, so that the next start can end
leftovers.

Each is the leader of its own process group. Its record is the file `<machine>-<name>` in a folder
of TRIAGE_HOME, `up` or `join`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deployments.machine_id import machine_id
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home

UP = "up"
PATIENCE = 10.0  # seconds that a process has to end after a signal
CLOCK_SECONDS = 60.0  # by which a corrected clock may move the times of processes and files apart


def start(
    stack: contextlib.ExitStack,
    arguments: list[str],
    environment: dict[str, str],
    name: str,
    records: str = UP,
) -> subprocess.Popen[bytes]:
    """Start a Prefect command in its own process group, stopped with the stack.

    It writes to a log.
    """
    log = home() / "logs" / f"prefect-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = stack.enter_context(log.open("ab"))
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=handle,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    record = home() / records / f"{machine_id()}-{name}"
    # The stack undoes these in reverse order: the record goes only once the process is gone.
    stack.callback(record.unlink, missing_ok=True)
    stack.callback(_end_group, process.pid, lambda: process.poll() is not None)
    write_atomic(record, json.dumps({"pid": process.pid, "command": " ".join(arguments)}))

    return process


def end_leftovers(root: Path, records: str = UP) -> list[int]:
    """End the processes that a killed command of this TRIAGE_HOME left, with these records.

    Returns their process ids. Call it only while no other such command of this home runs.
    """
    ended_pids = []
    for record in records_of(root / records, r"server|worker.*"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(record.read_text(encoding="utf-8"))
            pid = int(entry["pid"])
            if _end_recorded(pid, entry["command"], record):
                ended_pids.append(pid)
        record.unlink(missing_ok=True)

    return ended_pids


def _end_recorded(pid: int, command: str, record: Path) -> bool:
    """End the process of a record; False if it is gone, or its id belongs to another one now."""
    if command not in command_of(pid) or not is_older(pid, record):
        return False
    # A worker is killed rather than asked, since it would first wait for its run.
    if command.startswith("worker "):
        kill_group(pid)
    # Not a child of this process, so it cannot be polled; a zombie has no command line.
    _end_group(pid, lambda: not command_of(pid))
    return True


def records_of(folder: Path, name: str) -> list[Path]:
    """The records of this machine whose further name has a form; another machine's may begin alike."""
    of_this_machine = re.compile(f"{re.escape(machine_id())}-(?:{name})")
    return sorted(path for path in folder.glob("*") if of_this_machine.fullmatch(path.name))


def kill_group(group: int) -> None:
    """Kill a process group at once, if it still exists."""
    _signal_group(group, signal.SIGKILL)


def command_of(pid: int) -> str:
    """The command line of a running process; empty if there is none."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except (psutil.Error, ValueError):
        return ""


def is_older(pid: int, record: Path) -> bool:
    """Whether a process started before `record` was written.

    A later one has a reused process id.
    """
    try:
        return psutil.Process(pid).create_time() <= record.stat().st_mtime + CLOCK_SECONDS
    except (psutil.Error, ValueError):
        return False


def _end_group(group: int, leader_ended: Callable[[], bool]) -> None:
    """End a process group: SIGTERM first, SIGKILL if that is not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(group, number)
        deadline = time.monotonic() + PATIENCE
        while not leader_ended() and time.monotonic() < deadline:
            time.sleep(0.05)
        if leader_ended() and not _group_exists(group):
            return


def _group_exists(group: int) -> bool:
    return _signal_group(group, 0)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False if none of its processes runs.

    macOS refuses it, with PermissionError, where only zombies are left: their parent has not asked
    yet how they ended.
    """
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
