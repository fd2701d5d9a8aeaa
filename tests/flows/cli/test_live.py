"""What a person sees while a sweep runs: the current experiment, its update, its loss, the time left."""

from __future__ import annotations

import io
import time
from dataclasses import replace

from rich.console import Console

from flows.cli.live import live
from tasks.progress import publish
from tasks.runtime.events import ExperimentLanded, TrainingReport

TRAINING = TrainingReport(
    iteration=40, split="train", iterations=120, loss=0.4567, tokens_per_second=812.4, seconds_left=300.0
)


def test_a_terminal_shows_experiment_loss_speed_time_left_and_how_much_is_done() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=160, color_system=None)
    with live(console, 4):
        publish("train smol-4bit-r1-s42", TRAINING)
        deadline = time.monotonic() + 60  # it is drawn ten times a second
        while "loss" not in written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        publish("land smol-4bit-r1-s42", ExperimentLanded())
    shown = written.getvalue()
    assert "train smol-4bit-r1-s42  loss 0.457  812 tokens/s  5 min left" in shown and "40/120" in shown
    assert "landed   smol-4bit-r1-s42" in shown and "1/4" in shown


def test_a_log_file_gets_the_same_as_lines(capsys) -> None:
    with live(Console(width=160), 4):
        publish("train smol-4bit-r1-s42", TRAINING)
        publish("train smol-4bit-r1-s42", replace(TRAINING, iteration=41))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert lines == ["train smol-4bit-r1-s42  loss 0.457  812 tokens/s  5 min left  (40 of 120)"], "not every update"
