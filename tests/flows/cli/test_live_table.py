"""The table of a running sweep: states, figures, 80 columns, and what is left out of a low terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.cli.live import Board, State, TimeLeft, short_names
from flows.selection import select
from tasks.runtime.events import (
    ExperimentFailed,
    ExperimentLanded,
    ProgressReport,
    TrainingReport,
    ValidationReport,
)

TRAINING = TrainingReport(
    iteration=400, split="train", iterations=1000, loss=0.4567, tokens_per_second=800.0, seconds_left=300.0
)
VALIDATION = ValidationReport(iteration=400, split="valid", loss=0.9876, always_ed=False)


@pytest.fixture
def board() -> Board:
    paper = select("paper")
    return Board.of(paper.cells, TimeLeft(paper))


def rendered(board: Board, height: int = 100, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(board.render(height, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_an_experiment_goes_from_waiting_to_landed_with_its_figures(board):
    cell = next(iter(board.rows))
    states = [board.rows[cell].state]
    for title, event in (
        (f"train {cell}", ProgressReport("frozen prefix", 80, 9000)),
        (f"train {cell}", TRAINING),
        (f"train {cell}", VALIDATION),
        (f"evaluate {cell}", ProgressReport("cases", 1, 300)),
        (f"land {cell}", ExperimentLanded()),
    ):
        board.note(title, event)
        states.append(board.rows[cell].state)

    assert states == [
        State.WAITING,
        State.PREPARING,
        State.TRAINING,
        State.TRAINING,
        State.SCORING,
        State.LANDED,
    ]
    line = next(line for line in rendered(board) if line.startswith(f"{cell.removesuffix('-s42')} "))
    assert line.split()[1:] == ["landed", "400/800", "0.457", "0.988"]
    assert rendered(board)[-1].startswith("1 of 60 landed, about ")


def test_a_step_of_another_cell_and_a_step_that_is_no_experiment_change_no_row(board):
    before = dict(board.rows)
    board.note("convert smollm2-135m", ProgressReport("tensors", 1, 2))
    board.note("land somebody-elses-cell", ExperimentLanded())
    assert board.rows == before


def test_it_fits_80_columns_and_a_low_terminal_shows_what_runs_and_what_failed(board):
    cells = list(board.rows)
    board.note(f"land {cells[0]}", ExperimentLanded())
    board.note(f"land {cells[40]}", ExperimentFailed("NaN.", ValueError()))
    board.note(f"train {cells[59]}", TRAINING)
    lines = rendered(board, height=12)
    assert max(map(len, lines)) <= 80 and len(lines) <= 12
    text = "\n".join(lines)
    assert "failed" in text and "training" in text and "5 min" in text and "landed  " not in text
    assert "and 53 more" in lines and lines[-1].startswith("1 of 60 landed, 1 failed, about ")
    assert len(rendered(board, height=200)) == 1 + 60 + 2


def test_a_low_terminal_has_the_last_line_although_names_fold(board):
    names = {cell: f"{cell}-with-a-long-name" for cell in board.rows}
    board.names = names
    for width in (60, 80, 100):
        lines = rendered(board, height=24, width=width)
        folded = sum(name not in "\n".join(lines) for name in names.values())
        assert folded and 20 <= len(lines) <= 23 and max(map(len, lines)) <= width
        assert lines[-1].startswith("0 of 60 landed, about ")


def test_names_keep_the_seed_only_where_seeds_differ():
    assert short_names(["a-4bit-r-s42", "a-8bit-r-s42"]) == {"a-4bit-r-s42": "a-4bit-r", "a-8bit-r-s42": "a-8bit-r"}
    assert short_names(["a-4bit-r-s42", "a-4bit-r-s43"])["a-4bit-r-s43"] == "a-4bit-r-s43"
