"""The display of a running sweep: the current experiment, its update, its loss, the time left, and what has landed."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from flows.cli.live import TimeLeft, live
from flows.selection import Narrowing, Selection, select
from tasks.progress import publish
from tasks.runtime.events import (
    Device,
    ExperimentFailed,
    ExperimentLanded,
    Note,
    StepWarning,
    TrainingReport,
    ValidationReport,
)
from tests.warehouse.rows import evaluation, training
from warehouse.landing import write_landing
from warehouse.load import load_all

TRAINING = TrainingReport(
    iteration=40, split="train", iterations=120, loss=0.4567, tokens_per_second=812.4, seconds_left=300.0
)
FROZEN = Note("Frozen prefix of 2 of 4 blocks: saves 33% of a step, 0.00 GB.")


@pytest.fixture
def selection():
    return select("smoke", narrowing=Narrowing(limit=4))


@pytest.fixture
def cells(selection):
    return selection.cells


def lines_of(selection, *events) -> list[str]:
    """What a log file gets of these pairs of title and event."""
    out = io.StringIO()
    with live(Console(file=out, width=160), selection):
        for title, event in events:
            publish(title, event)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def test_a_terminal_shows_a_row_per_experiment_and_the_step_below(selection, cells) -> None:
    terminal_output = io.StringIO()
    console = Console(file=terminal_output, force_terminal=True, width=160, color_system=None)
    cell = cells[0].cell_id

    with live(console, selection):
        publish(f"train {cell}", TRAINING)
        deadline = time.monotonic() + 60  # it is drawn four times a second
        while "loss 0.457" not in terminal_output.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        publish(f"land {cell}", ExperimentLanded())

    output = terminal_output.getvalue()
    assert f"train {cell}  loss 0.457  812 tokens/s  5 min left" in output and "40/" in output
    assert f"landed   {cell}" in output and "1/4" in output


def test_a_log_file_gets_the_same_as_lines(selection, capsys) -> None:
    with live(Console(width=160), selection):
        publish("train smol-4bit-r1-s42", TRAINING)
        publish("train smol-4bit-r1-s42", replace(TRAINING, iteration=41))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert lines == ["train smol-4bit-r1-s42  loss 0.457  812 tokens/s  5 min left  (40 of 120)"], "not every update"


def test_a_note_is_printed_once_for_each_base_model_and_a_device_once(selection, cells):
    device = Device(
        backend="cpu",
        compute_path="dequantised_f32",
        compute_dtype="float32",
        blas="mkl",
        threads=2,
        gflops=200.0,
        machine="m",
    )
    other = cells[0].model_copy(update={"model": cells[0].model.model_copy(update={"name": "tiny-gemma3"})})
    titles = [f"{step} {spec.cell_id}" for spec in [*cells, other] for step in ("train", "evaluate")]
    events = [(title, event) for title in titles for event in (device, FROZEN)]
    events.insert(4, (titles[1], replace(device, gflops=210.0)))
    lines = lines_of(Selection(selection.grid, [*cells, other]), *events)
    assert lines == ["device   cpu, dequantised_f32, BLAS mkl, 200 GFLOP/s", FROZEN.message, FROZEN.message]


def test_a_busy_machine_is_told_once_and_a_note_once_whatever_its_figures_are(selection, cells):
    busy = "Matrix products run at {} GFLOP/s although mkl is loaded: is the machine busy?"
    events = [(f"train {cells[0].cell_id}", StepWarning(busy.format(12))), ("evaluate b", StepWarning(busy.format(9)))]
    memory = "Memory: {} MB, 0.8 MB of it for weights and optimizer."
    events += [(f"train {cells[0].cell_id}", Note(memory.format(size))) for size in (15165.9, 15021.3)]
    events += [(f"train {cells[0].cell_id}", StepWarning(f"Micro-batch {size} is too large.")) for size in (8, 4)]
    assert [line.split(" GFLOP")[0] for line in lines_of(selection, *events)] == [
        "WARNING  Matrix products run at 12",
        "Memory: 15165.9 MB, 0.8 MB of it for weights and optimizer.",
        "WARNING  Micro-batch 8 is too large.",
        "WARNING  Micro-batch 4 is too large.",
    ]


def test_a_landed_experiment_is_shown_with_its_result_its_place_and_the_time_left(
    selection, cells, tmp_path, monkeypatch
):
    write_landing(tmp_path, "t4", "training", training("t4"))
    write_landing(tmp_path, "e4", "evaluation", evaluation("e4", "t4"))
    load_all(tmp_path)
    estimate = TimeLeft(selection)
    estimate.began -= 600
    monkeypatch.setattr("flows.cli.live.TimeLeft", lambda selection: estimate)

    cell = cells[0].cell_id
    (line,) = (
        line
        for line in lines_of(selection, (f"train {cell}", TRAINING), (f"land {cell}", ExperimentLanded(("e4",))))
        if line.startswith("landed")
    )
    form = rf"landed   {cell}  ED recall 1\.00 \[0\.\d\d, 1\.00\]  (unsafe|provisional)  1/4, \d+ min left"
    assert re.fullmatch(form, line), line


def test_without_a_warehouse_a_landed_experiment_is_still_named(selection):
    assert lines_of(selection, ("land a", ExperimentLanded(("e4",)))) == ["landed   a  1/4"]
    failed = ExperimentFailed("The loss became nan.", ValueError())
    assert lines_of(selection, ("land a", failed)) == ["FAILED   a: The loss became nan."]


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


def test_a_line_on_a_narrow_terminal_is_broken_between_words(selection, cells):
    out = io.StringIO()
    report = ValidationReport(iteration=10, split="valid", loss=1.5, always_ed=True)
    with live(Console(file=out, force_terminal=True, width=50, color_system=None), selection):
        publish(f"train {cells[0].cell_id}", report)
    text = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", out.getvalue())
    words = f"train {cells[0].cell_id}  iteration 10: validation 1.5000  always_ed: nearly everything is answered ED"
    assert set(words.split()) <= set(text.split())
