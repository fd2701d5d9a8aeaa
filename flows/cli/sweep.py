"""`triage sweep`: runs a grid's experiments with live progress, and prints the answer and the next
command to type; with --plan, what would run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Collection, Iterator
from typing import Annotated, Any

# Before Prefect is imported. The live display shows what its console log would; the UI gets both.
if "PREFECT_LOGGING_LEVEL" not in os.environ:
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")

import typer
from rich.console import Console

from deployments.interruptions import (
    INTERRUPTED,
    at_next_interruption,
    interrupted_by_signals,
    kept_awake,
    leaving_in_time,
)
from deployments.server import LOST, Server, start_temporary_server, used
from flows.cli.compare import print_answer, shown_first
from flows.cli.terminal import console, errors, print_line
from flows.plan import finished_trainings, trained_elsewhere
from flows.report.answer import answer
from flows.report.figures import counted, disclaimer
from flows.report.page import place_of_report
from flows.report.rows import Sealed, studied
from flows.report.seal import progress
from flows.selection import (
    EVERYTHING,
    Narrowing,
    Selection,
    check,
    check_cases,
    failed_cells,
    select,
)
from tasks.runtime.children import (
    forked_steps,
    import_ahead,
    kill_children,
    start_no_more,
    wait_until_interrupted,
)
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.events import Event, ExperimentFailed, ExperimentLanded, ExtraFinished
from tasks.runtime.home import check_home
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date, refuse_unusable

CONTINUES = "Interrupted. Finished work is kept; run the same command again to continue."
POOL_CONTINUES = (
    "Interrupted. The machines of the pool go on; run the same command again to follow them, or "
    "cancel their runs in the Prefect UI."
)
NOTHING = "The warehouse holds no finished experiment of this sweep."

GridName = Annotated[
    str,
    typer.Argument(
        help="demo, paper, tuned, study, study_gemma, registered, ablation, smoke, or the path of a grid file"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="change a setting, e.g. recipe.iterations=50 (repeatable)"),
]
Models = Annotated[list[str] | None, typer.Option(help="only this base model (repeatable)")]
Bits = Annotated[list[int] | None, typer.Option(help="only this bit width: 4 or 8")]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", help="only this precision, e.g. bf16 (repeatable)"),
]
Recipes = Annotated[list[str] | None, typer.Option(help="only this recipe (repeatable)")]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", min=0, help="only this seed (repeatable)")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="only the first N experiments")]
Memory = Annotated[
    str | None,
    typer.Option(help="memory that a training may use, e.g. 4GB; does not change results"),
]
AnyWeights = Annotated[bool, typer.Option("--any-weights", help="take any listed source's weights")]
Failed = Annotated[bool, typer.Option("--failed", help="only what failed when it last ran")]
Pool = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="let the machines of this work pool run the experiments"),
]
Plan = Annotated[bool, typer.Option("--plan", help="print what would run, and stop")]


def sweep(
    grid: GridName = "demo",
    set_: Overrides = None,
    model: Models = None,
    bits: Bits = None,
    recipe: Recipes = None,
    limit: Limit = None,
    memory: Memory = None,
    plan: Plan = False,
    precision: Precisions = None,
    seed: Seeds = None,
    failed: Failed = False,
    pool: Pool = None,
    any_weights: AnyWeights = False,
) -> None:
    """Run every experiment of a grid that is not finished, and compare 4-bit with 8-bit."""
    overrides = overrides_of(set_, memory) + ["any_weights=true"] * any_weights
    narrowing = Narrowing(
        models=model,
        bits=bits,
        precisions=precision,
        recipes=recipe,
        seeds=seed,
        limit=None if failed else limit,
    )
    selection = select(grid, overrides, narrowing)
    check_home()
    refuse_unusable()
    if failed:  # the first of those that failed
        narrowing = narrowing.model_copy(update={"cells": failed_cells(selection), "limit": limit})
        selection = select(grid, overrides, narrowing)

    if plan:
        from flows.cli.plan import print_plan

        print_plan(console, selection)
        return

    raise SystemExit(run_sweep(console, selection, grid, overrides, narrowing, pool))


def overrides_of(set_: list[str] | None, memory: str | None) -> list[str]:
    """The changes of the grid that --set and --memory ask for."""
    # A JSON string is one of TOML; without quotes 1000000 would be read as a number.
    limits = [] if memory is None else [f"training.memory={json.dumps(memory)}"]
    return [*(set_ or []), *limits]


class EarlyExit:
    """How a command that runs flows leaves before its end: a sentence, once, and an exit code."""

    def __init__(self, console: Console, sentence: str = CONTINUES) -> None:
        self.code = INTERRUPTED
        self.server: Server | None = None
        self._console = console
        self._sentence = sentence
        self._said = False

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[contextlib.ExitStack]:
        """Let signals interrupt the block, which ends the process within seconds, and keep a Mac
        awake while it runs.

        What the block puts on the stack is cleaned up at its end. Raises SystemExit.
        """

        def note_interruption() -> None:
            start_no_more()
            at_next_interruption(self.leave)  # from now on the time to leave is limited

        # Prefect does not print that its server did not get a log line, unless its own log is
        # asked for: the server's end is said in a sentence.
        if "PREFECT_LOGGING_LEVEL" not in os.environ:
            logging.raiseExceptions = False
        try:
            with (
                leaving_in_time(wait_until_interrupted, self.leave),
                interrupted_by_signals(note_interruption),
                kept_awake(),
                contextlib.ExitStack() as cleanup,
            ):
                yield cleanup
        except KeyboardInterrupt:
            at_next_interruption(self.leave)
            self._say()
            # Not typer's own exit: what becomes of the command is said already.
            raise SystemExit(self.code) from None

    def start_server(self) -> None:
        """Start Prefect's temporary server, unless another server is configured."""
        self.server = start_temporary_server(
            lambda sentence: print_line(self._console, sentence), self._lose_server
        )

    def _lose_server(self) -> None:
        """Interrupt the command, since Prefect has no server any more; called in another thread."""
        self._sentence = LOST
        self.code = 1
        start_no_more()
        # To the main thread itself: a signal that another one takes does not end its waiting.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _say(self) -> None:
        if not self._said:
            self._said = True
            errors.print(f"triage: {self._sentence}", soft_wrap=True)

    def leave(self) -> None:
        """Kill what was started and exit at once, from a signal's handler or another thread: the
        first Ctrl-C took too long, since Prefect may be waiting for a server that is gone.
        """
        kill_children()
        if self.server is not None:
            self.server.kill()
        # The live display hides the cursor, and after os._exit nothing puts it back.
        self._console.show_cursor(True)
        self._say()
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

    It is 1 if an experiment failed for a reason that the user cannot fix. The last line printed
    says where the results are and what to type next. Raises BadInput if the user can fix every
    failure, or if the configured Prefect server cannot be used; SystemExit after Ctrl-C.
    """
    failures: list[Exception] = []
    ids: set[str] = set()  # of what has landed, or was found landed

    def collect(title: str, event: Event) -> None:
        if isinstance(event, ExperimentFailed):
            failures.append(event.error)
        elif isinstance(event, ExperimentLanded | ExtraFinished):
            ids.update(event.ids)

    early_exit = EarlyExit(console, POOL_CONTINUES if pool else CONTINUES)
    with early_exit.interruptible() as cleanup:
        if pool is None:
            early_exit.start_server()  # it starts while the following lines run
            check(selection, say=lambda line: print_line(console, line, "bold yellow"))
        else:
            from flows.pool import refuse_pool

            refuse_pool(pool)
            check_cases(selection)

        if pool is None and (note := trained_elsewhere(selection)):
            print_line(console, note, "bold yellow")
        experiments = counted(len(selection.cells), "experiment")
        print_line(console, f"Sweep {selection.grid.name}: {experiments}. Starting Prefect ...")
        if pool is None and not all(map(finished_trainings, selection.cells)):
            cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
            import_ahead()

        from flows.cli.live import live  # Prefect comes with it
        from flows.sweep import sweep
        from tasks.progress import listening

        with used(early_exit.server), live(console, selection), listening(collect):
            # A state, as a sweep with a failure is Failed and would raise here.
            state = sweep(grid, overrides, narrowing, pool, return_state=True)

        return _end(console, selection.grid.name, state, failures, ids)


def _end(
    console: Console, study: str, state: Any, failures: list[Exception], ids: Collection[str]
) -> int:
    """Print what the flow that ended in `state` landed, and why not all; returns the exit code."""
    from tasks.landing import some_results_wait

    waits = some_results_wait()
    exists = warehouse_path().exists()
    if exists and not waits:
        print_results(console, study, ids)

    if state.is_completed():
        command = f"triage compare {study}"
        if waits:
            command = f"close the program that holds it, then {command}"
        print_line(console, f"{state.message}: {warehouse_path()}; next: {command}")
        return 0

    # Where every failure needs other input, data or weights, a rerun cannot help.
    fixable = bool(failures) and all(isinstance(e, BadInput | SourceUnavailable) for e in failures)
    if not fixable:
        # A line for each failure, as flows/sweep.py joins them.
        lines = str(state.message).replace(": ", ":\n", 1).replace(" | ", "\n")
        print_line(console, f"Not everything finished. {lines}", style="bold red")
    if exists:
        where = "will be loaded into" if waits else "is in"
        results = f"What has finished {where} the warehouse: {warehouse_path()}"
        print_line(console, f"{results}; next: fix the problem above and rerun the same command")
    if fixable:
        raise BadInput(" ".join(dict.fromkeys(map(str, failures))))

    return 1


def print_results(console: Console, study: str, ids: Collection[str]) -> None:
    """Print the answer that the evaluations `ids` of a study give, and where the rest is."""
    bring_up_to_date()
    try:
        studies = studied(study, only=ids)
    except Sealed as sealed:
        for sentence in progress(sealed.claim):
            print_line(console, sentence)
        return

    if not studies:
        print_line(console, NOTHING)
        return

    print_answer(console, answer(studies[0]), shown_first(console, studies[0], brief=True))
    # One model stands for all, the shortest name so that it fits the line.
    models = [row.cell_id for row in studies[0].board if row.is_trained]
    of_one = f", triage gates {min(models, key=len)}" if models else ""
    print_line(console, f"For more: triage compare {study} --all{of_one}")
    if line := place_of_report(study):
        print_line(console, line)

    print_line(console, disclaimer({row.set_digest for one in studies for row in one.board}))
