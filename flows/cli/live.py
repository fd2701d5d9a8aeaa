"""The display of a running sweep: a line per finished step, and on a terminal a table below them, an
experiment a row and the sweep in the last line; until when it takes.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

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

OF_THE_MACHINE = "GFLOP/s"  # stands in warnings about its speed, whose figures vary
FIGURES = re.compile(r"[0-9.,]+")  # by which the notes of a base model's steps differ
LOG_SECONDS = 15.0  # pause between the lines for a step where no table is drawn: a file or a pipe
DRAWS_PER_SECOND = 4
COLUMNS = ("experiment", "state", "iteration", "loss", "valid", "left")
LINES_AROUND = 5  # header, rows left out, current step, whole sweep, prompt
# What is shown first where a terminal has too few lines: what runs and what failed.
STYLES = {
    "training": "bold",
    "scoring": "bold",
    "preparing": "bold",
    "failed": "red",
    "waiting": "dim",
    "landed": "green",
}
IMPORTANCE = list(STYLES)
ENDED = ("landed", "failed")


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
            # Asked at each drawing: steps change the rows and draw nothing themselves.
            get_renderable=lambda: display.render(console.height),
        )
    with listening(display.on_event), table:
        yield


@dataclass
class Row:
    """What is known of one experiment. `state`: a key of STYLES; `planned_seconds`: by the plan;
    `is_open`: whether it was not finished before; `seconds_left`: of its training.
    """

    cell: str
    planned_seconds: float
    iterations: int
    is_open: bool
    has_trained: bool = False
    state: str = "waiting"
    iteration: int = 0
    loss: float | None = None
    validation: float | None = None
    seconds_left: float | None = None

    def train(self, iteration: int) -> None:
        """It is trained; a training that was finished may be of other settings: now it is work."""
        self.state = "training"
        self.is_open = self.has_trained = True
        self.iteration = iteration

    def texts(self) -> tuple[str, ...]:
        """The cells of the table's row behind its name."""
        time_left = "" if self.state in ENDED else f"~{clock(self.planned_seconds)}"
        if self.state == "training" and self.seconds_left is not None:
            time_left = clock(self.seconds_left)
        return (
            self.state,
            f"{self.iteration}/{self.iterations}" if self.iteration else "",
            "" if self.loss is None else f"{self.loss:.3f}",
            "" if self.validation is None else f"{self.validation:.3f}",
            time_left,
        )


class Display:
    """The lines of a sweep, and its table: the rows in the order of the grid, and the step that
    runs.

    `step`: its title and how far it is, e.g. `evaluate a  cases (80 of 300)`.
    """

    def __init__(self, console: Console, selection: Selection) -> None:
        self.console = console
        self.step = "starting"
        # The longest first: a name may be the beginning of another.
        self.models = sorted((model.name for model in selection.models), key=len, reverse=True)
        sizes = set_sizes(selection.grid)
        self.rows = {
            spec.cell_id: Row(
                spec.cell_id,
                planned_seconds=seconds_of(spec, sizes).total,
                iterations=spec.recipe.iterations,
                is_open=not finished_trainings(spec),
            )
            for spec in selection.cells
        }
        self.has_one_seed = len({spec.seed for spec in selection.cells}) == 1
        self.ended = 0
        self.began = time.monotonic()
        self.last_log = 0.0
        self.printed: set[str] = set()

    def on_event(self, title: str, event: Event) -> None:
        """Take an event of the step `title` into account: `train a`, `evaluate a`, `land a`, or, on
        a machine of a pool, `experiment a`.
        """
        step, _, cell = title.partition(" ")
        # That of a step which is no experiment's is not shown.
        row = self.rows.get(cell) or Row(cell, 0.0, 0, False)
        match event:
            case StepWarning():
                key = OF_THE_MACHINE if OF_THE_MACHINE in event.message else event.message
                self._print_once(key, f"WARNING  {event.message}", "bold yellow")
            case Note():
                model = next((name for name in self.models if f" {name}" in title), "")
                self._print_once(f"{model} {FIGURES.sub('', event.message)}", event.message)
            case Device():
                device = f"device   {event.backend}, {event.compute_path}, {event.products}"
                self._print_once(device, f"{device}, {event.gflops:.0f} GFLOP/s")
            case SourceReport():
                self._print(f"weights  {event.model}: {event.source}, digest {event.digest[:12]}")
            case TrainingReport():
                row.train(event.iteration)
                row.loss = event.loss
                row.seconds_left = event.seconds_left
                speed = f"{event.tokens_per_second:.0f} tokens/s"
                text = f"{title}  loss {event.loss:.3f}  {speed}  {clock(event.seconds_left)} left"
                self._show_progress(text, event.iteration, event.iterations)
            case ValidationReport():
                row.validation = event.loss
                note = "  always_ed: nearly everything is answered ED" if event.always_ed else ""
                text = f"{title}  iteration {event.iteration}: validation {event.loss:.4f}{note}"
                self._print(text)
            case ProgressReport():
                if step == "evaluate":
                    row.state = "scoring"
                elif step == "train" and not row.iteration:
                    row.state = "preparing"
                self._show_progress(f"{title}  {event.what}", event.done, event.of)
            case RemoteReport():
                if event.step == "train":
                    row.train(round(row.iterations * event.percent / 100))
                elif event.step == "evaluate":
                    row.state = "scoring"
                elif not row.iteration:
                    row.state = "preparing"
                if event.step:
                    text = f"{event.step} {cell}  on {event.worker}, per cent"
                    self._show_progress(text, round(event.percent), 100)
            case ExperimentFailed():
                self.ended += 1
                row.state = "failed"
                self._print(f"FAILED   {cell}: {event.message}", style="bold red")
            case ExperimentLanded():
                self.ended += 1
                row.state = "landed"
                outcomes = [
                    f"ED recall {interval(result, 'ed_recall', digits=2)}  {verdict(result)}"
                    for result in landed_results(event.ids)
                ]
                count = f"{self.ended}/{len(self.rows)}"
                self._print("  ".join([f"landed   {cell}", *outcomes, f"{count}{self._left()}"]))

    def _show_progress(self, text: str, count: int, total: int) -> None:
        self.step = f"{text}  ({count} of {total})"
        if not self.console.is_terminal and time.monotonic() - self.last_log > LOG_SECONDS:
            self.last_log = time.monotonic()
            self._print(self.step)

    def _print_once(self, key: str, text: str, style: str | None = None) -> None:
        """Print `text` unless one with this key was printed before."""
        if key not in self.printed:
            self.printed.add(key)
            self._print(text, style)

    def _print(self, text: str, style: str | None = None) -> None:
        print_line(self.console, text, style)

    def _left(self) -> str:
        """E.g. `, about 40 min left`: the planned time of the experiments that have not ended, by
        the pace of those that were trained and have.
        """
        rows = self.rows.values()
        work = sum(row.planned_seconds for row in rows if row.is_open and row.state not in ENDED)
        done = sum(row.planned_seconds for row in rows if row.has_trained and row.state in ENDED)
        pace = (time.monotonic() - self.began) / done if done else 1.0
        return f", about {clock(work * pace)} left" if work else ""

    def render(self, height: int) -> Group:
        """The table with at most `height` lines, and below it the step and the whole sweep."""
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        for place, column in enumerate(COLUMNS):
            table.add_column(
                column,
                overflow="ellipsis",
                no_wrap=True,
                justify="left" if place < 2 else "right",
            )

        # In the grid's order: of what ended and of what waits, that which is nearest to now.
        rows = list(self.rows.values())
        by_importance = sorted(
            range(len(rows)),
            key=lambda place: (
                IMPORTANCE.index(rows[place].state),
                -place if rows[place].state == "landed" else place,
            ),
        )
        visible = sorted(by_importance[: max(height - LINES_AROUND, 1)])
        for row in (rows[place] for place in visible):
            # The seed tells apart where there are several; without it names fit 80 columns.
            name = row.cell.rpartition("-")[0] if self.has_one_seed else row.cell
            table.add_row(name, *row.texts(), style=STYLES[row.state])

        states = Counter(row.state for row in rows)
        failed = f", {states['failed']} failed" if states["failed"] else ""
        summary = f"{states['landed']} of {len(rows)} landed{failed}{self._left()}"
        hidden = len(rows) - len(visible)
        return Group(
            table,
            *([Text(f"and {hidden} more", style="dim")] if hidden else []),
            Text(self.step, overflow="ellipsis", no_wrap=True),
            Text(summary),
        )
