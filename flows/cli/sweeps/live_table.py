"""The table of a running sweep on a terminal: an experiment a row, the sweep in the last line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import accumulate

from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.cli.sweeps.time_left import TimeLeft
from flows.report.figures import clock
from tasks.runtime.events import (
    Event,
    ExperimentFailed,
    ExperimentLanded,
    ProgressReport,
    RemoteReport,
    TrainingReport,
    ValidationReport,
)
from tasks.spec import ExperimentSpec

COLUMNS = ("experiment", "state", "iteration", "loss", "valid", "left")
LINES_AROUND = 5  # header, rows left out, current step, whole sweep, prompt
BETWEEN = 2  # spaces between two columns
NONE = ""


class State(Enum):
    """How far an experiment is; the value is what the table shows."""

    WAITING = "waiting"
    PREPARING = "preparing"
    TRAINING = "training"
    SCORING = "scoring"
    LANDED = "landed"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        return self in (State.LANDED, State.FAILED)


STYLES = {
    State.PREPARING: "bold",
    State.TRAINING: "bold",
    State.SCORING: "bold",
    State.LANDED: "green",
    State.FAILED: "red",
    State.WAITING: "dim",
}


@dataclass(frozen=True)
class ExperimentRow:
    """What is known of one experiment. `seconds_left`: of its training."""

    cell: str
    planned_seconds: float
    iterations: int
    state: State = State.WAITING
    iteration: int = 0
    loss: float | None = None
    validation: float | None = None
    seconds_left: float | None = None

    def after(self, step: str, event: Event) -> ExperimentRow:
        """The row after an event of its step `train`, `evaluate` or `land`."""
        match event:
            case ExperimentLanded():
                return replace(self, state=State.LANDED)
            case ExperimentFailed():
                return replace(self, state=State.FAILED)
            case TrainingReport():
                return replace(
                    self,
                    state=State.TRAINING,
                    iteration=event.iteration,
                    loss=event.loss,
                    seconds_left=event.seconds_left,
                )
            case ValidationReport():
                return replace(self, validation=event.loss)
            case RemoteReport():
                return self._elsewhere(event)
            case ProgressReport() if step == "train" and not self.iteration:
                return replace(self, state=State.PREPARING)
            case ProgressReport() if step == "evaluate":
                return replace(self, state=State.SCORING)
        return self

    def _elsewhere(self, report: RemoteReport) -> ExperimentRow:
        """The row of an experiment that a worker of a pool runs."""
        match report.step:
            case "train":
                iteration = round(self.iterations * report.percent / 100)
                return replace(self, state=State.TRAINING, iteration=iteration)
            case "evaluate":
                return replace(self, state=State.SCORING)
        return self if self.iteration else replace(self, state=State.PREPARING)

    def texts(self, name: str) -> tuple[str, ...]:
        """The cells of the table's row."""
        iteration = f"{self.iteration}/{self.iterations}" if self.iteration else NONE
        return (
            name,
            self.state.value,
            iteration,
            _figure(self.loss),
            _figure(self.validation),
            self._time(),
        )

    def _time(self) -> str:
        if self.state is State.TRAINING and self.seconds_left is not None:
            return clock(self.seconds_left)
        return NONE if self.state.has_ended else f"~{clock(self.planned_seconds)}"


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


@dataclass
class Board:
    """The rows of a sweep in the order of the grid, and the step that runs.

    `step`: its title and how far it is, e.g. `evaluate a  cases (80 of 300)`.
    """

    rows: dict[str, ExperimentRow]
    time_left: TimeLeft
    step: str = "starting"
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Sequence[ExperimentSpec], time_left: TimeLeft) -> Board:
        rows = {
            spec.cell_id: ExperimentRow(
                spec.cell_id, time_left.planned[spec.cell_id], spec.recipe.iterations
            )
            for spec in cells
        }
        return cls(rows, time_left, names=short_names(list(rows)))

    def note(self, title: str, event: Event) -> None:
        """Take an event of the step `title` into account."""
        step, _, cell = title.partition(" ")
        if cell in self.rows:
            self.rows[cell] = self.rows[cell].after(step, event)

    def render(self, height: int, width: int) -> Group:
        """The table with at most `height` lines, and below it the step and the whole sweep.

        `width`: characters of the terminal, at which long names take several lines.
        """
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        for column in COLUMNS:
            table.add_column(
                column,
                overflow="fold",
                no_wrap=column != "experiment",
                justify="left" if column in ("experiment", "state") else "right",
            )

        texts = {cell: row.texts(self.names[cell]) for cell, row in self.rows.items()}
        # Live cuts off the foot of what is taller than the terminal, where the summary stands.
        visible_rows = self._shown(height - LINES_AROUND, _lines_of(texts, width))
        for row in visible_rows:
            table.add_row(*texts[row.cell], style=STYLES[row.state])

        lines = [Text(self.step, overflow="ellipsis", no_wrap=True), Text(self._summary())]
        hidden = len(self.rows) - len(visible_rows)
        if hidden:
            lines.insert(0, Text(f"and {hidden} more", style="dim"))

        return Group(table, *lines)

    def _shown(self, most: int, lines: Mapping[str, int]) -> list[ExperimentRow]:
        """The rows that fit, in the grid's order: what runs and what failed before what waits, and
        what waits, the next first, before what landed. At least one; `lines`: of each row.
        """
        places = {cell: place for place, cell in enumerate(self.rows)}
        importance = {State.FAILED: 1, State.WAITING: 2, State.LANDED: 3}
        ranked_rows = sorted(
            self.rows.values(),
            key=lambda row: (
                importance.get(row.state, 0),
                places[row.cell] * (-1 if row.state is State.LANDED else 1),
            ),
        )

        heights = accumulate(lines[row.cell] for row in ranked_rows)
        fitting = sum(height <= most for height in heights)
        return sorted(ranked_rows[: max(fitting, 1)], key=lambda row: places[row.cell])

    def _summary(self) -> str:
        """E.g. `3 of 60 landed, 1 failed, about 40 min left`."""
        states = [row.state for row in self.rows.values()]
        parts = [f"{states.count(State.LANDED)} of {len(states)} landed"]
        if failures := states.count(State.FAILED):
            parts.append(f"{failures} failed")

        waiting_seconds = [
            row.planned_seconds for row in self.rows.values() if not row.state.has_ended
        ]
        seconds = self.time_left.seconds() or sum(waiting_seconds)
        if seconds >= 1:
            parts.append(f"about {clock(seconds)} left")

        return ", ".join(parts)


def _lines_of(rows: Mapping[str, tuple[str, ...]], width: int) -> dict[str, int]:
    """Lines of each row: its name folds where the other columns leave too little of the width."""
    others = zip(COLUMNS[1:], *(texts[1:] for texts in rows.values()), strict=True)
    taken = sum(BETWEEN + max(map(len, column)) for column in others)
    room = max(width - taken, 1)
    return {cell: -(-len(name) // room) for cell, (name, *_) in rows.items()}


def short_names(cells: Sequence[str]) -> dict[str, str]:
    """Names of cells without the seed where all have the same one, which the others need."""
    seeds = {cell.rpartition("-")[2] for cell in cells}
    if len(seeds) > 1:
        return {cell: cell for cell in cells}
    return {cell: cell.rpartition("-")[0] for cell in cells}
