"""Steps of a search: train a trial to its next rung and look at it there; land the trials."""

from pathlib import Path

from prefect import task

from tasks.caching import is_transient
from tasks.identity import experiment_folder
from tasks.landing import land_rows
from tasks.progress import publisher
from tasks.runtime.home import home
from tasks.search.objective import SearchObjective
from tasks.search.rows import SearchedCell, trial_rows
from tasks.search.train_trial import train_trial
from tasks.search.trial import Reached, Trial
from tasks.spec import ExperimentSpec


@task(
    task_run_name="trial {number} to update {update}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def train_to_rung(
    number: int,
    spec: ExperimentSpec,
    update: int,
    objective: SearchObjective,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> Reached:
    """The trial at `update`. The training is that of `triage sweep`, which goes on from there.

    `at_most`: seconds that an attempt may take.
    """
    folder = experiment_folder(spec, variant, data)
    emit = publisher(f"trial {number}")
    return train_trial(spec, folder, update, objective, variant, data, home(), emit, at_most)


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
