"""The display of a running sweep: the current experiment, its update, its loss, the time left, and what has landed; and
the table: states, figures, 80 columns, and what is left out of a low terminal."""

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.cli.live import Display, live
from flows.report.figures import clock
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
from tests.place import shown, wait_until
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


def test_a_log_file_gets_what_the_steps_of_a_base_model_repeat_once_whatever_its_figures_are_and_not_every_update(
    selection, cells
):
    device = Device("cpu", "dequantised_f32", "float32", "mkl", 200.0, 2, "m")
    busy = "Matrix products run at {} GFLOP/s although mkl is loaded: is the machine busy?"
    events = [device, replace(device, gflops=210.0), FROZEN, FROZEN, *(StepWarning(busy.format(n)) for n in (12, 9))]
    events += [Note(f"Memory: {size} MB, 0.8 MB of it for weights.") for size in (15165.9, 15021.3)]
    events += [StepWarning(f"Micro-batch {size} is too large.") for size in (8, 4, 4)]
    name = f"train {cells[0].cell_id}"
    steps = [(name, event) for event in [*events, TRAINING, replace(TRAINING, iteration=41)]]
    other = cells[0].model_copy(update={"model": cells[0].model.model_copy(update={"name": "tiny-gemma3"})})
    steps.append((f"train {other.cell_id}", FROZEN))
    assert lines_of(Selection(selection.grid, [*cells, other]), *steps) == [
        "device   cpu, dequantised_f32, BLAS mkl, 200 GFLOP/s",
        FROZEN.message,
        f"WARNING  {busy.format(12)}",
        "Memory: 15165.9 MB, 0.8 MB of it for weights.",
        "WARNING  Micro-batch 8 is too large.",
        "WARNING  Micro-batch 4 is too large.",
        f"{name}  loss 0.457  812 tokens/s  5 min left  (40 of 120)",
        FROZEN.message,
    ]


def test_a_landed_experiment_is_shown_with_its_result_its_place_and_the_time_left(selection, cells, tmp_path):
    (line,) = lines_of(selection, ("land a", ExperimentLanded(("e4",))))
    assert re.fullmatch(r"landed   a  1/4, about \d+ (s|min) left", line), "without a warehouse"
    failed = ExperimentFailed("The loss became nan.", ValueError())
    assert lines_of(selection, ("land a", failed)) == ["FAILED   a: The loss became nan."]

    land_arm(tmp_path, "4")
    load_all(tmp_path)
    (line,) = lines_of(selection, (f"land {cells[0].cell_id}", ExperimentLanded(("e4",))))
    form = rf"landed   {cells[0].cell_id}  ED recall 1\.00 \[0\.\d\d, 1\.00\]  (unsafe|provisional)  1/4, about .* left"
    assert re.fullmatch(form, line), line


def test_the_time_left_goes_by_the_work_of_the_experiments_that_were_trained(selection, monkeypatch):
    display = Display(Console(file=io.StringIO()), selection)
    now = display.began
    monkeypatch.setattr("flows.cli.live.time", SimpleNamespace(monotonic=lambda: now + 100.0))

    def left() -> str:
        return str(display.render(100).renderables[-1]).partition("about ")[2]

    for row, work in zip(display.rows.values(), (10.0, 20.0, 30.0, 40.0), strict=True):
        row.planned_seconds = work
    first, second, third, last = display.rows
    assert left() == f"{clock(100.0)} left", "no pace yet: as planned"
    display.on_event(f"land {first}", ExperimentLanded())
    assert left() == f"{clock(90.0)} left", "it landed without training, so it tells nothing about the pace"
    display.on_event(f"train {second}", TRAINING)
    display.on_event(f"land {second}", ExperimentLanded())
    assert left() == f"{clock(70.0 * 100 / 20)} left"
    for cell in (third, last):
        display.on_event(f"land {cell}", ExperimentFailed("NaN.", ValueError()))
    assert left() == "", "nothing is left"


# --- The table -----------------------------------------------------------------------------------


@pytest.fixture
def board() -> Display:
    return Display(Console(file=io.StringIO()), select("paper"))


def rendered(board: Display, height: int = 100, width: int = 80) -> list[str]:
    return shown(lambda console: console.print(board.render(height)), width=width).splitlines()


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


def test_a_row_shows_what_a_machine_of_a_pool_does(board):
    cell, row = next(iter(board.rows.items()))
    for report, state, iteration in (
        (RemoteReport("mac1"), "preparing", 0),
        (RemoteReport("mac1", "train", 25.0), "training", 200),
        (RemoteReport("mac1"), "training", 200),
        (RemoteReport("mac1", "evaluate", 1.0), "scoring", 200),
    ):
        board.on_event(f"experiment {cell}", report)
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
    assert lines[-1].startswith("1 of 60 landed, 1 failed, about ")
