"""Trains a trial to an update, and looks at it there: plain code of the step in `tasks/trial.py`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from tasks.runtime.children import run_child
from tasks.runtime.events import Emit, Note
from tasks.runtime.store import temporary_folder
from tasks.scoring.arguments import ValidScoringJob
from tasks.search.objective import SearchObjective
from tasks.search.training_progress import TrainingProgress
from tasks.search.trial import Reached
from tasks.spec import ExperimentSpec
from tasks.tuning.step import train_experiment


def train_trial(
    spec: ExperimentSpec,
    folder: Path,
    update: int,
    objective: SearchObjective,
    variant: Path,
    data: Path,
    home: Path,
    emit: Emit,
    at_most: float | None = None,
) -> Reached:
    """Train in `folder` until the checkpoint at `update`, unless it is there, and judge it.

    A training that is further, as one of a sweep can be, is judged as it was at `update`.

    `home`: where the frozen prefixes are. `at_most`: seconds that an attempt of the training may take.
    """
    start = time.perf_counter()
    train = partial(
        train_experiment,
        spec=spec,
        variant=variant,
        data=data,
        home=home,
        on_event=emit,
        pause_at=update,
        at_most=at_most,
    )
    progress = TrainingProgress.read(folder)
    is_further = progress.update > update
    if not progress.ended and progress.update < update:
        train(folder=folder)
        progress = TrainingProgress.read(folder)

    train_seconds = progress.train_seconds
    if is_further:
        # An estimate, as if every update took as long.
        train_seconds *= update / progress.update
    validation = progress.best_validation(update)
    value = _on_curve(progress, update, objective)

    if value is None and is_further:
        emit(Note(f"{folder.name} is past update {update}, and is trained to it beside the other."))
        # In a folder that is not kept: the adapter of an earlier update is not stored.
        with temporary_folder(folder) as temporary:
            other = temporary / folder.name
            train(folder=other)
            at_update = TrainingProgress.read(other)
            value = _scored(spec, at_update, objective, variant, data, home, emit)
    elif value is None:
        value = _scored(spec, progress, objective, variant, data, home, emit)

    return Reached(update, value, validation, time.perf_counter() - start, train_seconds)


def _on_curve(progress: TrainingProgress, update: int, objective: SearchObjective) -> float | None:
    """The objective where training notes it itself; None where the adapter has to be scored."""
    if objective.metric == "validation value":
        return progress.best_validation(update)
    if objective.metric == "macro-F1":
        return progress.best_macro_f1(update)
    return None


def _scored(
    spec: ExperimentSpec,
    progress: TrainingProgress,
    objective: SearchObjective,
    variant: Path,
    data: Path,
    home: Path,
    emit: Emit,
) -> float:
    """The objective of the best adapter so far, which is scored on `valid`."""
    assert progress.best_adapter is not None, "it has a checkpoint"
    job = ValidScoringJob(
        experiment=spec,
        variant=variant,
        data=data,
        home=home,
        adapter=progress.best_adapter,
        over_triage=objective.over_triage,
    )
    log = home / "logs" / f"valid-{spec.cell_id}"
    result = run_child("tasks.scoring.job:run_valid", job.model_dump(mode="json"), log, emit)

    return float(result["value"])
