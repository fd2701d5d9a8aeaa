"""What a sweep tells Prefect's event feed, from which automations and people's own triggers start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from prefect.events import emit_event

from flows.report.landed import landed_results
from flows.report.names import verdict
from tasks.progress import listening
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded
from tasks.spec import ExperimentSpec

LANDED = "triage.experiment.landed"
FAILED = "triage.experiment.failed"
GATE_FAILED = "triage.experiment.gate_failed"
SWEEP_FINISHED = "triage.sweep.finished"
UNSAFE = "unsafe"


@contextlib.contextmanager
def tell_of(cells: Sequence[ExperimentSpec]) -> Iterator[None]:
    """Tell of each of these experiments that lands or fails while the block runs."""
    specs = {f"land {spec.cell_id}": spec for spec in cells}

    def on_event(title: str, event: Event) -> None:
        match event:
            case ExperimentLanded():
                _tell_landed(specs[title], event.ids)
            case ExperimentFailed():
                _tell(FAILED, specs[title], reason=event.message)

    with listening(on_event):
        yield


def tell_sweep_finished(study: str, experiments: int, failures: int) -> None:
    """A sweep has ended, with so many failures."""
    resource = {"prefect.resource.id": f"triage.sweep.{study}", "prefect.resource.name": study}
    emit_event(SWEEP_FINISHED, resource, payload={"experiments": experiments, "failures": failures})


def _tell_landed(spec: ExperimentSpec, evaluations: Sequence[str]) -> None:
    """An experiment is in the warehouse; and, where its gates fail, that they do."""
    for id in evaluations:
        _tell(LANDED, spec, evaluation_id=id)
        for result in landed_results([id]):
            if verdict(result) == UNSAFE:
                _tell(GATE_FAILED, spec, evaluation_id=id, ed_recall=result.ed_recall)


def _tell(event: str, spec: ExperimentSpec, **payload: str | float | None) -> None:
    resource = {
        "prefect.resource.id": f"triage.experiment.{spec.cell_id}",
        "prefect.resource.name": spec.title,
        "triage.model": spec.model.name,
        "triage.precision": spec.precision.name,
        "triage.recipe": spec.recipe.name,
    }
    emit_event(event, resource, payload=dict(payload))
