"""Runs a sweep from the command line: live progress, comparison, and the next command to type."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

# Before Prefect is imported. The live display shows what its console log would; the UI gets both.
if "PREFECT_LOGGING_LEVEL" not in os.environ:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")

from rich.console import Console

from deployments.interruptions import (
    INTERRUPTED,
    at_next_interruption,
    interrupted_by_signals,
    kept_awake,
    leaving_in_time,
)
from deployments.temporary_server import LOST, TemporaryServer, start_temporary_server, used
from flows.cli.terminal import errors, print_line
from flows.plan import finished_trainings
from flows.report.figures import counted
from flows.selection import EVERYTHING, Narrowing, Selection, check, check_cases
from tasks.landing import some_results_wait
from tasks.runtime.children import (
    kill_children,
    start_no_more,
    wait_until_interrupted,
)
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded, ExtraFinished
from tasks.runtime.processes import forked_steps, import_ahead
from warehouse.connect import warehouse_path

CONTINUES = "Interrupted. Finished work is kept; run the same command again to continue."
GOES_ON = (
    "Interrupted. The machines of the pool go on; run the same command again to follow them, or "
    "cancel their runs in the Prefect UI."
)


@dataclass
class SweepOutcome:
    """The errors of a sweep's experiments, and the content ids that it landed or found landed.

    `message` is that of the flow's final state; `completed`: every experiment has landed.
    """

    failures: list[Exception] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    completed: bool = False
    message: str = ""

    @property
    def needs_the_user(self) -> bool:
        """Whether every failure needs other input, data or weights, so that a rerun cannot help."""
        fixable = (BadInput, SourceUnavailable)
        return bool(self.failures) and all(isinstance(error, fixable) for error in self.failures)


class EarlyExit:
    """How a sweep that does not run to its end leaves: a sentence, once, and an exit code."""

    def __init__(self, console: Console, sentence: str = CONTINUES) -> None:
        self.code = INTERRUPTED
        self.server: TemporaryServer | None = None
        self._console = console
        self._sentence = sentence
        self._said = False

    def lose_server(self) -> None:
        """Interrupt the sweep, since Prefect has no server any more; called in another thread."""
        self._sentence = LOST
        self.code = 1
        start_no_more()
        # To the main thread itself: a signal that another one takes does not end its waiting.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[contextlib.ExitStack]:
        """Let signals interrupt the block, and keep a Mac awake while it runs.

        What the block puts on the stack is cleaned up at its end.
        """
        with (
            interrupted_by_signals(self._note_interruption),
            kept_awake(),
            contextlib.ExitStack() as cleanup,
        ):
            _silence_prefect()
            yield cleanup

    def start_server(self) -> None:
        """Start Prefect's temporary server, unless another server is configured."""

        def say(sentence: str) -> None:
            print_line(self._console, sentence)

        self.server = start_temporary_server(say, self.lose_server)

    def say(self) -> None:
        """Say it, unless it was said."""
        if not self._said:
            self._said = True
            errors.print(f"triage: {self._sentence}", soft_wrap=True)

    def _note_interruption(self) -> None:
        start_no_more()
        self.leave_at_next()  # from now on the time to leave is limited

    def leave_at_next(self) -> None:
        """Let a second Ctrl-C end everything at once."""
        at_next_interruption(self.leave)

    def leave(self) -> None:
        """Kill what was started and exit at once, from a signal's handler or another thread: the
        first Ctrl-C took too long, since Prefect may be waiting for a server that is gone.
        """
        kill_children()
        if self.server is not None:
            self.server.kill()
        # The live display hides the cursor, and after os._exit nothing puts it back.
        self._console.show_cursor(True)
        self.say()
        os._exit(self.code)


def run_sweep(
    console: Console,
    selection: Selection,
    grid: str,
    overrides: list[str] | None = None,
    narrowing: Narrowing = EVERYTHING,
    pool: str | None = None,
) -> int:
    """Run the sweep flow in this process, and its experiments here or on the machines of a work
    pool; returns the exit code.

    It is 1 if an experiment failed for a reason that the user cannot fix, and 130 after Ctrl-C. The
    last line printed says where the results are and what to type next. Raises BadInput if the user
    can fix every failure, or if the configured Prefect server cannot be used.
    """
    early_exit = EarlyExit(console, GOES_ON if pool else CONTINUES)
    try:
        with leaving_in_time(wait_until_interrupted, early_exit.leave):
            outcome = _run_flow(console, early_exit, selection, grid, overrides, narrowing, pool)
            return _report(console, selection, outcome)
    except KeyboardInterrupt:
        early_exit.leave_at_next()
        early_exit.say()
        return early_exit.code


def _report(console: Console, selection: Selection, outcome: SweepOutcome) -> int:
    if warehouse_path().exists() and not some_results_wait():
        from flows.cli.sweeps.sweep_end import print_results

        print_results(console, selection.grid.name, outcome.ids)

    if outcome.completed:
        _print_next_step(console, selection, outcome)
        return 0

    _print_failure(console, outcome)
    if outcome.needs_the_user:
        raise BadInput(" ".join(dict.fromkeys(str(error) for error in outcome.failures)))

    return 1


def _run_flow(
    console: Console,
    early_exit: EarlyExit,
    selection: Selection,
    grid: str,
    overrides: list[str] | None,
    narrowing: Narrowing,
    pool: str | None,
) -> SweepOutcome:
    with early_exit.interruptible() as cleanup:
        if pool is None:
            early_exit.start_server()  # it starts while the following lines run
            check(selection)
        else:
            from flows.pool import refuse_pool

            refuse_pool(pool)
            check_cases(selection)

        experiments = counted(len(selection.cells), "experiment")
        line = f"Sweep {selection.grid.name}: {experiments}. Starting Prefect ..."
        print_line(console, line)
        if pool is None and not all(map(finished_trainings, selection.cells)):
            cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
            import_ahead()

        from flows.cli.sweeps.live import live  # Prefect comes with it
        from flows.sweep import sweep

        with used(early_exit.server), live(console, selection.cells), collected() as outcome:
            # A state, as a sweep with a failure is Failed and would raise here.
            state = sweep(grid, overrides, **narrowing.parameters(), pool=pool, return_state=True)

        outcome.completed = state.is_completed()
        outcome.message = str(state.message)
        return outcome


def _silence_prefect() -> None:
    """Let Prefect not print that its server did not get a log line, unless its own log is asked
    for: the server's end is said in a sentence.
    """
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        logging.raiseExceptions = False


@contextlib.contextmanager
def collected() -> Iterator[SweepOutcome]:
    """The outcome of the experiments that end while the block runs."""
    from tasks.progress import listening

    outcome = SweepOutcome()

    def on_event(title: str, event: Event) -> None:
        if isinstance(event, ExperimentFailed):
            outcome.failures.append(event.error)
        elif isinstance(event, ExperimentLanded | ExtraFinished):
            outcome.ids.update(event.ids)

    with listening(on_event):
        yield outcome


def _print_next_step(console: Console, selection: Selection, outcome: SweepOutcome) -> None:
    command = f"triage compare {selection.grid.name}"
    if some_results_wait():
        command = f"close the program that holds it, then {command}"
    print_line(console, f"{outcome.message}: {warehouse_path()}; next: {command}")


def _print_failure(console: Console, outcome: SweepOutcome) -> None:
    if not outcome.needs_the_user:
        from flows.cli.sweeps.sweep_end import print_failures

        print_failures(console, outcome.message)
    if warehouse_path().exists():
        state = "will be loaded into" if some_results_wait() else "is in"
        results = f"What has finished {state} the warehouse: {warehouse_path()}"
        print_line(console, f"{results}; next: fix the problem above and rerun the same command")
