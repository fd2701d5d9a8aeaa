"""Events cross the pipe as one line of JSON each, and come back as the classes that they were."""

import json
import math

from tasks.runtime.events import (
    Device,
    Heartbeat,
    Kept,
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
    Note("a line\nwith a break and ünïcode"),
    StepWarning("slow"),
    ProgressReport("dropout passes", 1, 3),
    TrainingReport(split="train", learning_rate=0.1, iterations=9, seconds_left=2.0, **POINT),
    ValidationReport(split="valid", ed_share=0.2, specificity=None, always_ed=False, **POINT),
    Device("cpu", "dequantised_f32", "float32", "mkl", 90.0, 2, "Linux x86_64"),
    SourceReport("m", "hub", "abc"),
    Kept(),
    Heartbeat(1 << 40),
    StepResult({"sum": [1, 2.5, None], "loss": math.inf}),
    StepError("A sentence.", "Locked"),
]


def test_an_event_comes_back_as_it_was():
    for event in EVENTS:
        line = to_json(event)
        assert "\n" not in line and json.loads(line)["event"] == type(event).__name__
        assert from_json(line) == event and type(from_json(line)) is type(event)


def test_text_that_is_no_event_is_none():
    for line in ("", "text", "3", "null", "[]", "{}", '{"event": "Unheard"}', '{"event": "Note"}'):
        assert from_json(line) is None
