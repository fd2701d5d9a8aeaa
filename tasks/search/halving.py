"""Successive halving: which trial trains next, and to which update (Jamieson & Talwalkar 2016).

A rung is an update at which a trial pauses. Once the asked number of trials stands at the first
rung, the best share of them goes on to the second, and so on to the end of the training. What comes
next depends on the recorded values alone, so a search that was killed goes on as if it never was,
and one that gets more trials promotes those that are among the best of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.runtime.errors import BadInput


class Standing(Protocol):
    """What the halving needs of a trial."""

    @property
    def number(self) -> int:
        """The trial's number, from 0."""

    @property
    def failed(self) -> bool:
        """Whether the training diverged or did not fit the memory."""

    @property
    def ranks(self) -> Sequence[tuple[float, float]]:
        """What the trial is ranked by at each rung that it has reached; lower is better."""


@dataclass(frozen=True)
class TrainTo:
    """Train this trial to this rung."""

    number: int
    rung: int


@dataclass(frozen=True)
class Proposal:
    """Ask for a further trial."""


Move = TrainTo | Proposal | None


@dataclass(frozen=True)
class Halving:
    """The rungs of a search as numbers of updates, the last being the end of the training.

    `keep`: the share of the trials that goes on at each rung.
    """

    rungs: tuple[int, ...]
    keep: float

    def survivors(self, trials: int, rung: int) -> int:
        """How many of so many trials reach a rung; at least one reaches the last."""
        # Not round(), which takes 2.5 down to 2.
        return max(1, math.floor(trials * self.keep**rung + 0.5)) if trials else 0

    def updates(self, trials: int) -> int:
        """The updates of a whole search of so many trials."""
        total = 0
        start = 0
        for rung, update in enumerate(self.rungs):
            total += self.survivors(trials, rung) * (update - start)
            start = update
        return total

    def next_move(self, trials: Sequence[Standing], trial_count: int) -> Move:
        """The next move, until there are `trial_count` trials; None when the search is done."""
        # Also one that a killed search had added and not trained.
        for trial in trials:
            if not trial.failed and not trial.ranks:
                return TrainTo(trial.number, 0)

        if len(trials) < trial_count:
            return Proposal()

        for rung in range(1, len(self.rungs)):
            for trial in self._promoted(trials, rung):
                if len(trial.ranks) <= rung:
                    return TrainTo(trial.number, rung)

        return None

    def _promoted(self, trials: Sequence[Standing], rung: int) -> list[Standing]:
        """The trials that go on to a rung, the best first."""
        candidates = [trial for trial in trials if not trial.failed and len(trial.ranks) >= rung]
        ranked_trials = sorted(candidates, key=lambda trial: (*trial.ranks[rung - 1], trial.number))
        return ranked_trials[: self.survivors(len(trials), rung)]


def rungs(iterations: int, evaluate_every: int, shares: Sequence[float]) -> tuple[int, ...]:
    """The updates at which trials pause, each with a checkpoint, and the last update.

    Shares that fall on one checkpoint make one rung. Raises BadInput where there is no checkpoint
    before the end.
    """
    nearest = (max(1, round(share * iterations / evaluate_every)) for share in shares)
    pauses = sorted({number * evaluate_every for number in nearest})

    before_the_end = [update for update in pauses if update < iterations]
    if not before_the_end:
        raise BadInput(
            f"training.evaluate_every = {evaluate_every} leaves no checkpoint before the end of "
            f"{iterations} updates at which trials could pause; lower it to "
            f"{max(1, iterations // 8)} or less, e.g. with --set training.evaluate_every="
            f"{max(1, iterations // 8)}."
        )

    return (*before_the_end, iterations)
