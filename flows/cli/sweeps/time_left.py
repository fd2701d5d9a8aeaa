"""Estimates when a running sweep will have landed its last experiment."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flows.plan import finished_trainings, seconds_of
from tasks.spec import ExperimentSpec


class TimeLeft:
    """Scales the plan's rough figures by the pace of the experiments trained and landed so far."""

    def __init__(self, cells: Sequence[ExperimentSpec]) -> None:
        self.planned = {spec.cell_id: seconds_of(spec).total for spec in cells}
        # A finished training may be of other settings: it counts as
        # work once the cell trains again.
        self.open = {spec.cell_id for spec in cells if not finished_trainings(spec)}
        self.trained: set[str] = set()
        self.landed = 0.0  # planned seconds of the experiments that trained in this sweep
        self.began = time.monotonic()

    def train(self, cell: str) -> None:
        """An experiment is being trained, so it was not finished before."""
        if cell in self.planned:
            self.open.add(cell)
            self.trained.add(cell)

    def end(self, cell: str) -> None:
        """An experiment has landed or failed."""
        self.open.discard(cell)
        if cell in self.trained:
            self.landed += self.planned[cell]

    def seconds(self) -> float | None:
        """Seconds until the open experiments have landed; None if there are none or no pace yet."""
        if not self.open or not self.landed:
            return None
        work = sum(self.planned[cell] for cell in self.open)
        return work * (time.monotonic() - self.began) / self.landed
