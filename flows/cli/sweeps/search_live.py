"""The display of a running search: a table of its trials on a terminal, a line per event elsewhere."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import rich.live
import rich.table
from rich.console import Console, Group
from rich.text import Text

from flows.cli.terminal import print_line, printable
from flows.report.figures import clock, figure
from flows.search_setup import SearchSetup
from tasks.progress import listening
from tasks.runtime.events import Event, Note, StepWarning, TrainingReport, TrialReport
from tasks.search.objective import SearchObjective

DIGITS = 4
MOST_SHOWN = 20  # trials on a terminal: those that came furthest
# characters; the report at the end has settings whole
OTHER_COLUMNS = 64
LEAST_SETTINGS = 16
STYLES = {"training": "bold", "finished": "green", "failed": "red"}


@contextlib.contextmanager
def live(console: Console, setup: SearchSetup) -> Iterator[None]:
    """Show the trials while the block runs."""
    display = (_Table if console.is_terminal else _Lines)(console, setup.objective)
    with listening(display.on_event), display:
        yield


class _Messages:
    """The messages that were shown: each is shown once, whatever its figures are."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def is_new(self, message: str) -> bool:
        text = re.sub(r"[0-9.,]+", "", message)
        is_new = text not in self.texts
        self.texts.add(text)
        return is_new


class _Lines(contextlib.AbstractContextManager["_Lines"]):
    """A line for each rung that a trial reaches, for files and pipes."""

    def __init__(self, console: Console, objective: SearchObjective) -> None:
        self.console = console
        self.objective = objective
        self.messages = _Messages()

    def __exit__(self, *error: object) -> None:
        return None

    def on_event(self, title: str, event: Event) -> None:
        match event:
            case TrialReport() if event.state != "training" and (event.update or event.error):
                self._show(event)
            case StepWarning() | Note() if self.messages.is_new(event.message):
                self._say(event.message)

    def _show(self, trial: TrialReport) -> None:
        reached = f"update {trial.update} of {trial.iterations}"
        value = trial.error or f"{self.objective.name} {figure(trial.value, digits=DIGITS)}"
        text = f"trial {trial.number}  {trial.state}  {reached}  {value}  {trial.settings}"
        self._say(text)

    def _say(self, text: str) -> None:
        print_line(self.console, printable(text))


class _Table(contextlib.AbstractContextManager["_Table"]):
    """A table of the trials, and the progress of the one that trains."""

    def __init__(self, console: Console, objective: SearchObjective) -> None:
        self.objective = objective
        self.trials: dict[int, TrialReport] = {}
        self.progress = ""
        self.messages = _Messages()
        self.console = console
        self.live = rich.live.Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> _Table:
        self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.__exit__(None, None, None)

    def on_event(self, title: str, event: Event) -> None:
        match event:
            case TrialReport():
                self.trials[event.number] = event
            case TrainingReport():
                time_left = clock(event.seconds_left)
                updates = f"{event.iteration} of {event.iterations}"
                self.progress = (
                    f"{title}: update {updates}, loss {event.loss:.3f}, {time_left} to its end"
                )
            case StepWarning() | Note() if self.messages.is_new(event.message):
                print_line(self.live.console, printable(event.message))
            case _:
                return
        self.live.update(Group(self._table(), Text(self.progress)), refresh=True)

    def _table(self) -> rich.table.Table:
        table = rich.table.Table()
        for column in ("trial", "state", "updates", self.objective.name):
            table.add_column(column, overflow="fold")

        room = max(LEAST_SETTINGS, self.console.width - OTHER_COLUMNS)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", max_width=room)
        for trial in sorted(self.trials.values(), key=self._place)[:MOST_SHOWN]:
            table.add_row(
                str(trial.number),
                trial.state,
                f"{trial.update}/{trial.iterations}",
                figure(trial.value, digits=DIGITS) if trial.value is not None else "",
                printable(trial.settings),
                style=STYLES.get(trial.state),
            )

        return table

    def _place(self, trial: TrialReport) -> tuple[bool, int, float, int]:
        """The one that trains first, then those that came furthest, the best first."""
        loss = 0.0 if trial.value is None else self.objective.loss(trial.value)
        return trial.state != "training", -trial.update, loss, trial.number
