"""The display of a running sweep: a line per finished step, and on a terminal a table below them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence

import rich.live
from rich.console import Console, Group

from flows.cli.sweeps.live_table import Board
from flows.cli.sweeps.time_left import TimeLeft
from flows.cli.terminal import print_line
from flows.report.figures import clock
from flows.report.landed import landed_results
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
from tasks.spec import ExperimentSpec

OF_THE_MACHINE = "GFLOP/s"  # stands in warnings about the speed of the machine, see device.py
FIGURES = re.compile(r"[0-9.,]+")  # by which the notes of a base model's steps differ
LOG_SECONDS = 15.0  # pause between the lines for a step where no table is drawn: a file or a pipe
DRAWS_PER_SECOND = 4


@contextlib.contextmanager
def live(console: Console, cells: Sequence[ExperimentSpec]) -> Iterator[None]:
    """Show the events of the steps while the block runs. `cells`: the experiments of the sweep."""
    display = _Display(console, cells)
    table: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if console.is_terminal:
        table = display.table()
    with listening(display.on_event), table:
        yield


class _Display:
    """The lines of a sweep, and the board that the table shows."""

    def __init__(self, console: Console, cells: Sequence[ExperimentSpec]) -> None:
        self.console = console
        self.experiments = len(cells)
        # The longest first: a name may be the beginning of another.
        self.models = sorted({spec.model.name for spec in cells}, key=len, reverse=True)
        self.ended = 0
        self.time_left = TimeLeft(cells)
        self.board = Board.of(cells, self.time_left)
        self.last_log = 0.0
        self.printed: set[tuple[str, str]] = set()

    def table(self) -> rich.live.Live:
        """The table, drawn while the context lasts."""

        def draw() -> Group:
            return self.board.render(self.console.height, self.console.width)

        return rich.live.Live(
            console=self.console,
            transient=True,
            refresh_per_second=DRAWS_PER_SECOND,
            # Asked at each drawing: steps change the board and draw nothing themselves.
            get_renderable=draw,
        )

    def on_event(self, title: str, event: Event) -> None:
        self.board.note(title, event)
        match event:
            case StepWarning():
                self._print_once(title, event.message, f"WARNING  {event.message}", "bold yellow")
            case TrainingReport() | ProgressReport():
                self._show_step(title, event)
            case RemoteReport():
                self._show_remote(title, event)
            case ExperimentLanded() | ExperimentFailed():
                self._end_experiment(title.removeprefix("land "), event)
            case _:
                self._print_report(title, event)

    def _print_report(self, title: str, event: Event) -> None:
        match event:
            case Note():
                words = FIGURES.sub("", event.message)
                self._print_once(title, words, event.message)
            case SourceReport():
                self._print(f"weights  {event.model}: {event.source}, digest {event.digest[:12]}")
            case Device():
                device = f"device   {event.backend}, {event.compute_path}, {event.products}"
                self._print_once("", device, f"{device}, {event.gflops:.0f} GFLOP/s")
            case ValidationReport():
                note = "  always_ed: nearly everything is answered ED" if event.always_ed else ""
                text = f"{title}  iteration {event.iteration}: validation {event.loss:.4f}{note}"
                self._print(text)

    def _show_step(self, title: str, event: TrainingReport | ProgressReport) -> None:
        if isinstance(event, ProgressReport):
            self._show_progress(f"{title}  {event.what}", event.done, event.of)
            return

        self.time_left.train(title.removeprefix("train "))
        speed = f"{event.tokens_per_second:.0f} tokens/s"
        text = f"{title}  loss {event.loss:.3f}  {speed}  {clock(event.seconds_left)} left"
        self._show_progress(text, event.iteration, event.iterations)

    def _show_remote(self, title: str, event: RemoteReport) -> None:
        if event.step:
            cell = title.partition(" ")[2]
            self.time_left.train(cell)
            text = f"{event.step} {cell}  on {event.worker}, per cent"
            self._show_progress(text, round(event.percent), 100)

    def _show_progress(self, text: str, count: int, total: int) -> None:
        self.board.step = f"{text}  ({count} of {total})"
        has_table = self.console.is_terminal
        if not has_table and time.monotonic() - self.last_log > LOG_SECONDS:
            self.last_log = time.monotonic()
            self._print(self.board.step)

    def _end_experiment(self, cell: str, event: ExperimentLanded | ExperimentFailed) -> None:
        self.ended += 1
        self.time_left.end(cell)
        if isinstance(event, ExperimentFailed):
            self._print(f"FAILED   {cell}: {event.message}", style="bold red")
            return

        parts = [f"landed   {cell}", *map(str, landed_results(event.ids)), self._progress()]
        self._print("  ".join(parts))

    def _progress(self) -> str:
        """E.g. `3/8, 40 min left`."""
        seconds = self.time_left.seconds()
        count = f"{self.ended}/{self.experiments}"
        return count if seconds is None else f"{count}, {clock(seconds)} left"

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
