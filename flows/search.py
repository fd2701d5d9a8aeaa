"""The search: a grid's recipe with varied settings, trial after trial, the best of them to the end.

A trial is a chain of Prefect steps, one per rung, on the training of its full length; see
`tasks/search/README.md`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import Step, failure_of, label_run
from flows.plan import TRAINING, time_limits
from flows.selection import EVERYTHING, Narrowing, Selection, refuse_without_emergencies, set_up
from flows.sweep import ONE_AT_A_TIME
from tasks.identity import training_of
from tasks.inputs import acquire, convert, prepare, quantize
from tasks.landing import load_the_rest, refill_warehouse
from tasks.progress import publish
from tasks.runtime.children import forked_steps, stop_children
from tasks.runtime.errors import (
    BadInput,
    Diverged,
    DoesNotFit,
    Locked,
    OutOfMemory,
    SourceUnavailable,
    Stopped,
    TriageError,
)
from tasks.runtime.events import StepWarning
from tasks.runtime.locks import locked
from tasks.search.space import Space
from tasks.search.trials import Trial, Trials, best_of, has_time
from tasks.trial import land_trials, train_to_rung, write_winner

TITLE = "search"
DEFAULT_TRIALS = 16
MOST_TRIALS = 10_000
FAILS_A_TRIAL = (Diverged, DoesNotFit, OutOfMemory)  # what its settings are the reason for


@flow(name="search", flow_run_name="search {grid}", task_runner=ONE_AT_A_TIME)
def search(
    grid: str,
    overrides: list[str] | None = None,
    only: Narrowing = EVERYTHING,
    trials: int | None = None,
    hours: float | None = None,
) -> State[Any]:
    """Look for the best values of the settings that the grid's `[search]` table names.

    Args:
        grid: name or path of a grid with a `[search]` table
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        only: the first of these experiments is the one whose settings vary
        trials: number of trials, 16 without it and without hours
        hours: start no further trial that would not be finished by then
    """
    trial_count = trials or (DEFAULT_TRIALS if hours is None else MOST_TRIALS)
    deadline = None if hours is None else time.monotonic() + 3600 * hours
    space = set_up(grid, overrides, only)
    with locked(space.folder), forked_steps("tasks.tuning.job", "tasks.scoring.job"):
        try:
            label_run(Selection(space.grid, [space.cell]), name=f"search {space.grid.name}")
            refill_warehouse()
            return _run(space, trial_count, deadline)
        except BaseException as error:
            # Ctrl-C, or Prefect's own signal for SIGTERM. After an error no step is running.
            if not isinstance(error, Exception):
                stop_children()
            raise


def _run(space: Space, trial_count: int, deadline: float | None) -> State[Any]:
    """Train trial after trial, then land them and write the winner's grid."""
    grid = space.grid
    model, precision = space.cell.model, space.cell.precision
    # The cases and the variant, which all trials share.
    data = _result_of(prepare.submit(grid.data, grid.evaluation_sets, space.prompts()))
    refuse_without_emergencies(data)
    base = _result_of(convert.submit(model, _result_of(acquire.submit(model))))
    variant = _result_of(quantize.submit(model, base, precision, grid.training.group_size))

    stored = Trials(space)
    for trial in stored.all():
        if training_of(space.experiment(trial.values), variant, data) != trial.training_id:
            raise BadInput(
                f"Trial {trial.number} in {stored.path} was trained on other cases or weights, or "
                "by another version of triage; move this file away to start over."
            )
        publish(TITLE, trial)

    while True:
        trials = stored.all()
        running = next((trial for trial in trials if trial.state == "running"), None)
        if running:
            if deadline is not None and time.monotonic() >= deadline:
                break
            _train(stored, running, space, variant, data)
            continue

        # Proposed only where there is time to train it to its end.
        if len(trials) >= trial_count or not has_time(trials, deadline):
            break
        values = stored.propose()
        if values is None:
            break
        stored.add(values, training_of(space.experiment(values), variant, data))

    if trials:
        _result_of(land_trials.submit(space.search_id, grid.name, space.cell, trials))
        if warning := load_the_rest():
            publish(TITLE, StepWarning(warning))

    winner = best_of(trials)
    if winner is None:
        errors = [trial.error for trial in trials if trial.error]
        reason = f"the first failed: {errors[0].rstrip('.')}" if errors else "it had no time to"
        raise TriageError(
            f"No trial of the search of {grid.name} reached its first rung; {reason}."
        )

    write_winner(space, winner)
    return Completed(message=f"{len(trials)} trials")


def _train(stored: Trials, trial: Trial, space: Space, variant: Path, data: Path) -> None:
    """Train a trial to its next rung, and record what it is there."""
    publish(TITLE, replace(trial, state="training"))
    spec = space.experiment(trial.values)
    step: Step = train_to_rung.submit(
        number=trial.number,
        spec=spec,
        update=space.rungs[len(trial.rungs)],
        objective=space.objective,
        variant=variant,
        data=data,
        at_most=time_limits(Selection(space.grid, [spec]))(spec, TRAINING),
    )
    try:
        stored.reach(trial.number, _result_of(step))
    except FAILS_A_TRIAL as error:
        stored.fail(trial.number, str(error))
    # What the user can change is said as it is.
    except (BadInput, SourceUnavailable, Locked, Stopped):
        raise
    except TriageError as error:
        raise TriageError(f"Trial {trial.number} ended: {error}") from error

    publish(TITLE, stored.all()[trial.number])


def _result_of(step: Step) -> Any:
    """The result of a step, once it has ended. Raises the error of one that failed, before another
    starts.
    """
    step.wait()
    if error := failure_of(step):
        raise error
    return step.result()
