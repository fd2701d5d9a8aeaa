"""`triage search`: what it says first, a table of trials on a terminal, a line per rung elsewhere, and its report."""

import io
import re
from types import SimpleNamespace

from rich.console import Console

from flows.cli.search import end, live
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
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


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


def test_a_terminal_gets_the_present_step_too():
    step = TrainingReport(4, "train", 0.5, iterations=8, seconds_left=12.0, tokens_per_second=100.0)
    out = rendered(True, trial(3, "finished", 8, 0.5), step)
    assert "trial 3  finished  update 8 of 8" in out
    assert "search: update 4 of 8, loss 0.500, 12 s to its end" in out


def test_the_report_of_a_search_that_finished_no_trial_names_the_best_and_how_it_goes_on():
    trials = Trials(space())
    for number, value in enumerate((0.5, 0.75, 0.25)):
        trials.add(trials.propose(), "t")
        trials.reach(number, Reached(4, value, value, 2.0, 1.0))
    done = SimpleNamespace(is_completed=lambda: True)
    stream = io.StringIO()
    assert end(Console(file=stream, width=200), space(), done) == 0
    out = stream.getvalue()
    assert "Trial 2: " in out and "The best of 3 trials of tiny-llama 4bit baseline s42" in out and "0.2500" in out
    assert "3 trials took 12 updates" in out and "to the end would take 24 updates" in out
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
