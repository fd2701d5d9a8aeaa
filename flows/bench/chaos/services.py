"""Programs that run beside a sweep and are started again when they have ended, as a unit file does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

RESTART_SECONDS = 5.0  # between an end and the next start
LEAVE_SECONDS = 20.0  # that a program has to end when it is asked


@dataclass
class Service:
    """A program with its environment and the file that gets what it prints."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    _process: subprocess.Popen[bytes] | None = None
    _ended_at: float | None = None

    @property
    def process(self) -> psutil.Process | None:
        """It, while it runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._process.pid)
        return None

    def is_due(self) -> bool:
        """Whether it has to be started: it never was, or has ended some seconds ago."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        return time.monotonic() > self._ended_at + RESTART_SECONDS

    def keep(self) -> None:
        """Start it if it is due."""
        if not self.is_due():
            return

        self._ended_at = None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def leave(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
