"""`triage search`: its options, a line for each rung that a trial reaches, and the report."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from deployments.server import used
from flows.cli.sweep import (
    Bits,
    EarlyExit,
    Memory,
    Models,
    Overrides,
    Recipes,
    Seeds,
    overrides_of,
)
from flows.cli.terminal import console, print_line, printable
from flows.report.figures import clock, counted, figure
from flows.report.table import Table, print_table
from flows.selection import Narrowing, Selection, check, refuse_without_emergencies, set_up
from tasks.progress import listening
from tasks.runtime.children import (
    forked_steps,
    import_ahead,
    is_interrupted,
)
from tasks.runtime.errors import BadInput, Locked, SourceUnavailable, TriageError
from tasks.runtime.events import Event, Note, StepWarning, TrainingReport
from tasks.runtime.home import check_home
from tasks.runtime.locks import locked
from tasks.search.space import Objective, Space
from tasks.search.trials import Trial, Trials, best_first, in_words
from warehouse.health import refuse_unusable

DIGITS = 4
BEST = 5  # trials of the report


def search(
    grid: Annotated[str, typer.Argument(help="name or path of a grid with a table `search`")],
    trials: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="number of trials; 16 without --hours"),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="H", help="as many trials as end in H hours from now"),
    ] = None,
    set_: Overrides = None,
    model: Models = None,
    bits: Bits = None,
    recipe: Recipes = None,
    seed: Seeds = None,
    memory: Memory = None,
) -> None:
    """Look for a recipe in the ranges of a grid's table `search`, on valid alone.

    It is for the grid's first experiment, or the first that the options leave.
    """
    overrides = overrides_of(set_, memory)
    check_home()
    refuse_unusable()
    only = Narrowing(models=model, bits=bits, recipes=recipe, seeds=seed)
    space = set_up(grid, overrides, only)

    early_exit = EarlyExit(console)
    with early_exit.interruptible() as cleanup:
        # Refused in a moment, where the flow would refuse it once Prefect has started.
        with locked(space.folder):
            data = check(Selection(space.grid, [space.cell]), space.prompts())
            refuse_without_emergencies(data)

        early_exit.start_server()
        count = counted(trials or 16, "trial")
        if hours is not None:
            count = f"{f'at most {count}' if trials else 'as many trials as end'} in {hours:g} h"
        updates = ", ".join(map(str, space.rungs))
        print_line(
            console,
            f"Search {space.grid.name}: {count} of {space.cell.title}, compared by the "
            f"{space.objective.name} on valid at updates {updates}. Starting Prefect ...",
        )
        cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
        import_ahead()

        from flows import search as flow  # Prefect comes with it

        with used(early_exit.server), live(console, space.objective):
            state = flow.search(grid, overrides, only, trials, hours, return_state=True)

        if not state.is_completed() and is_interrupted():
            # Ctrl-C may reach the step before the flow, which then fails with the step.
            raise KeyboardInterrupt
        code = end(console, space, state)

    raise SystemExit(code)


@contextlib.contextmanager
def live(console: Console, objective: Objective) -> Iterator[None]:
    """Show the trials while the block runs: a line per rung, and on a terminal the step that runs."""
    messages: set[str] = set()

    def say(text: str, style: str | None = None) -> None:
        print_line(console, printable(text), style)

    # Nothing is drawn where there is no terminal.
    with console.status("") as status:

        def on_event(title: str, event: Event) -> None:
            match event:
                case Trial():
                    if event.state == "training" or not (event.update or event.error):
                        return
                    value = event.error or f"{objective.name} {figure(event.value, digits=DIGITS)}"
                    say(
                        f"trial {event.number}  {event.state}  update {event.update} of "
                        f"{event.iterations}  {value}  {in_words(event.values)}",
                        "red" if event.error else None,
                    )
                case TrainingReport():
                    text = (
                        f"{title}: update {event.iteration} of {event.iterations}, loss "
                        f"{event.loss:.3f}, {clock(event.seconds_left)} to its end"
                    )
                    status.update(Text(text))  # a string would be read as markup
                case StepWarning() | Note():
                    # Each is shown once, whatever its figures are.
                    words = re.sub(r"[0-9.,]+", "", event.message)
                    if words not in messages:
                        messages.add(words)
                        say(event.message)

        with listening(on_event):
            yield


def end(console: Console, space: Space, state: Any) -> int:
    """Print how the search ended, the flow in `state`; returns the exit code."""
    error = None if state.is_completed() else state.result(raise_on_failure=False)
    if isinstance(error, BadInput | Locked | SourceUnavailable):
        raise error
    if error is not None:
        print_line(console, f"The search did not finish: {error}", style="bold red")
        print_line(console, "All trials are kept; run the same command again to continue.")
        if isinstance(error, Exception) and not isinstance(error, TriageError):
            raise error
        return 1

    stored = Trials(space)
    print_report(console, space, stored.all())
    print_line(console, f"All values are of valid: no test case was scored. Trials: {stored.path}")
    winner = space.folder / "best.toml"
    print_line(console, f"The best recipe, for both precisions; next: triage sweep {winner}")
    return 0


def print_report(console: Console, space: Space, trials: Sequence[Trial]) -> None:
    """Print the best trials, what they tried, and what the search saved."""
    best = best_first(trials)
    records = [
        {
            "trial": str(trial.number),
            space.objective.name: figure(trial.value, digits=DIGITS),
            "updates": f"{trial.update} of {trial.iterations}",
        }
        for trial in best[:BEST]
    ]
    title = f"The best of {counted(len(trials), 'trial')} of {space.cell.title}"
    print_table(console, Table(title, records))
    for trial in best[:BEST]:
        print_line(console, f"Trial {trial.number}: {in_words(trial.values)}")
    updates = sum(trial.update for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    print_line(
        console,
        f"{counted(len(trials), 'trial')} took {updates:,} updates and {clock(seconds)}; all to the "
        f"end would take {sum(trial.iterations for trial in trials):,} updates.",
    )
    if best[0].state == "running":
        print_line(
            console,
            f"The best trial is at update {best[0].update} of {best[0].iterations}: the same "
            "command with more --hours goes on, and so does the sweep below.",
        )
