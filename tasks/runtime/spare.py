"""A process that has imported what a step needs, while the step before it still runs: imports take seconds.

Only where steps follow each other (`kept`), and not beside a measurement. There is one spare at most, with the modules
that the steps of its parent have needed so far. It reads what to do as one line on its standard input, and leaves where
that closes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.runtime.device import cores

OPTION = "--spare"


@dataclass(frozen=True)
class _Spare:
    process: subprocess.Popen[str]
    environment: dict[str, str]
    folder: Path  # its working folder


_spares: list[_Spare] = []
_lock = threading.Lock()
_kept = threading.Event()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the block runs, each step starts a spare for the next one."""
    _kept.set()
    try:
        yield
    finally:
        _kept.clear()
        end()


def start(child: str, environment: dict[str, str], modules: Iterable[str]) -> None:
    """Start a spare for module `child`, which imports `modules` and waits: if spares are kept, there is none yet, and
    there is a core for it."""
    with _lock:
        if not _kept.is_set() or _spares or cores() < 2:
            return
        process = subprocess.Popen(
            [sys.executable, "-m", child, OPTION, *sorted(modules)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _spares.append(_Spare(process, environment, Path.cwd()))


def take(spec: Path, log: Path, environment: dict[str, str]) -> subprocess.Popen[str] | None:
    """The spare, told to run the step of `spec`; None if there is none of this environment and working folder."""
    with _lock:
        spare = _spares.pop() if _spares else None
    if spare is None:
        return None
    if spare.environment == environment and spare.folder == Path.cwd() and spare.process.poll() is None:
        assert spare.process.stdin is not None
        try:
            spare.process.stdin.write(json.dumps({"spec": str(spec.resolve()), "log": str(log.resolve())}) + "\n")
            spare.process.stdin.flush()
        except OSError:  # it has just ended
            pass
        else:
            return spare.process
    _end(spare)
    return None


def end() -> None:
    """End the spare, if there is one."""
    with _lock:
        while _spares:
            _end(_spares.pop())


def _end(spare: _Spare) -> None:
    spare.process.kill()  # it holds nothing yet
    spare.process.communicate()
