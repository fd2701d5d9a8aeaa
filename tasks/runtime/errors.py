"""Every error that a user may meet, as a sentence, and the findings of a check."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class TriageError(Exception):
    """A sentence for the user: what is wrong, where, and what to do."""

    transient = False  # whether flows try again


class BadInput(TriageError):
    """The user's grid, data or option cannot be used."""


class DoesNotFit(BadInput):
    """A training needs more memory than it may have, whatever is halved."""


class SourceUnavailable(TriageError):
    """No listed source of a base model is available.

    `transient` is False if a second request would get the same answer. `elsewhere` is False if the
    source has the weights but the server is busy, or the download is damaged: another source, which
    may hold other weights under the same name, must not silently take its place.
    """

    transient = True

    def __init__(self, sentence: str, transient: bool = True, elsewhere: bool = True) -> None:
        super().__init__(sentence)
        self.transient = transient
        self.elsewhere = elsewhere


class BrokenFolder(TriageError):
    """A stored folder is incomplete or its digests do not match; it must be rebuilt."""


class OutOfMemory(TriageError):
    """A step needed more memory than the machine has; it is retried with half the micro-batch."""


class Diverged(TriageError):
    """Training met NaN or infinity; the last good adapter is kept."""


class Locked(TriageError):
    """Another process holds the experiment folder or the warehouse."""

    transient = True


class NotShared(TriageError):
    """The place that machines share cannot be read or written; what was to be copied stays here."""

    transient = True


class LostChild(TriageError):
    """A child process died by a signal that this program did not send."""

    transient = True


class TookTooLong(LostChild):
    """A child process took longer than its step may, and was killed."""


class GpuFailed(TriageError):
    """The GPU's driver ended a step's work, as it does when the display needs the GPU."""

    transient = True


class Stopped(TriageError):
    """The sweep was interrupted; its steps end and are not retried."""


CLOSE_PROGRAMS = "Close other programs, such as a browser, and run the same command again."
LOST_PARENT = 71  # the exit code of a child whose parent has gone
# What a child process may report, by name. One that is stopped, or takes too long, does not itself.
_REPORTED: list[type[TriageError]] = [TriageError, DoesNotFit, *TriageError.__subclasses__()]
BY_NAME = {cls.__name__: cls for cls in _REPORTED if cls is not Stopped}

# Some libraries report a full disk in words only: C's strerror, and MLX.
_DISK_FULL_WORDS = ("No space left on device", "[write] Unable to write")

# What MLX says when memory is short: its allocators, the C library, and Metal's command buffers.
_MEMORY_WORDS = ("malloc", "out of memory", "insufficient memory", "outofmemory")
# What Metal says when its driver ends a command buffer for a reason that passes; the last one of a
# buffer that was discarded since another program's failed.
_GPU_WORDS = ("gpu timeout", "impacting interactivity", "gpu hang", "innocentvictim")

# What MLX and macOS say without a GPU that MLX can use, as in a virtual Mac.
_NO_GPU_WORDS = (
    "failed to load device",
    "[metal::device]",
    "beyond bounds for empty array",
    "appleparavirt",
)


def device_error(text: str) -> TriageError | None:
    """The error that the words of a library amount to, if they are about memory or the GPU."""
    words = text.lower()
    if any(word in words for word in _NO_GPU_WORDS):
        problem = f"MLX cannot use this machine's GPU ({text.splitlines()[0]})"
        return BadInput(f"{problem}; set TRIAGE_BACKEND=cpu to compute on its processor.")
    # Of the number of buffers and not of their bytes: each length for which MLX compiles a step
    # keeps some until the process ends (mlx issue 4464).
    if "resource limit" in words:
        return GpuFailed(
            f"The step's process held as many buffers as Metal allows: {text} A new process holds "
            "none; if it happens again without progress, report it with the step's log."
        )
    if any(word in words for word in _MEMORY_WORDS):
        return OutOfMemory(f"The step ran out of memory: {text}. {CLOSE_PROGRAMS}")
    if any(word in words for word in _GPU_WORDS):
        return GpuFailed(
            f"The GPU did not finish the step's work: {text}. While a Mac's display is on, its "
            "watchdog ends long work of the GPU: let the display sleep."
        )

    return None


def disk_full(path: Path) -> BadInput:
    """The error for a write to `path` that failed for lack of space."""
    return BadInput(
        f"The disk is full: {path} could not be written; free some space and run the command again."
    )


def is_disk_full(error: BaseException | None) -> bool:
    """True if an error, or one that caused it, says that a disk is full.

    Not all libraries raise OSError for it.
    """
    seen: list[BaseException] = []
    # `raise disk_error(error, path) from error` can make an error its own cause.
    while error is not None and error not in seen:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in _DISK_FULL_WORDS):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__

    return False


def disk_error(error: OSError, path: Path) -> Exception:
    """A refusal of the file system as a sentence if the user can fix it, else the error itself."""
    if is_disk_full(error):
        return disk_full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInput(
            f"{path} may not be written ({error.strerror}); choose another folder with TRIAGE_HOME."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
        return BadInput(f"{path} cannot be created ({error.strerror}); choose another TRIAGE_HOME.")

    return error


Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and where it is not well, what to do."""

    name: str
    level: Level
    detail: str
    remedy: str = ""
