"""The trials of a search, stored by Optuna in an SQLite file, which optuna-dashboard opens.

A trial stays RUNNING while it may still be trained further, since one that Optuna has pruned is
final: only one that was trained to its end, or that failed, is told. What we read back is the user
attribute `rungs` of each trial, which one statement replaces; the intermediate values are for
people.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from tasks.runtime.errors import BadInput
from tasks.search.objective import SearchObjective
from tasks.search.parameters import direction, distributions, stored_values, values_of
from tasks.search.proposals import Proposals
from tasks.search.space import Space, Values
from tasks.search.trial import Reached, Trial
from tasks.spec import canonical_json

FILE = "search.db"
STUDY = "search"
# user attributes of the study
IDENTITY = "identity"
FOUNDATION = "foundation"
WAIT_SECONDS = 30.0  # for another process, such as optuna-dashboard, to release the file
MOST_SHOWN = 3  # differences in an error

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Storage:
    """The stored trials of one search. `identity`: what decides its trials, by name."""

    def __init__(
        self, folder: Path, space: Space, objective: SearchObjective, identity: Any
    ) -> None:
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
                direction=direction(objective),
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
        return Proposals(self._space, self._objective).after(self.trials())

    def add(self, values: Values, training_id: str) -> int:
        """Store a proposed trial as RUNNING; returns its number."""
        with self._sentences():
            trial = create_trial(
                state=TrialState.RUNNING,
                params=stored_values(values),
                distributions=distributions(self._space),
                user_attrs={"training_id": training_id, "rungs": []},
            )
            self._study.add_trial(trial)
            # add_trial returns no number; the search is locked, so the last trial is this one.
            return len(self._frozen()) - 1

    def reach(self, number: int, reached: Reached) -> None:
        """Record that a trial is at a further rung."""
        with self._sentences():
            rungs = [*self.trials()[number].rungs, reached]
            # The storage knows a trial by an id, which is not its number in the study.
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

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, frozen: FrozenTrial) -> Trial:
        attributes = frozen.user_attrs
        return Trial(
            number=frozen.number,
            values=values_of(self._space, frozen.params),
            training_id=attributes["training_id"],
            rungs=tuple(Reached(**rung) for rung in attributes["rungs"]),
            error=attributes.get("error"),
            iterations=self._space.recipe.iterations,
            objective=self._objective,
        )

    def _agree(self, name: str, present_value: Any) -> None:
        # As it is read back from the file, where a tuple has become a list.
        present_value = json.loads(canonical_json(present_value))
        stored = self._study.user_attrs.get(name)
        if stored is None and self._frozen():
            raise BadInput(
                f"{self.path} holds trials of another program, or of an earlier version of triage: "
                "nothing says what they were trained on. Move it away to start over; trainings are "
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
            "that, give the grid another name, or move this file away to start over; trainings "
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
                "of triage or Optuna may have written it: move it away to start over, trainings "
                "are kept."
            ) from error


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dicts by their dotted keys; a range is one entry."""
    if isinstance(value, dict) and "low" not in value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _value_text(value: Any) -> str:
    return "absent" if value is None else canonical_json(value)[:60]
