"""How long a search may go on: no trial is added that could not be finished in time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.search.halving import Halving
from tasks.search.trial import Trial


@dataclass(frozen=True)
class TimeBudget:
    """`deadline`: on the clock `time.monotonic`; None for a search that its trials alone end."""

    deadline: float | None

    @classmethod
    def of(cls, hours: float | None) -> TimeBudget:
        """A budget that begins now."""
        return cls(None if hours is None else time.monotonic() + 3600 * hours)

    @property
    def is_over(self) -> bool:
        """Whether no further step may begin."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def allows(self, halving: Halving, trials: Sequence[Trial]) -> bool:
        """Whether a search of one more trial can be finished in time, at the pace so far."""
        if self.deadline is None:
            return True

        updates = sum(trial.update for trial in trials)
        if not updates:
            return not self.is_over

        pace = sum(trial.seconds for trial in trials) / updates
        pending = halving.updates(len(trials) + 1) - updates
        return time.monotonic() + pending * pace <= self.deadline
