"""What a person sees while a sweep runs: a line per finished step and a live line for the current one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.report.figures import clock
from tasks.progress import listeners
from tasks.runtime.events import (
    DeviceReport,
    Event,
    ExperimentFailed,
    ExperimentLanded,
    Note,
    ProgressReport,
    SourceReport,
    StepWarning,
    TrainingReport,
    ValidationReport,
)

LOG_SECONDS = (
    15.0  # where there is no live line (a log file, a pipe), the current step is printed this often
)


@contextlib.contextmanager
def live(console: Console, experiments: int) -> Iterator[None]:
    """Show the events of the steps while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        view = _View(bars, experiments)
        listeners.append(view.on_event)
        try:
            yield
        finally:
            listeners.remove(view.on_event)


class _View:
    """Two bars: experiments landed, and the current step."""

    def __init__(self, bars: Progress, experiments: int) -> None:
        self.bars = bars
        self.total = bars.add_task("experiments", total=experiments)
        self.step = bars.add_task("starting", total=None)
        self.current = ""
        self.printed = 0.0

    def on_event(self, title: str, event: Event) -> None:
        if title != self.current:
            self.current = title
            self.bars.reset(self.step, description=title, total=None)

        match event:
            case StepWarning():
                self._print(f"WARNING  {event.message}", style="bold yellow")
            case TrainingReport() | ProgressReport():
                self._show_step(title, event)
            case ExperimentLanded() | ExperimentFailed():
                self._end_experiment(title.removeprefix("land "), event)
            case _:
                self._print_line(title, event)

    def _print_line(self, title: str, event: Event) -> None:
        match event:
            case Note():
                self._print(event.message)
            case SourceReport():
                self._print(f"weights  {event.model}: {event.source}, digest {event.digest[:12]}")
            case DeviceReport():
                self._print(
                    f"device   {event.backend}, {event.compute_path}, BLAS {event.blas}, {event.gflops:.0f} GFLOP/s"
                )
            case ValidationReport():
                note = "  always_ed: nearly everything is answered ED" if event.always_ed else ""
                self._print(
                    f"{title}  iteration {event.iteration}: validation {event.loss:.4f}{note}"
                )

    def _show_step(self, title: str, event: TrainingReport | ProgressReport) -> None:
        if isinstance(event, ProgressReport):
            self._step(f"{title}  {event.what}", event.done, event.of)
            return
        left = clock(event.seconds_left)
        text = (
            f"{title}  loss {event.loss:.3f}  {event.tokens_per_second:.0f} tokens/s  {left} left"
        )
        self._step(text, event.iteration, event.iterations)

    def _step(self, text: str, done: int, total: int) -> None:
        self.bars.update(self.step, description=text, completed=done, total=total)
        if not self.bars.console.is_terminal and time.monotonic() - self.printed > LOG_SECONDS:
            self.printed = time.monotonic()
            self._print(f"{text}  ({done} of {total})")

    def _end_experiment(self, name: str, event: ExperimentLanded | ExperimentFailed) -> None:
        if isinstance(event, ExperimentLanded):
            self._print(f"landed   {name}")
        else:
            self._print(f"FAILED   {name}: {event.message}", style="bold red")
        self.bars.advance(self.total)

    def _print(self, text: str, style: str | None = None) -> None:
        self.bars.console.print(text, style=style, highlight=False, soft_wrap=True)
