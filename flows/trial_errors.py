"""The error of a trial with which a search ends: which trial it was, and the log that says why."""

from __future__ import annotations

import traceback

from tasks.runtime.errors import BadInput, Locked, SourceUnavailable, Stopped, TriageError
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.search.trial import Trial

OF_THE_USER = (BadInput, SourceUnavailable, Locked)


def ending(trial: Trial, error: Exception) -> Exception:
    """The error that ends the search after `error` in a trial: as it is where the user can change
    something, and otherwise with the trial in front. The traceback of an unexpected one is stored.
    """
    if isinstance(error, (*OF_THE_USER, Stopped)):
        return error
    if isinstance(error, TriageError):
        return TriageError(f"Trial {trial.number} ended: {error}")
    log = home() / "logs" / f"trial-{trial.training_id}" / "traceback.log"
    write_atomic(log, "".join(traceback.format_exception(error)))
    reason = f"{type(error).__name__}: {error}"
    return TriageError(f"Trial {trial.number} ended unexpectedly: {reason}. Its log is {log}.")
