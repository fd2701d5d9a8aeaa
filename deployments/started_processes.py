"""The processes that `triage up` starts, written down, so that the next start can end what a killed one left.

Each is the leader of its own process group. A record is the file `up/<host>-<name>` of TRIAGE_HOME.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.runtime.store import home, write_atomic

PATIENCE = 10.0  # seconds that a process has to end by itself


def start(
    stack: contextlib.ExitStack, arguments: list[str], environment: dict[str, str], name: str
) -> subprocess.Popen[bytes]:
    """Start a Prefect command in its own process group, stopped with the stack; what it prints goes to a log."""
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
    record = _records(home()) / f"{socket.gethostname()}-{name}"
    stack.callback(record.unlink, missing_ok=True)
    stack.callback(_end, process.pid, lambda: process.poll() is not None)
    write_atomic(record, json.dumps({"pid": process.pid, "command": " ".join(arguments)}))
    return process


def end_leftovers(root: Path) -> list[int]:
    """End the processes that a killed `triage up` of this TRIAGE_HOME left; call it only while no other one runs.

    Returns their process ids. A worker is killed rather than asked, since it would first wait for its run.
    """
    ended = []
    for record in sorted(_records(root).glob(f"{socket.gethostname()}-*")):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            left = json.loads(record.read_text(encoding="utf-8"))
            pid = int(left["pid"])
            if left["command"] in command_of(
                pid
            ):  # and not another process that has its number by now
                if left["command"].startswith("worker "):
                    kill_group(pid)
                _end(pid, lambda pid=pid: not command_of(pid))  # type: ignore[misc]
                ended.append(pid)
        record.unlink(missing_ok=True)
    return ended


def kill_group(group: int) -> None:
    """Kill a process group at once, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def command_of(pid: int) -> str:
    """The command line of a running process; empty if there is none."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        if Path("/proc/self").exists():
            return ""
    listed = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()


def _end(group: int, ended: Callable[[], bool]) -> None:
    """End a process group: asked first, then told. `ended` says whether its leader is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + PATIENCE
        while not ended() and time.monotonic() < deadline:
            time.sleep(0.05)
        if ended() and not _group_lives(group):
            return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _records(root: Path) -> Path:
    return root / "up"
