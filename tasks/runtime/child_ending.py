"""How a child process ended, and the error that this amounts to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.runtime.errors import (
    BY_EXIT_CODE,
    LOST_PARENT,
    GpuFailed,
    LostChild,
    OutOfMemory,
    TookTooLong,
    TriageError,
    device_error,
    disk_full,
)
from tasks.runtime.events import StepError, StepResult
from tasks.runtime.watchdog import SILENT_SECONDS

# Of the budget, by the last heartbeat: a process that is killed with more ran out of memory.
MEMORY_SHARE_OF_OOM = 0.9
NEARLY_FULL_BYTES = 16 << 20
METAL = "[METAL]"
READ_OF_LOG = 1 << 16


@dataclass(frozen=True)
class Ending:
    """How a child ended. `outcome`: its last event, if it wrote one.

    `resident`: the bytes that it last held. `log_start`: where its part of the log begins.
    `killed_for`: why the watchdog killed it, if it did.
    """

    code: int
    outcome: StepResult | StepError | None
    resident: int
    log_start: int = 0
    killed_for: Literal["silence", "time"] | None = None


def error_of(ending: Ending, budget: int | None, log: Path, at_most: float | None) -> TriageError:
    """The error that the ending of a child amounts to.

    `budget`: bytes of memory that it could take; `at_most`: seconds that it could run.
    """
    code = ending.code
    message = ending.outcome.message if isinstance(ending.outcome, StepError) else None
    if code in BY_EXIT_CODE and message is not None:
        return BY_EXIT_CODE[code](message)
    if code == LOST_PARENT:
        return LostChild(
            "The step's process exited, since its pipe from the sweep had closed; its log is "
            f"{log}."
        )
    # Before signals: the watchdog kills by one, too.
    if ending.killed_for == "silence":
        return LostChild(
            f"The step's process sent no sign of life for {SILENT_SECONDS / 60:.0f} min and was "
            f"killed; its log is {log}."
        )
    if ending.killed_for == "time" and at_most is not None:
        return TookTooLong(
            f"The step took longer than {at_most / 60:.3g} min, the time_limit of its grid, and "
            f"was killed; its log is {log}."
        )
    if code < 0:
        return _error_of_signal(ending, budget, log)

    return TriageError(f"The step failed: {message or f'exit code {code}'}. Its log is {log}.")


def _error_of_signal(ending: Ending, budget: int | None, log: Path) -> TriageError:
    number = -ending.code
    resident_bytes = ending.resident
    if number == signal.SIGKILL and budget and resident_bytes >= MEMORY_SHARE_OF_OOM * budget:
        return OutOfMemory(
            f"The step was killed while it held {resident_bytes / 1e9:.1f} GB "
            f"of a budget of {budget / 1e9:.1f} GB."
        )
    # A write into a mapped file ends this way on a full disk.
    if number == signal.SIGBUS and shutil.disk_usage(log.parent).free < NEARLY_FULL_BYTES:
        return disk_full(log.parent)
    if number == signal.SIGABRT and (metal := _words_of_metal(log, ending.log_start)):
        return device_error(metal) or GpuFailed(f"The GPU's driver ended the step: {metal}.")

    return LostChild(f"The step's process was ended by signal {number}; its log is {log}.")


def _words_of_metal(log: Path, start: int) -> str | None:
    """The last thing that a child's log says about Metal, whose errors may end a process.

    MLX raises some of them on a thread of the driver, where nothing can catch them.
    """
    with contextlib.suppress(OSError), log.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(start, end - READ_OF_LOG))
        lines = stream.read().decode(errors="replace").splitlines()
        metal_lines = [line[line.index(METAL) :].strip() for line in lines if METAL in line]
        return metal_lines[-1] if metal_lines else None
    return None
