"""How far a running training is, in a file of its folder that other programs read."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.runtime.errors import TriageError
from tasks.runtime.events import Emit, Event, TrainingReport, ValidationReport
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import is_locked

FILE = "reported.json"


class Reported(BaseModel):
    """The last report of a training: updates made of `iterations`, the losses of the last reports
    of each kind, seconds to the last update.
    """

    model_config = ConfigDict(frozen=True)

    iteration: int
    iterations: int
    loss: float
    validation: float | None = None
    seconds_left: float

    @classmethod
    def of_running(cls, folder: Path) -> Reported | None:
        """That of the training that runs in `folder`; None if none runs or none was reported."""
        # The file stays when a training ends or is killed; its lock is released.
        if not is_locked(folder):
            return None
        try:
            return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None


def reporting_to(folder: Path, emit: Emit) -> Emit:
    """`emit`, and the reports of a training in its folder's file, too."""
    (folder / FILE).unlink(missing_ok=True)
    last: Reported | None = None
    validation: float | None = None

    def emit_and_write(event: Event) -> None:
        nonlocal last, validation
        emit(event)
        match event:
            case TrainingReport():
                last = Reported(
                    iteration=event.iteration,
                    iterations=event.iterations,
                    loss=event.loss,
                    validation=validation,
                    seconds_left=event.seconds_left,
                )
            case ValidationReport():
                validation = event.loss
                last = last and last.model_copy(update={"validation": validation})
            case _:
                return

        if last is not None:
            _write(folder / FILE, last)

    return emit_and_write


def _write(path: Path, reported: Reported) -> None:
    try:
        write_atomic(path, reported.model_dump_json())
    except (OSError, TriageError):  # a picture of the progress is no reason to lose the training
        return
