"""Runs a sweep from the command line: live progress, then the comparison and the next command to type."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

if (
    "PREFECT_LOGGING_LEVEL" not in os.environ
):  # before Prefect: the live display says it better; the UI gets all
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")


from rich.console import Console

from deployments.interruptions import interrupted_by_signals
from deployments.temporary_server import start_temporary_server
from flows.plan import finished_trainings
from flows.preflight import check
from flows.selection import EVERYTHING, Narrowing, Selection
from tasks.runtime import fork_server
from tasks.runtime.child import import_ahead
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded, ExtraFinished
from warehouse.connect import warehouse_path


def run_sweep(
    console: Console,
    selection: Selection,
    grid: str,
    overrides: list[str] | None = None,
    narrowing: Narrowing = EVERYTHING,
) -> int:
    """Run the sweep flow in this process; returns the exit code (1 if an experiment failed by itself).

    The last line printed says where the results are and what to type next. Raises BadInput if all that failed did so
    for what the user must mend, or if the configured Prefect server cannot be used.
    """
    with interrupted_by_signals(), contextlib.ExitStack() as at_last:
        ready = start_temporary_server()  # which takes as long as what follows, up to the flow
        check(selection)
        console.print(
            f"Sweep {selection.grid.name}: {len(selection.cells)} experiments. Starting Prefect ..."
        )
        if not all(finished_trainings(spec) for spec in selection.cells):
            import_ahead("tasks.tuning.job", "tasks.scoring.job")
            at_last.callback(fork_server.end)
        from flows.cli.comparison import print_comparison
        from flows.cli.live import live  # Prefect and pandas, too
        from flows.sweep import sweep

        with ready(), live(console, len(selection.cells)), collected() as outcome:
            state = sweep(grid, overrides, **narrowing.parameters(), return_state=True)
    if warehouse_path().exists():
        print_comparison(console, outcome.ids, short=True)
    if state.is_completed():
        view = (
            "quantization_comparison"
            if len({spec.bits for spec in selection.cells}) > 1
            else "leaderboard"
        )
        console.print(
            f'{state.message}: {warehouse_path()}; next: triage sql "SELECT * FROM {view}"',
            soft_wrap=True,
        )
        return 0
    mend = all(isinstance(error, (BadInput, SourceUnavailable)) for error in outcome.failures)
    if not outcome.failures or not mend:
        console.print(f"Not everything finished. {state.message}", style="bold red")
    if warehouse_path().exists():
        where = f"What has finished is in the warehouse: {warehouse_path()}"
        console.print(
            f"{where}; next: mend what is said and type the same command again", soft_wrap=True
        )
    if outcome.failures and mend:
        raise BadInput(" ".join(dict.fromkeys(str(error) for error in outcome.failures)))
    return 1


@dataclass
class Outcome:
    """What became of a sweep: the errors of its experiments, and the content ids of what it landed or found landed."""

    failures: list[Exception] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


@contextlib.contextmanager
def collected() -> Iterator[Outcome]:
    """The outcome of the experiments that end while the block runs."""
    from tasks.progress import listeners

    outcome = Outcome()

    def on_event(title: str, event: Event) -> None:
        if isinstance(event, ExperimentFailed):
            outcome.failures.append(event.error)
        elif isinstance(event, ExperimentLanded | ExtraFinished):
            outcome.ids.update(event.ids)

    listeners.append(on_event)
    try:
        yield outcome
    finally:
        listeners.remove(on_event)
