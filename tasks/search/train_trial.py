"""Trains a trial to an update, and looks at it there: plain code of the step in `tasks/trial.py`."""

from __future__ import annotations

import time
from pathlib import Path

from tasks.runtime.children import run_child
from tasks.runtime.events import Emit
from tasks.scoring.arguments import ValidScoringJob
from tasks.search.objective import Objective
from tasks.search.training_progress import TrainingProgress
from tasks.search.trial import Reached
from tasks.spec import ExperimentSpec
from tasks.tuning.step import train_experiment
from tasks.tuning.summary import UNBOUNDED, StepBounds


def train_trial(
    spec: ExperimentSpec,
    folder: Path,
    update: int,
    objective: Objective,
    variant: Path,
    data: Path,
    home: Path,
    emit: Emit,
    bounds: StepBounds = UNBOUNDED,
) -> Reached:
    """Train in `folder` until the checkpoint at `update`, unless it is there, and judge it.

    `home`: where the frozen prefixes are. `bounds`: those of the training.
    """
    start = time.perf_counter()
    progress = TrainingProgress.read(folder)
    if not progress.ended and progress.update < update:
        train_experiment(
            spec=spec,
            folder=folder,
            variant=variant,
            data=data,
            home=home,
            on_event=emit,
            pause_at=update,
            bounds=bounds,
        )
        progress = TrainingProgress.read(folder)

    validation = progress.best_validation(update)
    value = {"validation value": validation, "macro-F1": progress.best_macro_f1(update)}.get(
        objective.metric
    )
    if value is None:
        value = _scored(spec, progress, objective, variant, data, home, emit)

    seconds = time.perf_counter() - start
    return Reached(update, value, validation, seconds, progress.train_seconds)


def _scored(
    spec: ExperimentSpec,
    progress: TrainingProgress,
    objective: Objective,
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
    result = run_child("tasks.scoring.valid_job:run", job.model_dump(mode="json"), log, emit)

    return float(result["value"])
