"""A trial of a search: the values of the searched settings, and what it was at each rung."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tasks.search.objective import SearchObjective
from tasks.search.space import Values

State = Literal["finished", "paused", "failed"]


@dataclass(frozen=True)
class Reached:
    """What a trial is at one rung: its value there, and the seconds that the way to it took.

    `validation`: the lowest validation value of the recipe's own objective so far; `seconds`: of
    the whole step, with loading and scoring; `train_seconds`: of the updates alone.
    """

    update: int
    value: float
    validation: float
    seconds: float
    train_seconds: float


@dataclass(frozen=True)
class Trial:
    """A stored trial. `error`: why its training failed, if it did; `iterations`: its full length."""

    number: int
    values: Values
    training_id: str
    rungs: tuple[Reached, ...]
    error: str | None
    iterations: int
    objective: SearchObjective

    @property
    def failed(self) -> bool:
        """See `halving.Standing`."""
        return self.error is not None

    @property
    def ranks(self) -> Sequence[tuple[float, float]]:
        """See `halving.Standing`: equal values are told apart by the validation value."""
        return [(self.objective.loss(rung.value), rung.validation) for rung in self.rungs]

    @property
    def update(self) -> int:
        """The update of the last rung that it reached; 0 before the first."""
        return self.rungs[-1].update if self.rungs else 0

    @property
    def value(self) -> float | None:
        """The value at the last rung that it reached."""
        return self.rungs[-1].value if self.rungs else None

    @property
    def state(self) -> State:
        """Whether it can be trained further."""
        if self.failed:
            return "failed"
        return "finished" if self.update >= self.iterations else "paused"

    @property
    def seconds(self) -> float:
        """Of all its steps so far."""
        return sum(rung.seconds for rung in self.rungs)

    @property
    def settings(self) -> str:
        """Its values for people."""
        return in_words(self.values)


def in_words(values: Values) -> str:
    """Values of settings for people, without the tables that their names repeat."""
    return ", ".join(
        f"{key.partition('.')[2]} = {json.dumps(value)}" for key, value in values.items()
    )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the best value among those that came furthest; None if none reached a rung."""
    reached = [trial for trial in trials if trial.rungs and not trial.failed]
    if not reached:
        return None
    rungs = max(len(trial.rungs) for trial in reached)
    furthest = [trial for trial in reached if len(trial.rungs) == rungs]
    return min(furthest, key=lambda trial: (*trial.ranks[-1], trial.number))


@dataclass(frozen=True)
class Cost:
    """Updates made and seconds taken by a search, and by all its trials if each went to its end.

    A trial that failed could not go further: it counts with what it took.
    """

    updates: int
    seconds: float
    all_updates: int
    all_seconds: float

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Cost:
        """The seconds to the end are estimated from each trial's own seconds per update, and from
        what a step usually takes besides its updates: the first one also stores frozen prefixes.
        """
        steps = [_ratio(trial) for trial in trials if trial.rungs]
        usual = median(steps) if steps else 1.0
        updates = sum(trial.update for trial in trials)
        seconds = sum(trial.seconds for trial in trials)
        all_updates = updates
        all_seconds = seconds

        for trial in trials:
            if trial.state == "paused" and trial.update:
                remaining = trial.iterations - trial.update
                pace = trial.rungs[-1].train_seconds / trial.update
                all_updates += remaining
                all_seconds += remaining * pace * usual

        return cls(updates, seconds, all_updates, all_seconds)


def _ratio(trial: Trial) -> float:
    """Seconds of a trial's steps by seconds of its updates."""
    return trial.seconds / max(trial.rungs[-1].train_seconds, 1e-9)
