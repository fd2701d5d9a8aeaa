"""The real `triage search`: what it leaves, what it refuses, and that a killed one goes on as if it never was."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import time
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Failed
from rich.console import Console

from flows import search as flow
from flows.cli.main import app
from flows.cli.status import print_status
from flows.plan import plan_cells, planned_cases
from flows.selection import Narrowing, select
from tasks.runtime import children
from tasks.runtime.errors import BadInput, Locked, Stopped, TriageError
from tasks.runtime.locks import locked
from tasks.runtime.store import intact_manifest
from tasks.search.trials import Trial
from tests.place import Place, one_sentence
from tests.search.spaces import grid_text, space
from warehouse.query import query
from warehouse.rebuild import rebuild

SAFETY = ["search", "smoke", "--trials", "4", "--model", "tiny-llama", "--recipe", "balanced_safe"]
CELL = "tiny-llama-4bit-balanced_safe-s42"
TRIALS = "SELECT * EXCLUDE (seconds, train_seconds, rungs) FROM trial ORDER BY number"


@pytest.fixture(scope="module")
def searched(server, tmp_path_factory) -> tuple[Place, str]:
    """A finished search for a safety recipe, and what it printed."""
    place = Place(tmp_path_factory.mktemp("search") / "place", server=server)
    result = place.run(*SAFETY)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    return place, result.stdout


def experiments(place: Place) -> list[Path]:
    return sorted(path for path in (place.home / "experiments").iterdir() if not path.name.startswith("."))


def test_survivors_are_trained_to_the_end_the_others_pause_at_their_rung_and_no_test_case_is_scored(searched):
    place, _ = searched
    trials = place.query(TRIALS)
    assert list(trials.updates) == [8 if state == "finished" else 4 for state in trials.state]
    assert {*trials.state} == {"finished", "paused"} and trials.state[0] == "finished"

    for trial in trials.itertuples():
        folder = place.home / "experiments" / trial.training_id
        assert (intact_manifest(folder) is not None) == (trial.state == "finished"), "with the id of its full length"

    (best,) = trials[trials.is_best].itertuples()
    assert best.value == trials[trials.state == "finished"].value.max()
    assert set(trials.objective) == {"ED recall at over-triage 0.3"} and all(trials.higher_is_better)
    assert len(experiments(place)) == 4 and list(place.home.rglob("scores")) == []
    assert place.query("FROM evaluation").empty and place.query("FROM prediction").empty

    again = place.home / "again.duckdb"
    assert place.audits() == {} and not rebuild(place.home / "landing", again).refused
    assert query(TRIALS, database=again).equals(trials)


def test_the_output_in_a_pipe_is_a_line_per_rung_what_was_saved_and_the_next_command(searched):
    place, out = searched
    lines = out.splitlines()
    finished = sum(" finished  update 8 of 8" in line for line in lines)
    at_rungs = [line for line in lines if re.match(r"trial \d", line)]
    assert len(at_rungs) == 4 + finished, "four at the first rung, some at the end"
    assert f"4 trials took {16 + 4 * finished} updates" in out and "\x1b" not in out
    assert lines[-1].endswith(f"triage sweep {place.home / 'searches' / f'smoke-{CELL}' / 'best.toml'}")


def test_a_sweep_of_the_winner_finds_its_training_complete(searched, monkeypatch):
    place, _ = searched
    grid = place.home / "searches" / f"smoke-{CELL}" / "best.toml"
    assert tomllib.loads(grid.read_text())["precisions"] == ["4bit", "8bit"]
    place.use(monkeypatch)
    selection = select(str(grid), None, Narrowing(bits=[4]))
    with planned_cases(selection) as cases:
        (cell,) = plan_cells(selection, cases)
    assert cell.state == "to score"


def test_trials_are_no_experiments_of_the_status_unless_all_is_asked_for(searched, monkeypatch, capsys):
    place, _ = searched
    place.use(monkeypatch)
    print_status(Console(width=150))
    assert CELL not in (output := capsys.readouterr().out)
    assert '4 trials of searches not listed: triage sql "FROM trial"' in output
    print_status(Console(width=150), show_all=True)
    assert capsys.readouterr().out.count(CELL) == 4


def refused(*args: str) -> str:
    """The sentence with which the command is refused, before Prefect starts."""
    with pytest.raises(TriageError) as caught:
        app(list(args), standalone_mode=False)
    assert isinstance(caught.value, BadInput | Locked) and one_sentence(f"triage: {caught.value}\n")
    return str(caught.value)


def test_a_second_search_of_the_same_cell_is_refused_while_one_runs(searched, monkeypatch):
    folder = searched[0].home / "searches" / f"smoke-{CELL}"
    searched[0].use(monkeypatch)
    with locked(folder):
        assert str(folder) in refused(*SAFETY)


def test_a_set_without_emergencies_is_refused(tmp_path, monkeypatch):
    """Given sets are used as they are, and valid has no ED case here."""
    folder = tmp_path / "cases"
    folder.mkdir()
    for number, a_set in enumerate(("train", "valid", "calibration", "test")):
        labels = ("GP", "HOME") if a_set == "valid" else ("ED", "GP", "HOME")
        rows = [
            f"case {n} of set {number} says {label} in its own words,{label}" for n in range(12) for label in labels
        ]
        (folder / f"{a_set}.csv").write_text("\n".join(["text,label", *rows]))

    path = tmp_path / "mine.toml"
    text = grid_text('[search]\n"recipe.rank" = [2, 4]').replace("[data]", f'[data]\nsource = "{folder}"')
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("limits")))
    assert re.match(r"The set valid of \S+ has no ED case, so a search would", refused("search", str(path)))


def test_an_interruption_that_ends_the_step_before_the_flow_is_an_interruption(monkeypatch, capsys):
    """The step has seen it and failed; the flow fails with the step instead of being interrupted itself."""

    def stopped(*args: object, return_state: bool) -> State:
        children.start_no_more()
        return Failed(data=Stopped("The sweep was stopped."))

    monkeypatch.setattr(flow, "search", stopped)
    monkeypatch.setattr("flows.cli.sweep.start_temporary_server", lambda say, lost: None)
    # Both are for a process that ends now, and this one does not.
    monkeypatch.setattr("flows.cli.sweep.leaving_in_time", lambda wait, leave: contextlib.nullcontext())
    monkeypatch.setattr("flows.cli.sweep.at_next_interruption", lambda leave: None)
    with pytest.raises(SystemExit) as left:
        app(["search", "smoke", "--model", "tiny-llama", "--trials", "1"], standalone_mode=False)
    assert left.value.code == 130
    assert "Interrupted. Finished work is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "stops"), [(BadInput("A sentence."), False), (TriageError("Lost."), False), (KeyboardInterrupt(), True)]
)
def test_an_error_of_the_flow_does_not_pass_for_an_interruption(error, stops, monkeypatch):
    """Whoever reads `is_interrupted` takes it for Ctrl-C, and says so instead of the error's sentence."""

    def fails() -> None:
        raise error

    monkeypatch.setattr(flow, "label_run", lambda *args, **names: None)  # there is no run
    monkeypatch.setattr(flow, "refill_warehouse", fails)

    with pytest.raises(type(error)):
        flow.search.fn("smoke", only=Narrowing(models=["tiny-llama"]))

    assert children.is_interrupted() == stops


@pytest.mark.parametrize("error", [BadInput("Other data."), Locked("In use."), TriageError("The step failed.")])
def test_what_the_user_can_change_ends_a_search_as_it_is_and_other_errors_with_their_trial(error, monkeypatch):
    def fails(step) -> None:
        raise error

    monkeypatch.setattr(flow, "publish", lambda *args: None)
    monkeypatch.setattr(flow, "train_to_rung", Mock())
    monkeypatch.setattr(flow, "_result_of", fails)
    a_space = space()
    trial = Trial(3, a_space.starting_values(), "t3", (), None, 8, a_space.objective, "running")
    with pytest.raises(type(error)) as caught:
        flow._train(Mock(), trial, a_space, Path(), Path())
    prefix = "Trial 3 ended: " if type(error) is TriageError else ""
    assert str(caught.value) == f"{prefix}{error}"


@pytest.mark.nightly
def test_trials_that_another_version_trained_are_refused_in_the_sentence_that_says_so(searched, tmp_path):
    place = searched[0].copy(tmp_path / "copy")
    path = place.home / "searches" / f"smoke-{CELL}" / "search.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '\"t0\"' WHERE key = 'training_id'")
    result = place.run(*SAFETY)
    assert result.returncode == 2 and one_sentence(result.stderr), result.stdout + result.stderr
    assert f"Trial 0 in {path} was trained on other cases or weights, or by another version" in result.stderr


# --- killed -----------------------------------------------------------------------------------------------------------

LONG = [
    "search", "smoke", "--trials", "5", "--model", "tiny-llama", "--set", "recipe.iterations=48",
    "--set", "search.rungs=[0.25, 0.5]",
]  # fmt: skip


def moves(place: Place) -> int:
    """Rungs that the trials of a search have reached so far."""
    path = next(place.home.glob("searches/*/search.db"), None)
    if path is None:
        return 0

    recorded = "SELECT value_json FROM trial_user_attributes WHERE key = 'rungs'"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return sum(len(json.loads(rungs)) for (rungs,) in connection.execute(recorded))
        except sqlite3.Error:  # it is being made
            return 0


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_is_killed_at_several_moments_goes_on_as_if_it_never_was(number, tmp_path):
    whole = Place(tmp_path / "whole")
    killed = Place(tmp_path / "killed")
    assert whole.run(*LONG).returncode == 0

    total = moves(whole)
    for reached in (0, 2, total - 2):
        process = killed.start(*LONG)
        deadline = time.monotonic() + 300
        while not list(killed.home.glob("experiments/*/checkpoint/[0-9]*")) or moves(killed) < reached:
            assert process.poll() is None and time.monotonic() < deadline, (killed.folder / "err").read_text()
            time.sleep(0.01)
        (os.kill if number == signal.SIGINT else os.killpg)(process.pid, number)
        assert process.wait(timeout=60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)

    result = killed.run(*LONG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert killed.query(TRIALS).equals(whole.query(TRIALS))

    def adapters(place: Place) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in place.home.glob("experiments/*/adapters.safetensors")}

    assert adapters(killed) == adapters(whole)
