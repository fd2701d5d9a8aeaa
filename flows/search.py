"""The search: a grid's recipe with varied settings, trial after trial, the best of them to the end.

A trial is a chain of Prefect steps, one per rung, on the training of its full length; see
`tasks/search/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import failure_of, label_run
from flows.search_setup import Limits, SearchSetup, alone, refuse_without_emergencies, set_up
from flows.selection import Narrowing, Selection
from flows.steps import ONE_AT_A_TIME, Step, TimeLimits
from flows.trial_errors import ending
from tasks.acquire import acquire
from tasks.convert import convert
from tasks.identity import training_of
from tasks.landing import load_the_rest, refill_warehouse
from tasks.prepare import prepare
from tasks.progress import publish
from tasks.quantize import quantize
from tasks.runtime.children import stop_children
from tasks.runtime.errors import BadInput, Diverged, DoesNotFit, OutOfMemory, TriageError
from tasks.runtime.events import StepWarning, TrialReport
from tasks.runtime.processes import forked_steps
from tasks.search.foundation import foundation
from tasks.search.halving import Proposal, TrainTo
from tasks.search.rows import SearchedCell
from tasks.search.storage import Storage
from tasks.search.time_budget import TimeBudget
from tasks.search.trial import Trial, best_of
from tasks.search.winner import write_winner
from tasks.trial import land_trials, train_to_rung

TITLE = "search"
FAILS_A_TRIAL = (Diverged, DoesNotFit, OutOfMemory)  # what its settings are the reason for


@flow(name="search", flow_run_name="search {grid}", task_runner=ONE_AT_A_TIME)
def search(
    grid: str,
    overrides: list[str] | None = None,
    model: str | None = None,
    bits: int | None = None,
    recipe: str | None = None,
    seed: int | None = None,
    trials: int | None = None,
    hours: float | None = None,
) -> State[Any]:
    """Look for the best values of the settings that the grid's `[search]` table names.

    Args:
        grid: name or path of a grid with a `[search]` table
        overrides: key=value changes of the grid, e.g. recipe.iterations=50
        model: base model; the grid's first without it
        bits: 4 or 8; the grid's first without it
        recipe: the recipe whose settings vary; the grid's first without it
        seed: seed of the trainings; the grid's first without it
        trials: number of trials, 16 without it and without hours
        hours: start no further trial that would not be finished by then
    """
    limits = Limits(trials, hours)
    setup = set_up(grid, overrides, Narrowing.to_one(model, bits, recipe), seed)
    with alone(setup), forked_steps("tasks.tuning.job", "tasks.scoring.job"):
        try:
            label_run(setup.selection, name=f"search {setup.space.grid.name}")
            refill_warehouse()
            return _Search(setup, limits).run()
        except BaseException as error:
            # Ctrl-C, or Prefect's own signal for SIGTERM. After an error no step is running.
            if not isinstance(error, Exception):
                stop_children()
            raise


class _Search:
    """A search that is running: its storage, and the variant and the cases of its trials."""

    def __init__(self, setup: SearchSetup, limits: Limits) -> None:
        self.setup = setup
        self.trial_count = limits.trial_count
        self.time = TimeBudget.of(limits.hours)
        self.storage = Storage(setup.folder, setup.space, setup.objective, setup.identity)
        self.data, self.variant = _shared_steps(setup)
        refuse_without_emergencies(self.data)
        self.storage.agree_on_foundation(foundation(self.variant, self.data))
        self._refuse_other_trainings()

    def run(self) -> State[Any]:
        """Make every move of the halving, then land the trials and write the winner's grid."""
        for trial in self.storage.trials():
            self._report(trial)

        is_out_of_time = False
        while move := self.setup.halving.next_move(self.storage.trials(), self.trial_count):
            if isinstance(move, Proposal):
                self._propose()
            elif is_out_of_time := self.time.is_over:
                break
            else:
                self._train(move)

        return self._end(is_out_of_time)

    def _propose(self) -> None:
        """Add a trial, unless it could not be finished in time or there is no other recipe."""
        trials = self.storage.trials()
        has_time = self.time.allows(self.setup.halving, trials)
        values = self.storage.propose() if has_time else None
        if values is None:
            self.trial_count = len(trials)
            return

        spec = self.setup.space.experiment(values)
        self.storage.add(values, training_of(spec, self.variant, self.data))

    def _train(self, move: TrainTo) -> None:
        trial = self.storage.trials()[move.number]
        self._report(trial, "training")
        spec = self.setup.space.experiment(trial.values)
        update = self.setup.halving.rungs[move.rung]
        at_most = TimeLimits(Selection(self.setup.space.grid, [spec])).of_training(spec)
        step: Step = train_to_rung.submit(
            number=trial.number,
            spec=spec,
            update=update,
            objective=self.setup.objective,
            variant=self.variant,
            data=self.data,
            at_most=at_most,
        )
        step.wait()

        error = failure_of(step)
        if error is None:
            self.storage.reach(trial.number, step.result())
        elif isinstance(error, FAILS_A_TRIAL):
            self.storage.fail(trial.number, str(error))
        else:
            raise ending(trial, error) from error

        self._report(self.storage.trials()[trial.number])

    def _end(self, is_out_of_time: bool) -> State[Any]:
        trials = self.storage.trials()
        space = self.setup.space
        cell = SearchedCell(space.grid.name, self.setup.spec, self.setup.identity)

        if trials:
            _finished_step(land_trials.submit(cell, trials))
            if warning := load_the_rest():
                publish(TITLE, StepWarning(warning))

        winner = best_of(trials)
        if winner is None:
            raise TriageError(
                f"No trial of the search of {space.grid.name} reached its first rung; "
                f"{_reason(trials)}."
            )

        write_winner(self.setup.folder, space, winner)
        pending = ", and more time would finish it" if is_out_of_time else ""
        return Completed(message=f"{len(trials)} trials{pending}")

    def _refuse_other_trainings(self) -> None:
        """Raise BadInput where a stored trial would now be another training."""
        for trial in self.storage.trials():
            spec = self.setup.space.experiment(trial.values)
            if training_of(spec, self.variant, self.data) != trial.training_id:
                raise BadInput(
                    f"Trial {trial.number} in {self.storage.path} was trained as another version "
                    "of triage trains it; move this file away to start over."
                )

    def _report(self, trial: Trial, state: str | None = None) -> None:
        publish(
            TITLE,
            TrialReport(
                trial.number,
                trial.settings,
                state or trial.state,
                trial.update,
                trial.iterations,
                trial.value,
                trial.error,
            ),
        )


def _shared_steps(setup: SearchSetup) -> tuple[Path, Path]:
    """The folders of the cases and of the variant, which all trials share."""
    grid = setup.selection.grid
    spec = setup.spec
    data = _finished_step(prepare.submit(grid.data, grid.evaluation_sets, setup.space.prompts()))
    source = _finished_step(acquire.submit(spec.model))
    base = _finished_step(convert.submit(spec.model, source))
    group_size = grid.training.group_size
    variant = _finished_step(quantize.submit(spec.model, base, spec.precision, group_size))

    return data.result(), variant.result()


def _finished_step(step: Step) -> Step:
    """The step, once it has ended. Raises the error of one that failed, before another starts."""
    step.wait()
    if error := failure_of(step):
        raise error
    return step


def _reason(trials: list[Trial]) -> str:
    """Why there is no result."""
    errors = list(dict.fromkeys(trial.error.rstrip(".") for trial in trials if trial.error))
    return f"the first failed: {errors[0]}" if errors else "it had no time to"
