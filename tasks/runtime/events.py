"""What a step reports while it runs, as small classes.

A step calls `emit(event)`. In a child process that writes one line of JSON (`to_json`); the parent
reads it back (`from_json`) and hands it on, so code on both sides sees classes only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast, dataclass_transform

from tasks.runtime.backend import BACKENDS


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Event:
    """Something that a step, or the sweep itself, tells whoever listens; each kind of event is a
    frozen dataclass.
    """

    def __init_subclass__(cls, kw_only: bool = False) -> None:
        dataclass(frozen=True, kw_only=kw_only)(cls)


Emit = Callable[[Event], None]


class Note(Event):
    """A sentence for the reader of the log."""

    message: str


class MemoryNote(Note):
    """The chosen micro-batch, with the bytes of weights and optimizer, of the longest case, and of
    each further case.
    """

    held_bytes: int
    case_bytes: int
    further_bytes: int


class StepWarning(Event):
    """A sentence that a user should not miss; the step continues."""

    message: str


class ProgressReport(Event):
    """`done` of `of` units are finished; `what` names the work and its unit."""

    what: str
    done: int
    of: int


class CurvePoint(Event):
    """A point of a learning curve: means since the point before (split `train`), or of the whole
    set (`valid`).

    `loss` is the objective, the sum of `label_loss` (label tokens), `other_loss` (the other
    completion tokens) and `cost`. `ed_share`: share of cases answered ED; `specificity`: share of
    the non-ED cases that are not answered ED; `macro_f1`: of the most probable labels.
    """

    iteration: int
    split: str
    loss: float
    label_loss: float | None = None
    other_loss: float | None = None  # missing from curves that earlier versions wrote
    cost: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    ed_share: float | None = None
    specificity: float | None = None
    macro_f1: float | None = None  # likewise


class TrainingReport(CurvePoint, kw_only=True):
    """A point of the training curve; `iterations`: updates in all."""

    iterations: int
    seconds_left: float


class ValidationReport(CurvePoint, kw_only=True):
    """A point of the validation curve; `always_ed`: the model answers ED to nearly everything."""

    always_ed: bool


class Device(Event):
    """The machine that a step runs on; `gflops`: of a measured float32 matrix product."""

    backend: str
    compute_path: str
    compute_dtype: str
    blas: str
    gflops: float
    threads: int
    machine: str

    @property
    def on_gpu(self) -> bool:
        return BACKENDS[self.backend].on_gpu

    @property
    def products(self) -> str:
        """What multiplies its matrices: `BLAS libmkl_rt.so.2`, `GPU`, or `GPU (experimental)`."""
        mark = " (experimental)" if BACKENDS[self.backend].experimental else ""
        return f"GPU{mark}" if self.on_gpu else f"BLAS {self.blas}"


class SourceReport(Event):
    """Where the weights of a base model come from, and the digest of their folder."""

    model: str
    source: str
    digest: str


class Kept(Event):
    """What the step has done by now is on disk: the process that takes its place goes on there."""


class Heartbeat(Event):
    """The child process is alive and holds this much memory."""

    resident_bytes: int


class StepResult(Event):
    """The last event of a child process that succeeded."""

    result: dict[str, Any]


class StepError(Event):
    """The last event of a child process that failed; `kind` names its typed error, if it is one."""

    message: str
    kind: str = ""


class Ready(Event):
    """A step that answers requests has loaded what it needs."""


class Answer(Event):
    """The answer to the request of this number, as JSON. It does not repeat the request."""

    number: int
    values: dict[str, Any]


class ExperimentLanded(Event):
    """An experiment is in the warehouse; `ids`: its evaluations."""

    ids: tuple[str, ...] = ()


class ExperimentFailed(Event):
    """An experiment ended without landing."""

    message: str
    error: Exception


class ExtraFinished(Event):
    """A step that is no experiment, such as the baselines, is finished; `ids`: what it landed."""

    ids: tuple[str, ...] = ()


class RemoteReport(Event):
    """An experiment runs on a worker of a work pool; `step`: e.g. `train`, or empty at first."""

    worker: str
    step: str = ""
    percent: float = 0.0


_CLASSES = {name: value for name, value in globals().items() if isinstance(value, type)}


def to_json(event: Event) -> str:
    """One line of JSON: the fields of an event, and its class under `event`; NaN is allowed."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def from_json(line: str) -> Event | None:
    """The event that a line of `to_json` holds; None for any other text."""
    try:
        values = json.loads(line)
        return cast("Event", _CLASSES[values.pop("event")](**values))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
