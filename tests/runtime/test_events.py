"""Events cross the pipe as one line of JSON each, and come back as the classes that they were."""

import json
import math

import pytest

from tasks.runtime.events import (
    Device,
    Heartbeat,
    MemoryNote,
    Note,
    ProgressReport,
    SourceReport,
    StepError,
    StepResult,
    StepWarning,
    TrainingReport,
    ValidationReport,
    from_json,
    to_json,
)

POINT = {"iteration": 3, "loss": 0.5, "label_loss": 0.3, "other_loss": 0.1, "cost": 0.1}
EVENTS = [
    ("note", Note("a line\nwith a break and ünïcode")),
    ("warning", StepWarning("slow")),
    ("progress", ProgressReport("dropout passes", 1, 3)),
    ("train", TrainingReport(split="train", learning_rate=0.1, iterations=9, seconds_left=2.0, **POINT)),
    ("valid", ValidationReport(split="valid", ed_share=0.2, specificity=None, always_ed=False, **POINT)),
    ("device", Device("cpu", "dequantised_f32", "float32", "mkl", 90.0, 2, "Linux x86_64")),
    ("source", SourceReport("m", "hub", "abc")),
    ("heartbeat", Heartbeat(1 << 40)),
    ("result", StepResult({"sum": [1, 2.5, None]})),
    ("error", StepError("BadInput", "A sentence.")),
]


@pytest.mark.parametrize(("name", "event"), EVENTS, ids=[name for name, _ in EVENTS])
def test_an_event_comes_back_as_it_was(name, event):
    line = to_json(event)
    assert "\n" not in line and json.loads(line)["event"] == name
    assert from_json(line) == event and type(from_json(line)) is type(event)


def test_the_keys_of_a_training_report_are_those_of_the_curve_and_two_more():
    report = next(event for name, event in EVENTS if name == "train")
    assert list(json.loads(to_json(report))) == [
        "event", "iteration", "split", "loss", "label_loss", "other_loss", "cost", "learning_rate", "tokens_per_second",
        "ed_share", "specificity", "macro_f1", "iterations", "seconds_left",
    ]  # fmt: skip


def test_a_note_about_memory_keeps_its_figures_on_the_wire_and_is_read_as_a_note():
    line = to_json(MemoryNote("fits", held_bytes=1, case_bytes=2, further_bytes=3))
    assert json.loads(line) == {
        "event": "note", "message": "fits", "held_bytes": 1, "case_bytes": 2, "further_bytes": 3,
    }  # fmt: skip
    assert from_json(line) == Note("fits")


def test_numbers_that_are_not_finite_cross_the_pipe():
    result = from_json(to_json(StepResult({"loss": math.nan, "cost": math.inf})))
    assert isinstance(result, StepResult)
    assert math.isnan(result.result["loss"]) and result.result["cost"] == math.inf


@pytest.mark.parametrize("line", ["", "text", "3", "null", "[]", "{}", '{"event": "unheard"}', '{"event": "note"}'])
def test_text_that_is_no_event_is_none(line):
    assert from_json(line) is None
