"""`triage search`: what it says first, a table of trials on a terminal, a line per rung elsewhere, and its report."""

import io
import re
from dataclasses import replace
from types import SimpleNamespace

from rich.console import Console

from flows.cli.search import MOST_SHOWN, end, live, print_report
from tasks.progress import listeners, publish
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Note, StepWarning, TrainingReport
from tasks.search.trials import Reached, Trial, Trials
from tests.search.spaces import space


def rendered(terminal: bool, *events) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, height=50)
    with live(console, space().objective):
        for event in events:
            publish("search", event)
    assert listeners == []
    return stream.getvalue()


def trial(number: int, state: str, update: int, value: float = 0.0, error: str | None = None) -> Trial:
    rungs = (Reached(update, value, value, 1.0, 1.0),) if update else ()
    return Trial(number, {"recipe.rank": number + 2}, "t", rungs, error, 8, space().objective, state)


def test_a_pipe_gets_a_line_for_each_rung_and_each_message_once_whatever_its_figures():
    out = rendered(
        False, trial(0, "training", 0), Note("It takes 1.5 MB of 3."), Note("It takes 2 MB of 4."),
        trial(0, "paused", 4, 0.25), trial(1, "failed", 0, error="The loss became NaN.\x1b[2J"), StepWarning("Beware."),
    )  # fmt: skip
    assert out.splitlines() == [
        "It takes 1.5 MB of 3.",
        "trial 0  paused  update 4 of 8  validation value 0.2500  rank = 2",
        "trial 1  failed  update 0 of 8  The loss became NaN.\\x1b[2J  rank = 3",
        "Beware.",
    ]


def test_a_terminal_gets_a_table_with_those_that_came_furthest_first_and_the_present_step():
    step = TrainingReport(4, "train", 0.5, iterations=8, seconds_left=12.0, tokens_per_second=100.0)
    many = [trial(number, "paused", 4, 1.0 + number) for number in range(MOST_SHOWN + 5)]
    many[1] = replace(many[1], values={f"recipe.setting_{i}": i for i in range(20)})
    out = rendered(True, *many, trial(3, "finished", 8, 0.5), trial(7, "training", 4, 8.0), step)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out).rpartition("validation value")[2]
    rows = [line.split("│")[1].strip() for line in last.splitlines() if line.count("│") == 6]
    assert rows[:4] == ["7", "3", "0", "1"] and len(rows) == MOST_SHOWN
    assert "search: update 4 of 8, loss 0.500, 12 s to its end" in last
    assert "setting_0 = 0" in last and "…" in last, "each trial takes one line"


def test_the_report_says_once_what_the_best_trials_share():
    a_space = space()
    reached = (Reached(4, 0.5, 0.5, 2.0, 1.0),)
    values = [{"recipe.rank": rank, "recipe.scale": 8.0} for rank in (4, 16)]
    trials = [Trial(i, one, "t", reached, None, 8, a_space.objective, "paused") for i, one in enumerate(values)]

    def lines(trials) -> list[str]:
        stream = io.StringIO()
        print_report(Console(file=stream, width=200), a_space, trials)
        return [line for line in stream.getvalue().splitlines() if line.startswith(("All of", "Trial "))]

    assert lines(trials) == ["All of these: scale = 8.0", "Trial 0: rank = 4", "Trial 1: rank = 16"]
    assert lines(trials[:1]) == ["Trial 0: rank = 4, scale = 8.0"]


def test_the_report_of_a_search_that_finished_no_trial_names_the_best_and_how_it_goes_on():
    trials = Trials(space())
    for number, value in enumerate((0.5, 0.75, 0.25)):
        trials.add(trials.propose(), "t")
        trials.reach(number, Reached(4, value, value, 2.0, 1.0))
    done = SimpleNamespace(is_completed=lambda: True)
    stream = io.StringIO()
    assert end(Console(file=stream, width=200), space(), done) == 0
    out = stream.getvalue()
    assert "The best of 3 trials of tiny-llama 4bit baseline s42" in out and "0.2500" in out
    assert "3 trials took 12 updates" in out and "all to the end would take 24 updates" in out
    assert "the same command with more --hours goes on" in out
    assert out.splitlines()[-1].endswith(f"next: triage sweep {space().folder / 'best.toml'}")


def test_a_search_that_an_error_ends_says_so_and_that_the_same_command_goes_on():
    error = TriageError("Trial 1 ended.")
    failed = SimpleNamespace(is_completed=lambda: False, result=lambda raise_on_failure: error)
    stream = io.StringIO()
    assert end(Console(file=stream, width=200), space(), failed) == 1
    assert stream.getvalue().splitlines()[-2:] == [
        "The search did not finish: Trial 1 ended.",
        "All trials are kept; run the same command again to continue.",
    ]
