"""`triage search`: what it says first, a table of trials on a terminal, a line per rung elsewhere, and its report."""

import io
from types import SimpleNamespace

from rich.console import Console

from flows.cli.search import end, live
from tasks.progress import listeners, publish
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Note, StepWarning
from tasks.search.trials import Reached, Trial, Trials
from tests.place import shown
from tests.search.spaces import space


def rendered(*events) -> str:
    stream = io.StringIO()
    with live(Console(file=stream, width=100), space().objective):
        for event in events:
            publish("search", event)
    assert listeners == []
    return stream.getvalue()


def trial(number: int, state: str, update: int, value: float = 0.0, error: str | None = None) -> Trial:
    rungs = (Reached(update, value, value, 1.0, 1.0),) if update else ()
    return Trial(number, {"recipe.rank": number + 2}, "t", rungs, error, 8, space().objective, state)


def test_a_pipe_gets_a_line_for_each_rung_and_each_message_once_whatever_its_figures():
    out = rendered(
        trial(0, "training", 0), Note("It takes 1.5 MB of 3."), Note("It takes 2 MB of 4."),
        trial(0, "paused", 4, 0.25), trial(1, "failed", 0, error="The loss became NaN.\x1b[2J"), StepWarning("Beware."),
    )  # fmt: skip
    assert out.splitlines() == [
        "It takes 1.5 MB of 3.",
        "trial 0  paused  update 4 of 8  validation value 0.2500  rank = 2",
        "trial 1  failed  update 0 of 8  The loss became NaN.\\x1b[2J  rank = 3",
        "Beware.",
    ]


def test_the_report_of_a_search_that_finished_no_trial_names_the_best_and_how_it_goes_on():
    trials = Trials(space())
    for number, value in enumerate((0.5, 0.75, 0.25)):
        trials.add(trials.propose(), "t")
        trials.reach(number, Reached(4, value, value, 2.0, 1.0))
    done = SimpleNamespace(is_completed=lambda: True)
    out = shown(end, space(), done)
    assert "Trial 2: " in out and "The best of 3 trials of tiny-llama 4bit baseline s42" in out and "0.2500" in out
    assert "3 trials took 12 updates" in out and "to the end would take 24 updates" in out
    assert "the same command with more --hours goes on" in out
    assert out.splitlines()[-1].endswith(f"next: triage sweep {space().folder / 'best.toml'}")


def test_a_search_that_an_error_ends_says_so_and_that_the_same_command_goes_on():
    error = TriageError("Trial 1 ended.")
    failed = SimpleNamespace(is_completed=lambda: False, result=lambda raise_on_failure: error)
    assert shown(end, space(), failed).splitlines()[-2:] == [
        "The search did not finish: Trial 1 ended.",
        "All trials are kept; run the same command again to continue.",
    ]
