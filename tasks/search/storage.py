"""The trials of a search, stored by Optuna in an SQLite file, which optuna-dashboard opens.

A trial stays RUNNING while it may still be trained further, since one that Optuna has pruned is
final: only one that was trained to its end, or that failed, is told. What we read back is the user
attribute `rungs` of each trial, which one statement replaces; the intermediate values are for
people. Proposals come from a study in memory that knows the value of each trial at its first rung,
so they are a function of the seed, the trial's number and these values.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from tasks.runtime.errors import BadInput
from tasks.search.objective import Objective
from tasks.search.space import Space, Value, Values
from tasks.search.trial import Reached, Trial
from tasks.spec import Range, Searched, canonical_json

FILE = "search.db"
STUDY = "search"
# user attributes of the study
IDENTITY = "identity"
FOUNDATION = "foundation"
DIGITS = 3  # significant ones of a proposed real number
ATTEMPTS = 40  # at a proposal that no earlier trial has; the second half is random
WAIT_SECONDS = 30.0  # for another process, such as optuna-dashboard, to release the file
MOST_SHOWN = 3  # differences in an error

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Storage:
    """The stored trials of one search. `identity`: what decides its trials, by name."""

    def __init__(self, folder: Path, space: Space, objective: Objective, identity: Any) -> None:
        self.path = folder / FILE
        self._space = space
        self._objective = objective

        with self._sentences():
            folder.mkdir(parents=True, exist_ok=True)
            self._rdb = RDBStorage(
                f"sqlite:///{self.path}",
                engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}},
            )
            self._study = optuna.create_study(
                storage=self._rdb,
                study_name=STUDY,
                direction=_direction(objective),
                load_if_exists=True,
            )
            self._agree(IDENTITY, identity)

            # What a killed search had recorded may not be shown yet.
            for trial in self.trials():
                self._show(trial)

    def trials(self) -> list[Trial]:
        """Every trial, in the order in which they were proposed."""
        with self._sentences():
            return [self._trial(frozen) for frozen in self._frozen()]

    def agree_on_foundation(self, foundation: Mapping[str, Any]) -> None:
        """Record what the trials are trained on, or raise BadInput where it is something else."""
        with self._sentences():
            self._agree(FOUNDATION, foundation)

    def propose(self) -> Values | None:
        """The values of the next trial; None where the space has no other recipe left."""
        trials = self.trials()
        tried_values = {canonical_json(trial.values) for trial in trials}
        if len(tried_values) >= self._space.size:
            return None

        first = self._space.starting_values()
        if not trials and first is not None:
            return first

        view = self._view(trials)
        for attempt in range(ATTEMPTS):
            view.sampler = self._sampler(len(trials), attempt)
            proposed = view.ask(self.distributions)
            values = self._rounded(self._values(proposed.params))
            view.tell(proposed, state=TrialState.FAIL)
            if canonical_json(values) not in tried_values:
                return values

        return None

    def add(self, values: Values, training_id: str) -> int:
        """Store a proposed trial as RUNNING; returns its number."""
        with self._sentences():
            trial = create_trial(
                state=TrialState.RUNNING,
                params={key: _stored(value) for key, value in values.items()},
                distributions=self.distributions,
                user_attrs={"training_id": training_id, "rungs": []},
            )
            self._study.add_trial(trial)
            return len(self._frozen()) - 1

    def reach(self, number: int, reached: Reached) -> None:
        """Record that a trial is at a further rung."""
        with self._sentences():
            rungs = [*self.trials()[number].rungs, reached]
            id = self._frozen()[number]._trial_id
            self._rdb.set_trial_user_attr(id, "rungs", [asdict(rung) for rung in rungs])
            self._show(self.trials()[number])

    def _show(self, trial: Trial) -> None:
        """Bring what Optuna and its dashboard show of a trial up to its rungs."""
        frozen = self._frozen()[trial.number]
        if frozen.state.is_finished():
            return

        for rung in trial.rungs:
            self._rdb.set_trial_intermediate_value(frozen._trial_id, rung.update, rung.value)

        state = f"{trial.state} at update {trial.update} of {trial.iterations}"
        self._rdb.set_trial_user_attr(frozen._trial_id, "state", state)
        if trial.state == "finished":
            self._study.tell(trial.number, trial.value)
        if trial.failed:
            self._study.tell(trial.number, state=TrialState.FAIL)

    def fail(self, number: int, error: str) -> None:
        """Record that a trial cannot be trained to its end."""
        with self._sentences():
            self._rdb.set_trial_user_attr(self._frozen()[number]._trial_id, "error", error)
            self._show(self.trials()[number])

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The searched settings as Optuna knows them."""
        return {key: _distribution(searched) for key, searched in self._space.settings.items()}

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, frozen: FrozenTrial) -> Trial:
        attributes = frozen.user_attrs
        return Trial(
            number=frozen.number,
            values=self._values(frozen.params),
            training_id=attributes["training_id"],
            rungs=tuple(Reached(**rung) for rung in attributes["rungs"]),
            error=attributes.get("error"),
            iterations=self._space.recipe.iterations,
            objective=self._objective,
        )

    def _values(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """The values that Optuna's parameters stand for."""
        return {key: _read(searched, params[key]) for key, searched in self._space.settings.items()}

    def _rounded(self, values: Values) -> dict[str, Value]:
        """Proposed values, real numbers as one would write them."""
        return {key: _rounded(self._space.settings[key], value) for key, value in values.items()}

    def _view(self, trials: Sequence[Trial]) -> optuna.Study:
        """A study in memory of the trials at their first rung, where a failed one is the worst."""
        view = optuna.create_study(direction=_direction(self._objective))
        values = [trial.rungs[0].value for trial in trials if trial.rungs]
        worst = self._objective.worse_than(values)

        for trial in trials:
            view.add_trial(
                create_trial(
                    params={key: _stored(value) for key, value in trial.values.items()},
                    distributions=self.distributions,
                    value=trial.rungs[0].value if trial.rungs else worst,
                )
            )

        return view

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        search = self._space.search
        entropy = np.random.SeedSequence([search.seed, number, attempt])
        seed = int(entropy.generate_state(1)[0])
        if attempt >= ATTEMPTS // 2:
            return RandomSampler(seed)
        return TPESampler(n_startup_trials=search.start_up_trials, seed=seed)

    def _agree(self, name: str, present_value: Any) -> None:
        present_value = json.loads(canonical_json(present_value))
        stored = self._study.user_attrs.get(name)
        if stored is None and self._frozen():
            raise BadInput(
                f"{self.path} holds trials of another program, or of an earlier version of triage: "
                "nothing says what they were trained on. Move it away to begin anew; trainings are "
                "kept."
            )

        if stored is None:
            self._study.set_user_attr(name, present_value)
        elif stored != present_value:
            raise BadInput(self._differences(stored, present_value))

    def _differences(self, stored_value: Any, present_value: Any) -> str:
        stored_settings = dict(_flat(stored_value))
        present_settings = dict(_flat(present_value))
        keys = [
            key
            for key in (stored_settings | present_settings)
            if stored_settings.get(key) != present_settings.get(key)
        ]
        changes = [
            f"{key} was {_value_text(stored_settings.get(key))} and is "
            f"{_value_text(present_settings.get(key))}"
            for key in keys[:MOST_SHOWN]
        ]
        more = f", and {len(keys) - MOST_SHOWN} more" if len(keys) > MOST_SHOWN else ""

        return (
            f"The trials in {self.path} are of another search: {'; '.join(changes)}{more}. Undo "
            "that, give the grid another name, or move this file away to begin anew; trainings "
            "that are needed again are kept."
        )

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what a damaged or foreign file raises into a sentence."""
        try:
            yield
        except (SQLAlchemyError, RuntimeError, ValueError, KeyError, TypeError) as error:
            first = str(error).strip().partition("\n")[0][:200].rstrip(".")
            if isinstance(error, KeyError):
                first = f"a trial there has no {error.args[0]}"
            raise BadInput(
                f"{self.path} cannot be used as the storage of a search ({first}); another version "
                "of triage or Optuna may have written it: move it away to begin anew, trainings "
                "are kept."
            ) from error


def _direction(objective: Objective) -> StudyDirection:
    return StudyDirection.MAXIMIZE if objective.is_higher_better else StudyDirection.MINIMIZE


def _distribution(searched: Searched) -> BaseDistribution:
    if not isinstance(searched, Range):
        return CategoricalDistribution([_stored(value) for value in searched])
    if isinstance(searched.low, int) and isinstance(searched.high, int):
        return IntDistribution(searched.low, searched.high, log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def _stored(value: Value) -> str | int | float | bool:
    """A value as Optuna takes it: lists and tables as JSON."""
    return value if isinstance(value, str | int | float | bool) else canonical_json(value)


def _read(searched: Searched, stored: Any) -> Value:
    if isinstance(searched, Range):
        return stored
    return next(value for value in searched if _stored(value) == stored)


def _rounded(searched: Searched, value: Value) -> Value:
    if not isinstance(searched, Range) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dicts by their dotted keys; a range is one entry."""
    if isinstance(value, dict) and "low" not in value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _value_text(value: Any) -> str:
    return "absent" if value is None else canonical_json(value)[:60]
