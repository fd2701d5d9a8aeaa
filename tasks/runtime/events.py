"""What a step reports while it runs, as small classes.

A step calls `emit(event)`. In a child process that writes one line of JSON (`to_json`); the parent
reads it back (`from_json`) and hands it on, so code on both sides sees classes only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

from tasks.runtime.backend import BACKENDS


@dataclass(frozen=True)
class Event:
    """Something that a step, or the sweep itself, tells whoever listens."""


Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Note(Event):
    """A sentence for the reader of the log."""

    message: str


@dataclass(frozen=True)
class MemoryNote(Note):
    """The chosen micro-batch, with the bytes of weights and optimizer, of the longest case, and of
    each further case.
    """

    held_bytes: int
    case_bytes: int
    further_bytes: int


@dataclass(frozen=True)
class StepWarning(Event):
    """A sentence that a user should not miss; the step continues."""

    message: str


@dataclass(frozen=True)
class ProgressReport(Event):
    """`done` of `of` units are finished; `what` names the work and its unit."""

    what: str
    done: int
    of: int


@dataclass(frozen=True)
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


@dataclass(frozen=True, kw_only=True)
class TrainingReport(CurvePoint):
    """A point of the training curve; `iterations`: updates in all."""

    iterations: int
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class ValidationReport(CurvePoint):
    """A point of the validation curve; `always_ed`: the model answers ED to nearly everything."""

    always_ed: bool


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class SourceReport(Event):
    """Where the weights of a base model come from, and the digest of their folder."""

    model: str
    source: str
    digest: str


@dataclass(frozen=True)
class Heartbeat(Event):
    """The child process is alive and holds this much memory."""

    resident_bytes: int


@dataclass(frozen=True)
class StepResult(Event):
    """The last event of a child process that succeeded."""

    result: dict[str, Any]


@dataclass(frozen=True)
class StepError(Event):
    """The last event of a child process that failed; `kind` names its typed error, if it is one."""

    message: str
    kind: str = ""


@dataclass(frozen=True)
class Ready(Event):
    """A step that answers requests has loaded what it needs."""


@dataclass(frozen=True)
class Answer(Event):
    """The answer to the request of this number, as JSON. It does not repeat the request."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class ExperimentLanded(Event):
    """An experiment is in the warehouse; `ids`: its evaluations."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExperimentFailed(Event):
    """An experiment ended without landing."""

    message: str
    error: Exception


@dataclass(frozen=True)
class ExtraFinished(Event):
    """A step that is no experiment, such as the baselines, is finished; `ids`: what it landed."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
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
