"""The display of a running sweep: the current experiment, its update, its loss, the time left, and what has landed; and
the table: states, figures, 80 columns, and what is left out of a low terminal."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from flows.cli.live import Display, ExperimentRow, TimeLeft, live, short_names
from flows.selection import Narrowing, Selection, select
from tasks.progress import publish
from tasks.runtime.events import (
    Device,
    ExperimentFailed,
    ExperimentLanded,
    Note,
    ProgressReport,
    RemoteReport,
    StepWarning,
    TrainingReport,
    ValidationReport,
)
from tests.place import wait_until
from tests.warehouse.rows import land_arm
from warehouse.load import load_all

TRAINING = TrainingReport(40, "train", 0.4567, iterations=120, seconds_left=300.0, tokens_per_second=812.4)
FROZEN = Note("Frozen prefix of 2 of 4 blocks: saves 33% of a step, 0.00 GB.")


@pytest.fixture
def selection():
    return select("smoke", only=Narrowing(limit=4))


@pytest.fixture
def cells(selection):
    return selection.cells


def lines_of(selection, *events) -> list[str]:
    """What a log file gets of (step title, event) pairs."""
    out = io.StringIO()
    with live(Console(file=out, width=160), selection):
        for title, event in events:
            publish(title, event)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def test_a_terminal_shows_a_row_per_experiment_and_the_step_below_and_breaks_lines_between_words(selection, cells):
    out = io.StringIO()
    cell = cells[0].cell_id
    with live(Console(file=out, force_terminal=True, width=70, color_system=None), selection):
        publish(f"train {cell}", TRAINING)
        publish(f"train {cell}", ValidationReport(iteration=10, split="valid", loss=1.5, always_ed=True))
        wait_until(lambda: "loss 0.457" in out.getvalue())  # it is drawn four times a second
        publish(f"land {cell}", ExperimentLanded())

    text = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", out.getvalue())
    assert f"train {cell}  loss 0.457  812" in text and "40/" in text and f"landed   {cell}" in text and "1/4" in text
    validation = f"train {cell}  iteration 10: validation 1.5000  always_ed: nearly everything is answered ED"
    assert set(validation.split()) <= set(text.split())


def test_a_log_file_gets_the_same_as_lines(selection):
    name = "train smol-4bit-r1-s42"
    lines = lines_of(selection, (name, TRAINING), (name, replace(TRAINING, iteration=41)))
    lines = [line for line in lines if "loss" in line]
    assert lines == [f"{name}  loss 0.457  812 tokens/s  5 min left  (40 of 120)"], "not every update"


def test_what_the_steps_of_a_base_model_repeat_is_printed_once_whatever_its_figures_are(selection, cells):
    device = Device("cpu", "dequantised_f32", "float32", "mkl", 200.0, 2, "m")
    other = cells[0].model_copy(update={"model": cells[0].model.model_copy(update={"name": "tiny-gemma3"})})
    titles = [f"{step} {spec.cell_id}" for spec in [*cells, other] for step in ("train", "evaluate")]
    events = [(title, event) for title in titles for event in (device, FROZEN)]
    events.insert(4, (titles[1], replace(device, gflops=210.0)))
    lines = lines_of(Selection(selection.grid, [*cells, other]), *events)
    assert lines == ["device   cpu, dequantised_f32, BLAS mkl, 200 GFLOP/s", FROZEN.message, FROZEN.message]

    busy = "Matrix products run at {} GFLOP/s although mkl is loaded: is the machine busy?"
    events = [(titles[0], StepWarning(busy.format(12))), ("evaluate b", StepWarning(busy.format(9)))]
    events += [(titles[0], Note(f"Memory: {size} MB, 0.8 MB of it for weights.")) for size in (15165.9, 15021.3)]
    events += [(titles[0], StepWarning(f"Micro-batch {size} is too large.")) for size in (8, 4)]
    assert [line.split(" GFLOP")[0] for line in lines_of(selection, *events)] == [
        "WARNING  Matrix products run at 12",
        "Memory: 15165.9 MB, 0.8 MB of it for weights.",
        "WARNING  Micro-batch 8 is too large.",
        "WARNING  Micro-batch 4 is too large.",
    ]


def test_a_landed_experiment_is_shown_with_its_result_its_place_and_the_time_left(
    selection, cells, tmp_path, monkeypatch
):
    assert lines_of(selection, ("land a", ExperimentLanded(("e4",)))) == ["landed   a  1/4"], "without a warehouse"
    failed = ExperimentFailed("The loss became nan.", ValueError())
    assert lines_of(selection, ("land a", failed)) == ["FAILED   a: The loss became nan."]

    land_arm(tmp_path, "4")
    load_all(tmp_path)
    estimate = TimeLeft(selection)
    estimate.began -= 600
    monkeypatch.setattr("flows.cli.live.TimeLeft", lambda selection: estimate)
    cell = cells[0].cell_id
    lines = lines_of(selection, (f"train {cell}", TRAINING), (f"land {cell}", ExperimentLanded(("e4",))))
    (line,) = (line for line in lines if line.startswith("landed"))
    form = rf"landed   {cell}  ED recall 1\.00 \[0\.\d\d, 1\.00\]  (unsafe|provisional)  1/4, \d+ min left"
    assert re.fullmatch(form, line), line


def test_the_time_left_goes_by_the_work_of_the_experiments_that_were_trained(selection, cells):
    estimate = TimeLeft(selection)
    work = estimate.planned
    assert set(work) == {spec.cell_id for spec in cells} and estimate.seconds() is None, "no pace yet"

    estimate.end(cells[0].cell_id)
    assert estimate.seconds() is None, "it landed without training, so it tells nothing about the pace"
    estimate.train(cells[1].cell_id)
    estimate.began = time.monotonic() - 100.0
    estimate.end(cells[1].cell_id)
    rest = work[cells[2].cell_id] + work[cells[3].cell_id]
    assert estimate.seconds() == pytest.approx(100.0 * rest / work[cells[1].cell_id], rel=0.2)

    for spec in cells[2:]:
        estimate.end(spec.cell_id)
    assert estimate.seconds() is None, "nothing is left"


# --- The table -----------------------------------------------------------------------------------


@pytest.fixture
def board() -> Display:
    return Display(Console(file=io.StringIO()), select("paper"))


def rendered(board: Display, height: int = 100, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(board.render(height, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_an_experiment_goes_from_waiting_to_landed_with_its_figures(board):
    cell, other, *_ = board.rows
    assert board.rows[cell].state == "waiting"
    for step, event, state in (
        ("train", ProgressReport("frozen prefix", 80, 9000), "preparing"),
        ("train", replace(TRAINING, iteration=400, iterations=1000), "training"),
        ("train", ValidationReport(iteration=400, split="valid", loss=0.9876, always_ed=False), "training"),
        ("evaluate", ProgressReport("cases", 1, 300), "scoring"),
        ("land", ExperimentLanded(), "landed"),
    ):
        board.on_event(f"{step} {cell}", event)
        assert board.rows[cell].state == state

    board.on_event("convert smollm2-135m", ProgressReport("tensors", 1, 2))
    board.on_event("land somebody-elses-cell", ExperimentLanded())
    assert board.rows[other].state == "waiting", "a step of another cell, and one that is no experiment"
    line = next(line for line in rendered(board) if line.startswith(f"{cell.removesuffix('-s42')} "))
    assert line.split()[1:] == ["landed", "400/800", "0.457", "0.988"]
    assert rendered(board)[-1].startswith("1 of 60 landed, about ")


def test_a_row_shows_what_a_machine_of_a_pool_does():
    row = ExperimentRow("a", 60, 200)
    for report, state, iteration in (
        (RemoteReport("mac1"), "preparing", 0),
        (RemoteReport("mac1", "train", 25.0), "training", 50),
        (RemoteReport("mac1"), "training", 50),
        (RemoteReport("mac1", "evaluate", 1.0), "scoring", 50),
    ):
        row.note("experiment", report)
        assert (row.state, row.iteration) == (state, iteration)


def test_it_fits_80_columns_and_a_low_terminal_shows_what_runs_and_what_failed(board):
    cells = list(board.rows)
    board.on_event(f"land {cells[0]}", ExperimentLanded())
    board.on_event(f"land {cells[40]}", ExperimentFailed("NaN.", ValueError()))
    board.on_event(f"train {cells[59]}", TRAINING)
    lines = rendered(board, height=12)
    assert max(map(len, lines)) <= 80 and len(lines) <= 12
    text = "\n".join(lines)
    assert "failed" in text and "training" in text and "5 min" in text and "landed  " not in text
    assert "and 53 more" in lines and lines[-1].startswith("1 of 60 landed, 1 failed, about ")
    assert len(rendered(board, height=200)) == 1 + 60 + 2


def test_a_low_terminal_has_the_last_line_although_names_fold(board):
    board.names = {cell: f"{cell}-with-a-long-name" for cell in board.rows}
    for width in (60, 80, 100):
        lines = rendered(board, height=24, width=width)
        folded = sum(name not in "\n".join(lines) for name in board.names.values())
        assert folded and 20 <= len(lines) <= 23 and max(map(len, lines)) <= width
        assert lines[-1].startswith("0 of 60 landed, about ")


def test_names_keep_the_seed_only_where_seeds_differ():
    assert short_names(["a-4bit-r-s42", "a-8bit-r-s42"]) == {"a-4bit-r-s42": "a-4bit-r", "a-8bit-r-s42": "a-8bit-r"}
    assert short_names(["a-4bit-r-s42", "a-4bit-r-s43"])["a-4bit-r-s43"] == "a-4bit-r-s43"
