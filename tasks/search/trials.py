"""The trials of a search, in a study of Optuna's: an SQLite file that optuna-dashboard opens.

A trial is RUNNING until it is COMPLETE at its last update, PRUNED at an earlier rung by successive
halving, or FAIL. Proposals and pruning follow from its user attribute `rungs` and the
seed alone, so a search that was killed between any two writes continues as if it never was.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from optuna import distributions
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event
from tasks.search.space import Objective, Space, Value, Values, is_whole
from tasks.spec import Range, Searched, canonical_json

FILE = "search.db"
ATTEMPTS = 200  # at a proposal that no earlier trial has; all but the first are random
DIGITS = 3  # significant ones of a proposed real number
WAIT_SECONDS = 30.0  # for another process, such as optuna-dashboard, to release the file

# What a damaged, foreign, locked or full file raises.
REFUSALS = (
    SQLAlchemyError,
    StorageInternalError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
)
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "paused",
    TrialState.FAIL: "failed",
}

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Reached:
    """A trial at one rung. `validation`: the lowest validation value so far; `seconds`: of the whole step
    to here, `train_seconds`: of all updates.
    """

    update: int
    value: float
    validation: float
    seconds: float
    train_seconds: float


class Trial(Event):
    """A stored trial. `error`: why its training failed; `iterations`: its full length.

    `state`: "running" while it is to be trained further, "training" in the report that it is now,
    "paused" where it was pruned, "finished" or "failed".
    """

    number: int
    values: Values
    training_id: str
    rungs: tuple[Reached, ...]
    error: str | None
    iterations: int
    objective: Objective
    state: str

    @property
    def ranks(self) -> Sequence[tuple[float, float]]:
        """What it is compared by at each rung, lower is better."""
        sign = -1 if self.objective.is_higher_better else 1
        return [(sign * rung.value, rung.validation) for rung in self.rungs]

    @property
    def update(self) -> int:
        return self.rungs[-1].update if self.rungs else 0

    @property
    def value(self) -> float | None:
        return self.rungs[-1].value if self.rungs else None

    @property
    def seconds(self) -> float:
        return sum(rung.seconds for rung in self.rungs)


def in_words(values: Values) -> str:
    """Values of settings for people."""
    return ", ".join(
        f"{key.partition('.')[2]} = {json.dumps(value)}" for key, value in values.items()
    )


def _place(trial: Trial) -> tuple[bool, int, float, float, int]:
    loss, validation = trial.ranks[-1] if trial.rungs else (0.0, 0.0)
    return trial.state == "failed", -len(trial.rungs), loss, validation, trial.number


def best_first(trials: Iterable[Trial]) -> list[Trial]:
    """The best trials among those that came furthest, then the others; failed ones last."""
    return sorted(trials, key=_place)


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The best of the trials that came furthest; None if none reached a rung."""
    able = [trial for trial in trials if trial.rungs and trial.state != "failed"]
    return min(able, key=_place, default=None)


def has_time(trials: Sequence[Trial], deadline: float | None) -> bool:
    """Whether one more trial can be trained before `deadline` (`time.monotonic`) at the pace so far."""
    if deadline is None:
        return True
    updates = sum(trial.update for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    needed = trials[0].iterations * seconds / updates if updates else 0.0
    return time.monotonic() + needed < deadline


class Trials:
    """The stored trials of one search. Raises BadInput for a file that is no storage of this search."""

    def __init__(self, space: Space) -> None:
        self.path = space.folder / FILE
        self._space = space
        self._distributions = {key: _distribution(s) for key, s in space.settings.items()}
        is_higher_better = space.objective.is_higher_better
        self._direction = StudyDirection.MAXIMIZE if is_higher_better else StudyDirection.MINIMIZE
        with self._sentences():
            space.folder.mkdir(parents=True, exist_ok=True)
            self._storage = RDBStorage(
                f"sqlite:///{self.path}",
                engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}},
            )
            # A changed space is another study: no trial is compared with those of another search.
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=space.search_id,
                direction=self._direction,
                load_if_exists=True,
            )
            # A search that was killed may have recorded a rung without settling the trial.
            for trial in self.all():
                self._settle(trial)

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what such a file raises into a sentence."""
        try:
            yield
        except REFUSALS as error:
            first = str(error.__cause__ or error).strip().partition("\n")[0][:200].rstrip(".")
            raise BadInput(
                f"{self.path} cannot be used as the storage of a search ({first}); another version "
                "of triage or Optuna may have written it: move it away to start over, trainings "
                "are kept."
            ) from error

    def all(self) -> list[Trial]:
        """Every trial, in the order in which they were proposed."""
        with self._sentences():
            return [
                Trial(
                    number=frozen.number,
                    values=self._values(frozen.params),
                    training_id=frozen.user_attrs["training_id"],
                    rungs=tuple(Reached(**rung) for rung in frozen.user_attrs["rungs"]),
                    error=frozen.user_attrs.get("error"),
                    iterations=self._space.recipe.iterations,
                    objective=self._space.objective,
                    state=STATES.get(frozen.state, "running"),
                )
                for frozen in self._frozen()
            ]

    def propose(self) -> Values | None:
        """The values of the next trial; None where the space has no other recipe left."""
        trials = self.all()
        search = self._space.search
        tried_values = {canonical_json(trial.values) for trial in trials}
        first = self._space.starting_values()
        if not trials and first is not None:
            return first

        for attempt in range(ATTEMPTS):
            entropy = np.random.SeedSequence([search.seed, len(trials), attempt])
            seed = int(entropy.generate_state(1)[0])
            sampler: BaseSampler = TPESampler(n_startup_trials=search.start_up_trials, seed=seed)
            if attempt:
                sampler = RandomSampler(seed)
            # In memory, so that what was only asked for is stored nowhere.
            view = optuna.create_study(direction=self._direction, sampler=sampler)
            if not attempt:
                view.add_trials([_as_learnt(frozen) for frozen in self._frozen()])

            values = self._values(view.ask(self._distributions).params)
            if canonical_json(values) not in tried_values:
                return values

        return None

    def add(self, values: Values, training_id: str) -> None:
        """Store a proposed trial."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params={key: _stored(value) for key, value in values.items()},
            distributions=self._distributions,
            user_attrs={"training_id": training_id, "rungs": []},
        )
        with self._sentences():
            self._study.add_trial(trial)

    def reach(self, number: int, reached: Reached) -> None:
        """Record that a trial is at a further rung, where it may be pruned."""
        rungs = (*self.all()[number].rungs, reached)
        self._record(number, "rungs", [asdict(rung) for rung in rungs])

    def fail(self, number: int, error: str) -> None:
        """Record that a trial cannot be trained to its end."""
        self._record(number, "error", error)

    def _record(self, number: int, attribute: str, value: Any) -> None:
        with self._sentences():
            # The storage knows a trial by an id, which is not its number in the study.
            self._storage.set_trial_user_attr(self._frozen()[number]._trial_id, attribute, value)
            self._settle(self.all()[number])

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _settle(self, trial: Trial) -> None:
        """Tell Optuna what became of a trial, as far as its rungs say."""
        if trial.state != "running":
            return

        id = self._frozen()[trial.number]._trial_id
        for rung in trial.rungs:
            self._storage.set_trial_intermediate_value(id, rung.update, rung.value)

        if trial.error is not None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif trial.update >= trial.iterations:
            self._study.tell(trial.number, trial.value)
        elif trial.rungs and self._is_pruned(trial):
            self._study.tell(trial.number, state=TrialState.PRUNED)

    def _is_pruned(self, trial: Trial) -> bool:
        """Whether successive halving ends a trial at its last rung, as Optuna's
        SuccessiveHalvingPruner decides: it goes on among the best `keep` of the trials that were at
        this rung before it, itself included, or as the best of fewer.

        Computed anew, since a kill could fall between a mark that a pruner stores and its decision.
        """
        rung = len(trial.rungs) - 1
        factor = max(2, math.floor(1 / self._space.search.keep + 0.5))
        earlier = self.all()[: trial.number + 1]
        ranks = sorted(other.ranks[rung] for other in earlier if len(other.rungs) > rung)
        return trial.ranks[rung] > ranks[max(len(ranks) // factor, 1) - 1]

    def _values(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """The values that Optuna's parameters stand for, real numbers as one would write them."""
        values: dict[str, Value] = {}
        for key, searched in self._space.settings.items():
            value = params[key]
            if not isinstance(searched, Range):
                value = next(choice for choice in searched if _stored(choice) == value)
            elif isinstance(value, float):
                # Rounding may step over an end of the range.
                value = min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)
            values[key] = value

        return values


def _as_learnt(frozen: FrozenTrial) -> FrozenTrial:
    """A trial as the sampler learns from it: a failed one as a pruned one without a value, the worst."""
    if frozen.state != TrialState.FAIL:
        return frozen
    return create_trial(
        state=TrialState.PRUNED, params=frozen.params, distributions=frozen.distributions
    )


def _distribution(searched: Searched) -> distributions.BaseDistribution:
    if not isinstance(searched, Range):
        return distributions.CategoricalDistribution([_stored(value) for value in searched])
    if is_whole(searched):
        low, high = int(searched.low), int(searched.high)
        return distributions.IntDistribution(low, high, log=searched.log)
    return distributions.FloatDistribution(searched.low, searched.high, log=searched.log)


def _stored(value: Value) -> str | int | float | bool:
    """A value as Optuna takes it: lists and tables as JSON."""
    return value if isinstance(value, str | int | float | bool) else canonical_json(value)
