"""What a search prints at its end: its best trials, what it saved, and the grid to sweep next."""

from __future__ import annotations

from rich.console import Console

from flows.cli.terminal import print_line
from flows.report.figures import clock, counted, figure
from flows.report.table import ReportTable, print_table
from flows.search_setup import SearchSetup
from tasks.search.storage import Storage
from tasks.search.trial import Cost, Trial, best_of, in_words
from tasks.search.winner import FILE

BEST = 5
DIGITS = 4


def print_report(console: Console, setup: SearchSetup) -> None:
    """Print the report of a stored search."""
    storage = Storage(setup.folder, setup.space, setup.objective, setup.identity)
    trials = storage.trials()
    print_table(console, best_trials(setup, trials))

    for line in settings(trials):
        print_line(console, line)

    print_line(console, saved(Cost.of(trials), len(trials)))
    print_line(
        console, "All values are of valid: no test case was scored. Trials: " + str(storage.path)
    )

    best_trial = best_of(trials)
    if best_trial is not None and best_trial.state != "finished":
        print_line(
            console,
            f"The best trial is at update {best_trial.update} of {best_trial.iterations}: the same "
            "command with more --hours goes on, and so does the sweep below.",
        )

    print_line(
        console, f"The best recipe, for both precisions; next: triage sweep {setup.folder / FILE}"
    )


def best_trials(setup: SearchSetup, trials: list[Trial]) -> ReportTable:
    """The best trials; `settings` has what they tried."""
    title = f"The best of {counted(len(trials), 'trial')} of {setup.spec.title}"
    return ReportTable.of(
        title,
        [
            {
                "trial": str(trial.number),
                setup.objective.name: figure(trial.value, digits=DIGITS),
                "updates": f"{trial.update} of {trial.iterations}",
            }
            for trial in best_first(trials)
        ],
    )


def settings(trials: list[Trial]) -> list[str]:
    """A line for the settings that the best trials share, and one for each trial with its own."""
    ranked_trials = best_first(trials)
    equal = {
        key: value
        for key, value in (ranked_trials[0].values if ranked_trials else {}).items()
        if all(trial.values.get(key) == value for trial in ranked_trials)
    }

    lines = [f"All of these: {in_words(equal)}"] if equal and len(ranked_trials) > 1 else []
    for trial in ranked_trials:
        own_settings = {
            key: value for key, value in trial.values.items() if not lines or key not in equal
        }
        lines += [f"Trial {trial.number}: {in_words(own_settings)}"] if own_settings else []

    return lines


def best_first(trials: list[Trial]) -> list[Trial]:
    """The best trials among those that came furthest, then the others."""
    return sorted(trials, key=_place)[:BEST]


def _place(trial: Trial) -> tuple[bool, int, float, float, int]:
    loss, validation = trial.ranks[-1] if trial.rungs else (0.0, 0.0)
    return trial.failed, -len(trial.rungs), loss, validation, trial.number


def saved(cost: Cost, trials: int) -> str:
    """What the search took, against training every trial to its end."""
    share = cost.updates / cost.all_updates if cost.all_updates else 1.0
    return (
        f"{counted(trials, 'trial')} took {cost.updates:,} updates and {clock(cost.seconds)}; "
        f"all to the end would take {cost.all_updates:,} updates and about "
        f"{clock(cost.all_seconds)}: "
        f"{share:.0%} of the updates, {1 - share:.0%} saved."
    )
