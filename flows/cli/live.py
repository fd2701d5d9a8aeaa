"""The display of a running sweep: a line per finished step, and on a terminal a table below them, an
experiment a row and the sweep in the last line; until when it takes.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import rich.live
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from flows.cli.terminal import print_line
from flows.outcomes import landed_results
from flows.plan import finished_trainings, seconds_of, set_sizes
from flows.report.figures import clock, interval, verdict
from flows.selection import Selection
from tasks.progress import listening
from tasks.runtime.events import (
    Device,
    Event,
    ExperimentFailed,
    ExperimentLanded,
    Note,
    ProgressReport,
    RemoteReport,
    SourceReport,
    StepWarning,
    TrainingReport,
    ValidationReport,
)

OF_THE_MACHINE = "GFLOP/s"  # stands in warnings about the speed of the machine, see device.py
FIGURES = re.compile(r"[0-9.,]+")  # by which the notes of a base model's steps differ
LOG_SECONDS = 15.0  # pause between the lines for a step where no table is drawn: a file or a pipe
DRAWS_PER_SECOND = 4


COLUMNS = ("experiment", "state", "iteration", "loss", "valid", "left")
LINES_AROUND = 5  # header, rows left out, current step, whole sweep, prompt
BETWEEN = 2  # spaces between two columns


@contextlib.contextmanager
def live(console: Console, selection: Selection) -> Iterator[None]:
    """Show the events of the steps of a sweep while the block runs: lines, and on a terminal a table
    below them.
    """
    display = Display(console, selection)
    table: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if console.is_terminal:
        table = rich.live.Live(
            console=console,
            transient=True,
            refresh_per_second=DRAWS_PER_SECOND,
            # Asked at each drawing: steps change the board and draw nothing themselves.
            get_renderable=lambda: display.render(console.height, console.width),
        )
    with listening(display.on_event), table:
        yield


class Display:
    """The lines of a sweep, and its table: the rows in the order of the grid, and the step that
    runs.

    `step`: its title and how far it is, e.g. `evaluate a  cases (80 of 300)`.
    """

    def __init__(self, console: Console, selection: Selection) -> None:
        self.console = console
        # The longest first: a name may be the beginning of another.
        self.models = sorted((model.name for model in selection.models), key=len, reverse=True)
        self.ended = 0
        self.time_left = TimeLeft(selection)
        self.step = "starting"
        self.rows = {
            spec.cell_id: ExperimentRow(
                spec.cell_id, self.time_left.planned[spec.cell_id], spec.recipe.iterations
            )
            for spec in selection.cells
        }
        self.names = short_names(list(self.rows))
        self.last_log = 0.0
        self.printed: set[tuple[str, str]] = set()

    def on_event(self, title: str, event: Event) -> None:
        step, _, cell = title.partition(" ")
        if cell in self.rows:
            self.rows[cell].note(step, event)
        match event:
            case StepWarning():
                self._print_once(title, event.message, f"WARNING  {event.message}", "bold yellow")
            case Note():
                self._print_once(title, FIGURES.sub("", event.message), event.message)
            case TrainingReport():
                self.time_left.train(cell)
                speed = f"{event.tokens_per_second:.0f} tokens/s"
                text = f"{title}  loss {event.loss:.3f}  {speed}  {clock(event.seconds_left)} left"
                self._show_progress(text, event.iteration, event.iterations)
            case ProgressReport():
                self._show_progress(f"{title}  {event.what}", event.done, event.of)
            case RemoteReport() if event.step:
                self.time_left.train(cell)
                text = f"{event.step} {cell}  on {event.worker}, per cent"
                self._show_progress(text, round(event.percent), 100)
            case ExperimentLanded() | ExperimentFailed():
                self._end_experiment(cell, event)
            case SourceReport():
                self._print(f"weights  {event.model}: {event.source}, digest {event.digest[:12]}")
            case Device():
                device = f"device   {event.backend}, {event.compute_path}, {event.products}"
                self._print_once("", device, f"{device}, {event.gflops:.0f} GFLOP/s")
            case ValidationReport():
                note = "  always_ed: nearly everything is answered ED" if event.always_ed else ""
                text = f"{title}  iteration {event.iteration}: validation {event.loss:.4f}{note}"
                self._print(text)

    def _show_progress(self, text: str, count: int, total: int) -> None:
        self.step = f"{text}  ({count} of {total})"
        has_table = self.console.is_terminal
        if not has_table and time.monotonic() - self.last_log > LOG_SECONDS:
            self.last_log = time.monotonic()
            self._print(self.step)

    def _end_experiment(self, cell: str, event: ExperimentLanded | ExperimentFailed) -> None:
        self.ended += 1
        self.time_left.end(cell)
        if isinstance(event, ExperimentFailed):
            self._print(f"FAILED   {cell}: {event.message}", style="bold red")
            return

        count = f"{self.ended}/{len(self.rows)}"
        seconds = self.time_left.seconds()
        progress = count if seconds is None else f"{count}, {clock(seconds)} left"
        outcomes = [
            f"ED recall {interval(row, 'ed_recall', digits=2)}  {verdict(row)}"
            for row in landed_results(event.ids)
        ]
        self._print("  ".join([f"landed   {cell}", *outcomes, progress]))

    def _print_once(self, title: str, message: str, text: str, style: str | None = None) -> None:
        """Print `text` unless a step on the same base model has sent this message."""
        model = next((name for name in self.models if f" {name}" in title), "")
        if OF_THE_MACHINE in message:  # it says nothing about a model, and its figure varies
            model = ""
            message = OF_THE_MACHINE
        if (model, message) not in self.printed:
            self.printed.add((model, message))
            self._print(text, style)

    def _print(self, text: str, style: str | None = None) -> None:
        print_line(self.console, text, style)

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
        importance = {"failed": 1, "waiting": 2, "landed": 3}
        ranked_rows = sorted(
            self.rows.values(),
            key=lambda row: (
                importance.get(row.state, 0),
                places[row.cell] * (-1 if row.state == "landed" else 1),
            ),
        )

        heights = accumulate(lines[row.cell] for row in ranked_rows)
        fitting = sum(height <= most for height in heights)
        return sorted(ranked_rows[: max(fitting, 1)], key=lambda row: places[row.cell])

    def _summary(self) -> str:
        """E.g. `3 of 60 landed, 1 failed, about 40 min left`."""
        rows = self.rows.values()
        states = Counter(row.state for row in rows)
        parts = [f"{states['landed']} of {len(rows)} landed"]
        if states["failed"]:
            parts.append(f"{states['failed']} failed")

        planned = sum(row.planned_seconds for row in rows if row.state not in ENDED)
        seconds = self.time_left.seconds() or planned
        if seconds >= 1:
            parts.append(f"about {clock(seconds)} left")

        return ", ".join(parts)


STYLES = {
    "waiting": "dim",
    "preparing": "bold",
    "training": "bold",
    "scoring": "bold",
    "landed": "green",
    "failed": "red",
}
ENDED = ("landed", "failed")


@dataclass
class ExperimentRow:
    """What is known of one experiment. `state`: a key of STYLES; `seconds_left`: of its training."""

    cell: str
    planned_seconds: float
    iterations: int
    state: str = "waiting"
    iteration: int = 0
    loss: float | None = None
    validation: float | None = None
    seconds_left: float | None = None

    def note(self, step: str, event: Event) -> None:
        """Take an event of its step `train`, `evaluate`, `land` or `experiment` into account."""
        match event:
            case ExperimentLanded():
                self.state = "landed"
            case ExperimentFailed():
                self.state = "failed"
            case TrainingReport():
                self.state = "training"
                self.iteration = event.iteration
                self.loss = event.loss
                self.seconds_left = event.seconds_left
            case ValidationReport():
                self.validation = event.loss
            case RemoteReport(step="train"):
                self.state = "training"
                self.iteration = round(self.iterations * event.percent / 100)
            case RemoteReport(step="evaluate"):
                self.state = "scoring"
            case ProgressReport() if step == "evaluate":
                self.state = "scoring"
            case RemoteReport() | ProgressReport() if (
                step in ("experiment", "train") and not self.iteration
            ):
                self.state = "preparing"

    def texts(self, name: str) -> tuple[str, ...]:
        """The cells of the table's row."""
        time_left = "" if self.state in ENDED else f"~{clock(self.planned_seconds)}"
        if self.state == "training" and self.seconds_left is not None:
            time_left = clock(self.seconds_left)
        return (
            name,
            self.state,
            f"{self.iteration}/{self.iterations}" if self.iteration else "",
            "" if self.loss is None else f"{self.loss:.3f}",
            "" if self.validation is None else f"{self.validation:.3f}",
            time_left,
        )


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


class TimeLeft:
    """Scales the plan's rough figures by the pace of the experiments trained and landed so far."""

    def __init__(self, selection: Selection) -> None:
        cells = selection.cells
        sizes = set_sizes(selection.grid)
        self.planned = {spec.cell_id: seconds_of(spec, sizes).total for spec in cells}
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
