"""The steps that a sweep has submitted, and how they end: what failed, what has landed, and what
Prefect's event feed hears of it; name and tags of the run, by which the UI finds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.report.figures import verdict
from flows.report.rows import Row, rows_of
from flows.selection import Selection
from tasks.landing import (
    SweepRecord,
    absent_from_warehouse,
    is_landed,
    land_failure,
    load_the_rest,
    some_results_wait,
)
from tasks.models.manifest import base_folder
from tasks.progress import listening, publish
from tasks.runtime.children import forked_steps, stop_children
from tasks.runtime.errors import BadInput, TriageError, disk_full, is_disk_full
from tasks.runtime.events import (
    Event,
    ExperimentFailed,
    ExperimentLanded,
    ExtraFinished,
    StepWarning,
)
from tasks.runtime.home import home
from tasks.spec import ExperimentSpec
from warehouse.connect import listed, quoted, warehouse_path

LANDED = "triage.experiment.landed"
FAILED = "triage.experiment.failed"
GATE_FAILED = "triage.experiment.gate_failed"
SWEEP_FINISHED = "triage.sweep.finished"
UNSAFE = "unsafe"
_known: dict[Path, dict[str, Row]] = {}  # by warehouse and evaluation

# A PrefectFuture. As an argument of a later step Prefect replaces it by its value, so the
# signatures of steps name the value's type, and a future has no type here.
Step = Any


@dataclass(frozen=True)
class Part:
    """What a sweep waits for: an experiment, or a step that is none (baselines, further evaluation
    sets, fidelity, a moved adapter).

    `own`: its step, which returns what landed; of an experiment training, scores and landing.
    `shared`: the steps before those of an experiment: data, source, base, variant.
    """

    name: str
    own: list[Step]
    shared: list[Step] = field(default_factory=list)
    spec: ExperimentSpec | None = None

    @property
    def has_landed(self) -> bool:
        return bool(self.own[-1].state.is_completed())

    @property
    def ids(self) -> list[str]:
        """What landed of it; empty where its last step did not finish."""
        if not self.has_landed:
            return []
        last: Any = self.own[-1].result()
        return last if self.spec is None else [self.own[0].result(), last]


@dataclass
class SubmittedSweep:
    """The futures of a sweep, as submitted.

    `record`: what makes its results belong to its study. `bases`, `variants`: its models, by name,
    and by name and precision.
    """

    data: Step
    record: SweepRecord
    parts: list[Part] = field(default_factory=list)
    bases: dict[str, Step] = field(default_factory=dict)
    variants: dict[tuple[str, str], Step] = field(default_factory=dict)

    @property
    def model_ids(self) -> list[str]:
        """The base models and variants that were made or found, as they land."""
        bases = [step.result() for step in self.bases.values() if step.state.is_completed()]
        variants = [step.result() for step in self.variants.values() if step.state.is_completed()]
        folders = [*(base_folder(source, home()) for source in bases), *variants]
        return sorted({folder.name for folder in folders})


def landed_results(evaluation_ids: Sequence[str]) -> list[Row]:
    """What landed experiments reached on the test set; empty if the warehouse cannot be read at the
    moment.

    What had landed before the first question of this process is read at once, and each result once:
    opening the warehouse takes longer than reading it.
    """
    if some_results_wait():
        return []

    results = _known.setdefault(warehouse_path(), {})
    if missing := [id for id in evaluation_ids if id not in results]:
        which = f"AND evaluation_id IN {listed(missing)}" if results else ""
        with contextlib.suppress(TriageError):  # a sweep need not stop for figures
            view = f"evaluation_summary WHERE evaluation_set = 'test' {which}"
            results.update({row.evaluation_id: row for row in rows_of(view)})

    return [results[id] for id in evaluation_ids if id in results]


def evaluations_of_sweep(sweep: str) -> list[str]:
    """evaluation_ids that a sweep made or found."""
    clauses = f"sweep_member JOIN landed USING (id) WHERE sweep_id = {quoted(sweep)}"
    return [row.id for row in rows_of(f"{clauses} AND kind = 'evaluation'")]


def finish_all(
    sweep: SubmittedSweep, show: Callable[[float], None] = lambda percent: None
) -> list[str]:
    """Wait for every step; returns the failures, of experiments first. An interruption, or an error
    of the sweep itself, ends the steps' processes at once.

    `show` gets the share of the steps that have ended, in percent.

    What the warehouse does not hold at the end is a failure, whatever the steps say, unless another
    program keeps it out.
    """
    failures: list[str] = []
    of_extras: list[str] = []
    steps = {id(step): step for part in sweep.parts for step in (*part.shared, *part.own)}
    ended: list[Step] = []
    for step in steps.values():
        step.add_done_callback(ended.append)
    show(0)
    with forked_steps("tasks.tuning.job", "tasks.scoring.job"):
        try:
            # As they run: what has landed belongs to the study of a
            # sweep that is then stopped, too.
            for part in sweep.parts:
                for step in part.own:
                    step.wait()
                    show(100 * len(ended) / len(steps))
                if failure := _finish(part, sweep.record):
                    (of_extras if part.spec is None else failures).append(failure)
                if sweep.data.state.is_completed():
                    sweep.record.use(sweep.data.result())
                sweep.record.add(part.ids)
        except BaseException as error:
            # What is no Exception is Ctrl-C, or Prefect's own signal for SIGTERM.
            stop_children(interrupted=not isinstance(error, Exception))
            sweep.record.keep()
            raise

    show(100)
    failures += of_extras
    sweep.record.finish(len(failures))
    if warning := load_the_rest():
        publish("loading", StepWarning(warning))

    absent = set(absent_from_warehouse([id for part in sweep.parts for id in part.ids]))
    for part in sweep.parts:
        if absent.intersection(part.ids):
            failures.append(
                f"{part.name}: its results landed but are not in {warehouse_path()} (was it deleted "
                "meanwhile?); run the same command again."
            )

    return failures


def _finish(part: Part, record: SweepRecord) -> str | None:
    """None if a part that has ended has landed, else its name with the reason, which lands too where
    it is an experiment.
    """
    errors = (failure_of(step) for step in [*part.shared, *part.own])
    error = next((error for error in errors if error is not None), None)
    if part.spec is None:
        if error is not None:
            publish(part.name, StepWarning(f"{part.name}: {error}"))
            return f"{part.name}: {error}"
        if part.has_landed:  # else it never ran, and has no failure of its own
            publish(part.name, ExtraFinished(tuple(part.ids)))
        return None

    title = f"land {part.name}"
    if error is None and part.has_landed:
        publish(title, ExperimentLanded((part.own[-1].result(),)))
        return None

    # Whatever the reason is: what has not landed is not done.
    state = part.own[-1].state.name
    error = error or TriageError(f"It never landed: its last step ended as {state}.")
    publish(title, ExperimentFailed(str(error), error))

    # Its variant and its cases have to be known.
    if all(step.state.is_completed() for step in part.shared):
        data, *_, variant = (step.result() for step in part.shared)
        try:
            record.add([land_failure(part.spec, variant, data, error)])
        except Exception as problem:  # no reason to stop the other experiments
            publish(title, StepWarning(f"Not recorded: {problem}"))

    return f"{part.name}: {error}"


def warn_of_damage(refusals: dict[str, str]) -> None:
    """Say which of the landing folders that were refused this sweep did not write again."""
    for id, reason in refusals.items():
        if not is_landed(id):
            remedy = (
                "Its figures come back with the sweep or benchmark that made them; "
                f"delete {home() / 'landing' / id} to do without them."
            )
            publish(f"landing {id}", StepWarning(f"{reason} {remedy}"))


def failure_of(future: Step) -> Exception | None:
    """The exception of a step that failed, crashed or was cancelled, or None.

    A step that never ran because of another step has none.
    """
    state = future.state
    if not (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        return None
    result = future.result(raise_on_failure=False)
    error = result if isinstance(result, Exception) else RuntimeError(str(result))
    return disk_full(home()) if is_disk_full(error) and not isinstance(error, BadInput) else error


@contextlib.contextmanager
def tell_of(cells: Sequence[ExperimentSpec]) -> Iterator[None]:
    """Tell of each of these experiments that lands or fails while the block runs."""
    specs = {f"land {spec.cell_id}": spec for spec in cells}

    def on_event(title: str, event: Event) -> None:
        match event:
            case ExperimentLanded():
                for id in event.ids:
                    _tell(LANDED, specs[title], evaluation_id=id)
                    for result in landed_results([id]):
                        if verdict(result) == UNSAFE:
                            recall = result.ed_recall
                            _tell(GATE_FAILED, specs[title], evaluation_id=id, ed_recall=recall)
            case ExperimentFailed():
                _tell(FAILED, specs[title], reason=event.message)

    with listening(on_event):
        yield


def tell_sweep_finished(study: str, experiments: int, failures: int) -> None:
    """A sweep has ended, with so many failures."""
    resource = {"prefect.resource.id": f"triage.sweep.{study}", "prefect.resource.name": study}
    emit_event(SWEEP_FINISHED, resource, payload={"experiments": experiments, "failures": failures})


def _tell(event: str, spec: ExperimentSpec, **payload: str | float | None) -> None:
    resource = {
        "prefect.resource.id": f"triage.experiment.{spec.cell_id}",
        "prefect.resource.name": spec.title,
        "triage.model": spec.model.name,
        "triage.precision": spec.precision.name,
        "triage.recipe": spec.recipe.name,
    }
    emit_event(event, resource, payload=dict(payload))


def label_run(selection: Selection, name: str | None = None) -> None:
    """Add the tags of the selection's cells to the current flow run, and rename it if `name` is
    given.

    The tags are what a person filters by: models, precisions, recipes and their kinds. Others stay.
    A label is no reason to lose a sweep: a server that refuses is ignored.
    """
    tags = [*flow_run.tags]
    for spec in selection.cells:
        tags += [spec.model.name, spec.precision.name, spec.recipe.name, spec.recipe.kind]
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), name=name, tags=list(dict.fromkeys(tags)))
