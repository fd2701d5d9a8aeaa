"""How long the steps of a sweep may take: the grid's factor times what the plan expects of them."""

from __future__ import annotations

from flows.plan_operations import all_operations
from flows.plan_time import Steps, assumed_speeds
from flows.selection import Selection
from tasks.spec import ExperimentSpec


class TimeLimits:
    """The limits of a selection's steps, in seconds.

    What the steps of an experiment share counts for each of them, since each may be the first that
    needs it.
    """

    def __init__(self, selection: Selection) -> None:
        self._grid = selection.grid
        self._variants = {(spec.model.name, spec.precision.name) for spec in selection.cells}

    @property
    def of_other_steps(self) -> float:
        """Of a step of which the plan expects nothing, such as a conversion."""
        return self._grid.time_limit.seconds(0.0)

    def of_training(self, spec: ExperimentSpec) -> float:
        """Of the training of an experiment."""
        expected = self._expected(spec)
        return self._grid.time_limit.seconds(expected.preparing + expected.training)

    def of_scoring(self, spec: ExperimentSpec) -> float:
        """Of a step that scores an experiment, or its untuned model, on any of its sets."""
        expected = self._expected(spec)
        whole = expected.preparing + expected.scoring + expected.dropout
        return self._grid.time_limit.seconds(whole)

    def _expected(self, spec: ExperimentSpec) -> Steps:
        return all_operations(self._grid, [spec], [False], self._variants).at(assumed_speeds())
