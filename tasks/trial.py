"""Steps of a search: train a trial to its next rung and look at it there; land the trials."""

import time
from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.identity import experiment_folder
from tasks.landing import land_rows
from tasks.progress import publisher
from tasks.runtime.child import run_child
from tasks.runtime.events import Emit
from tasks.runtime.store import home
from tasks.scoring.arguments import ValidScoringJob
from tasks.search.objective import Objective
from tasks.search.rows import SearchedCell, trial_rows
from tasks.search.training_progress import TrainingProgress
from tasks.search.trial import Reached, Trial
from tasks.spec import ExperimentSpec
from tasks.tuning.step import train_experiment


@task(
    task_run_name="trial {number} to update {update}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def train_to_rung(
    number: int, spec: ExperimentSpec, update: int, objective: Objective, variant: Path, data: Path
) -> Reached:
    """The trial at `update`. The training is that of `triage sweep`, which goes on from there."""
    started = time.perf_counter()
    folder = experiment_folder(spec, variant, data)
    emit = publisher(f"trial {number}")
    progress = TrainingProgress.read(folder)
    if not progress.ended and progress.update < update:
        train_experiment(spec, folder, variant, data, home(), emit, pause_at=update)
        progress = TrainingProgress.read(folder)

    validation = progress.best_validation(update)
    value = validation
    if objective.over_triage is not None:
        value = _ed_recall(spec, progress, objective.over_triage, variant, data, emit)
    seconds = time.perf_counter() - started
    return Reached(update, value, validation, seconds, progress.train_seconds)


def _ed_recall(
    spec: ExperimentSpec,
    progress: TrainingProgress,
    over_triage: float,
    variant: Path,
    data: Path,
    emit: Emit,
) -> float:
    assert progress.best_adapter is not None, "it has a checkpoint"
    job = ValidScoringJob(
        experiment=spec,
        variant=variant,
        data=data,
        home=home(),
        adapter=progress.best_adapter,
        over_triage=over_triage,
    )
    log = home() / "logs" / f"valid-{spec.cell_id}"
    result = run_child("tasks.scoring.valid_job:run", job.model_dump(mode="json"), log, emit)
    return float(result["ed_recall"])


@task(
    task_run_name="land {cell.search_id}",
    retries=3,
    retry_delay_seconds=2,
    retry_condition_fn=is_transient,
)
def land_trials(cell: SearchedCell, trials: list[Trial]) -> str:
    """search_id, once the trials are in the warehouse."""
    land_rows(cell.search_id, "search", {"trial": trial_rows(cell, trials)})
    return cell.search_id
