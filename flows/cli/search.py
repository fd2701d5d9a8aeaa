"""`triage search`: its options, its live table of trials, and the report at its end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deployments.interruptions import leaving_in_time
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
from flows.report.table import Table as ReportTable
from flows.report.table import print_table
from flows.selection import Narrowing, Selection, check, refuse_without_emergencies, set_up
from tasks.progress import listening
from tasks.runtime.children import (
    forked_steps,
    import_ahead,
    is_interrupted,
    wait_until_interrupted,
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
MOST_SHOWN = 20  # trials on a terminal: those that came furthest
# characters; the report at the end has settings whole
OTHER_COLUMNS = 64
LEAST_SETTINGS = 16
STYLES = {"training": "bold", "finished": "green", "failed": "red"}


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
    try:
        with leaving_in_time(wait_until_interrupted, early_exit.leave):
            with early_exit.interruptible() as cleanup:
                # Refused in a moment, where the flow would refuse it once Prefect has started.
                with locked(space.folder):
                    data = check(Selection(space.grid, [space.cell]), space.prompts())
                    refuse_without_emergencies(data)

                early_exit.start_server()
                print_line(console, introduction(space, trials, hours))
                cleanup.enter_context(forked_steps("tasks.tuning.job", "tasks.scoring.job"))
                import_ahead()

                from flows import search as flow  # Prefect comes with it

                with used(early_exit.server), live(console, space.objective):
                    state = flow.search(grid, overrides, only, trials, hours, return_state=True)

            if not state.is_completed() and is_interrupted():
                # Ctrl-C may reach the step before the flow, which then fails with the step.
                raise KeyboardInterrupt
            code = end(console, space, state)
    except KeyboardInterrupt:
        early_exit.leave_at_next()
        early_exit.say()
        code = early_exit.code

    # Not typer's own exit: after Ctrl-C the search has said already what becomes of it.
    raise SystemExit(code)


def introduction(space: Space, trials: int | None, hours: float | None) -> str:
    """What the search will do, in a sentence."""
    count = counted(trials or 16, "trial")
    if hours is not None:
        time = "1 hour" if hours == 1 else f"{hours:g} hours"
        count = time if trials is None else f"at most {count} in {time}"

    *pauses, last = space.rungs
    return (
        f"Search {space.grid.name}: {count} of {space.cell.title}, compared by the "
        f"{space.objective.name} on valid at updates {', '.join(map(str, pauses))} and {last}. "
        "Starting Prefect ..."
    )


@contextlib.contextmanager
def live(console: Console, objective: Objective) -> Iterator[None]:
    """Show the trials while the block runs: a table on a terminal, a line per rung elsewhere."""
    trials: dict[int, Trial] = {}
    progress = Text()
    messages: set[str] = set()
    display = Live(console=console, transient=True, auto_refresh=False)

    def on_event(title: str, event: Event) -> None:
        match event:
            case Trial():
                trials[event.number] = event
                has_news = event.state != "training" and (event.update or event.error)
                if not console.is_terminal and has_news:
                    value = event.error or f"{objective.name} {figure(event.value, digits=DIGITS)}"
                    line = (
                        f"trial {event.number}  {event.state}  update {event.update} of "
                        f"{event.iterations}  {value}  {in_words(event.values)}"
                    )
                    print_line(console, printable(line))
            case TrainingReport():
                progress.plain = (
                    f"{title}: update {event.iteration} of {event.iterations}, loss "
                    f"{event.loss:.3f}, {clock(event.seconds_left)} to its end"
                )
            case StepWarning() | Note():
                # Each is shown once, whatever its figures are.
                text = re.sub(r"[0-9.,]+", "", event.message)
                if text not in messages:
                    messages.add(text)
                    print_line(console, printable(event.message))

        if console.is_terminal:
            table = _table(trials.values(), objective, console.width)
            display.update(Group(table, progress), refresh=True)

    with listening(on_event), display if console.is_terminal else contextlib.nullcontext():
        yield


def _table(trials: Iterable[Trial], objective: Objective, width: int) -> Table:
    """The trial that trains, then those that came furthest, the best first."""
    table = Table()
    for column in ("trial", "state", "updates", objective.name):
        table.add_column(column, overflow="fold")
    room = max(LEAST_SETTINGS, width - OTHER_COLUMNS)
    table.add_column("settings", no_wrap=True, overflow="ellipsis", max_width=room)
    shown = sorted(best_first(trials), key=lambda trial: trial.state != "training")
    for trial in shown[:MOST_SHOWN]:
        table.add_row(
            str(trial.number),
            trial.state,
            f"{trial.update}/{trial.iterations}",
            figure(trial.value, digits=DIGITS) if trial.value is not None else "",
            printable(in_words(trial.values)),
            style=STYLES.get(trial.state),
        )

    return table


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
    first, *others = best_first(trials)[:BEST]
    best = [first, *others]
    records = [
        {
            "trial": str(trial.number),
            space.objective.name: figure(trial.value, digits=DIGITS),
            "updates": f"{trial.update} of {trial.iterations}",
        }
        for trial in best
    ]
    title = f"The best of {counted(len(trials), 'trial')} of {space.cell.title}"
    print_table(console, ReportTable(title, records))

    # What the best trials share is said once.
    shared = {
        key: value
        for key, value in first.values.items()
        if others and all(trial.values[key] == value for trial in others)
    }
    if shared:
        print_line(console, f"All of these: {in_words(shared)}")
    for trial in best:
        own = {key: value for key, value in trial.values.items() if key not in shared}
        if own:
            print_line(console, f"Trial {trial.number}: {in_words(own)}")

    print_line(console, saved(trials))
    if first.state == "running":
        print_line(
            console,
            f"The best trial is at update {first.update} of {first.iterations}: the same "
            "command with more --hours goes on, and so does the sweep below.",
        )


def saved(trials: Sequence[Trial]) -> str:
    """What the search took, against training every trial to its end."""
    updates = all_updates = sum(trial.update for trial in trials)
    seconds = all_seconds = sum(trial.seconds for trial in trials)
    for trial in trials:
        # One that failed could not go further: it counts with what it took.
        if trial.state != "failed" and trial.rungs:
            remaining = trial.iterations - trial.update
            all_updates += remaining
            all_seconds += remaining * trial.rungs[-1].train_seconds / trial.update

    share = updates / all_updates if all_updates else 1.0
    return (
        f"{counted(len(trials), 'trial')} took {updates:,} updates and {clock(seconds)}; all to "
        f"the end would take {all_updates:,} updates and about {clock(all_seconds)}: {share:.0%} "
        f"of the updates, {1 - share:.0%} saved."
    )
