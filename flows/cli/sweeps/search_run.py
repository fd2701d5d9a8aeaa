"""Runs a search from the command line: checks, the live table, and the report at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from deployments.interruptions import leaving_in_time
from deployments.temporary_server import used
from flows.cli.sweep import EarlyExit  # which sets how Prefect logs
from flows.cli.terminal import print_line
from flows.report.figures import counted
from flows.search_setup import Limits, SearchSetup, alone, refuse_without_emergencies, set_up
from flows.selection import Narrowing, check
from flows.trial_errors import OF_THE_USER
from tasks.runtime.children import is_interrupted, wait_until_interrupted
from tasks.runtime.errors import TriageError
from tasks.runtime.processes import forked_steps, import_ahead


@dataclass(frozen=True)
class SearchRequest:
    """What was typed."""

    grid: str
    overrides: list[str]
    model: str | None
    bits: int | None
    recipe: str | None
    seed: int | None
    limits: Limits

    def set_up(self) -> SearchSetup:
        """The search that was asked for; raises BadInput for one that is not possible."""
        narrowing = Narrowing.to_one(self.model, self.bits, self.recipe)
        return set_up(self.grid, self.overrides, narrowing, self.seed)

    def parameters(self) -> dict[str, Any]:
        """The parameters of the flow `search`."""
        return {
            "grid": self.grid,
            "overrides": self.overrides,
            "model": self.model,
            "bits": self.bits,
            "recipe": self.recipe,
            "seed": self.seed,
            "trials": self.limits.trials,
            "hours": self.limits.hours,
        }


def run_search(console: Console, request: SearchRequest) -> int:
    """Run the search flow in this process; returns the exit code, 130 after Ctrl-C.

    Raises BadInput, Locked or SourceUnavailable for what the user can change.
    """
    setup = request.set_up()
    early_exit = EarlyExit(console)

    try:
        with leaving_in_time(wait_until_interrupted, early_exit.leave):
            error = _run_flow(console, early_exit, request, setup)
            if error is not None and is_interrupted():
                # Ctrl-C may reach the step before the flow, which then fails with the step.
                raise KeyboardInterrupt
            return _report(console, setup, error)
    except KeyboardInterrupt:
        early_exit.leave_at_next()
        early_exit.say()
        return early_exit.code


def _run_flow(
    console: Console, early_exit: EarlyExit, request: SearchRequest, setup: SearchSetup
) -> Exception | None:
    """The error with which the flow ended, or None."""
    with early_exit.interruptible() as cleanup:
        _check(setup)
        early_exit.start_server()
        print_line(console, _introduction(setup, request.limits))
        cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
        import_ahead()

        from flows.cli.sweeps.search_live import live  # Prefect comes with it
        from flows.search import search

        with used(early_exit.server), live(console, setup):
            state = search(**request.parameters(), return_state=True)
        return None if state.is_completed() else _error_of(state)


def _check(setup: SearchSetup) -> None:
    """Refuse in a moment what the flow would refuse once Prefect has started."""
    from tasks.search.storage import FILE, Storage

    with alone(setup):
        data = check(setup.selection, setup.space.prompts())
        refuse_without_emergencies(data)
        if (setup.folder / FILE).exists():
            Storage(setup.folder, setup.space, setup.objective, setup.identity)


def _introduction(setup: SearchSetup, limits: Limits) -> str:
    """What the search will do, in a sentence."""
    count = counted(limits.trial_count, "trial")
    if limits.hours is not None:
        hours = "1 hour" if limits.hours == 1 else f"{limits.hours:g} hours"
        count = hours if limits.trials is None else f"at most {count} in {hours}"

    *pauses, last = setup.halving.rungs
    updates = ", ".join(map(str, pauses))
    return (
        f"Search {setup.space.grid.name}: {count} of {setup.spec.title}, compared by the "
        f"{setup.objective.name} on valid at updates {updates} and {last}. Starting Prefect ..."
    )


def _error_of(state: Any) -> Exception:
    error = state.result(raise_on_failure=False)
    return error if isinstance(error, Exception) else RuntimeError(str(state.message))


def _report(console: Console, setup: SearchSetup, error: Exception | None) -> int:
    from flows.cli.sweeps.search_report import print_report

    if isinstance(error, OF_THE_USER):
        raise error
    if error is not None:
        text = f"The search did not finish: {error}"
        print_line(console, text, style="bold red")
        print_line(console, "All trials are kept; run the same command again to continue.")
        if not isinstance(error, TriageError):
            raise error
        return 1

    print_report(console, setup)
    return 0
