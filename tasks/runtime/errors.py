"""Every error that a user may meet, as a sentence, and the exit code by which a child process reports it.

Transient errors are retried by the flows; terminal ones never are.
"""

from __future__ import annotations


class TriageError(Exception):
    """A sentence for the user: what is wrong, where, and what to do. Terminal unless a subclass says otherwise."""

    exit_code = 2
    transient = False


class BadInput(TriageError):
    """The user's grid, data or option cannot be used as it is."""


class SourceUnavailable(TriageError):
    """No listed source of a base model could be reached."""

    exit_code = 65
    transient = True


class BrokenFolder(TriageError):
    """A stored folder is incomplete or its digests do not match; it must be rebuilt."""

    exit_code = 66


class OutOfMemory(TriageError):
    """A step needed more memory than the machine has; retried with half the micro-batch."""

    exit_code = 67


class Diverged(TriageError):
    """Training met NaN or infinity; the last good adapter is kept."""

    exit_code = 68


class Locked(TriageError):
    """Another process holds the experiment folder or the warehouse."""

    exit_code = 75
    transient = True


class LostChild(TriageError):
    """A child process died by a signal that the study did not send."""

    exit_code = 70
    transient = True


LOST_PARENT = 71
BY_EXIT_CODE: dict[int, type[TriageError]] = {
    cls.exit_code: cls for cls in (BadInput, SourceUnavailable, BrokenFolder, OutOfMemory, Diverged, Locked, LostChild)
}
