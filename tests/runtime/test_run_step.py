"""A lost child is started again within its step: as often as it makes progress, and else some times."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tasks.runtime import run_step as module
from tasks.runtime.errors import BadInput, LostChild, TookTooLong
from tasks.runtime.events import Note, StepWarning
from tasks.runtime.run_step import LOSSES, run_step


class Children:
    """In the place of `run_child`: each call ends as told."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = list(ends)
        self.started = 0

    def __call__(self, function, args, folder, on_event, **options) -> dict[str, int]:
        end = self.ends[self.started]
        self.started += 1
        if end is not None:
            raise end
        return {"attempt": self.started}


@pytest.fixture
def children(monkeypatch):
    def children_of(*ends: Exception | None) -> Children:
        children_record = Children(*ends)
        monkeypatch.setattr(module, "run_child", children_record)
        return children_record

    return children_of


LOST = LostChild("Lost.")


def test_a_child_that_is_killed_is_started_again_with_a_warning_that_says_so(tmp_path):
    events = []

    def kill_once(event):
        events.append(event)
        if isinstance(event, Note) and not any(isinstance(one, StepWarning) for one in events):
            os.kill(int(event.message.split()[0]), signal.SIGKILL)

    result = run_step("tests.runtime.programs.steps:name_and_wait_a_little", {}, tmp_path, kill_once)
    assert result == {} and [type(one) for one in events] == [Note, StepWarning, Note]
    assert "signal 9" in events[1].message and events[1].message.endswith("It is started again.")


def test_losses_without_progress_end_the_step_and_progress_begins_the_count_anew(children):
    lost = children(*[LOST] * (LOSSES + 1))
    with pytest.raises(LostChild):
        run_step("f", {}, Path(), lambda event: None)

    assert lost.started == LOSSES + 1

    many = children(*[LOST] * 20, None)
    run_step("f", {}, Path(), lambda event: None, progress=lambda: many.started)
    assert many.started == 21


@pytest.mark.parametrize("error", [TookTooLong("Late."), BadInput("Wrong.")], ids=repr)
def test_other_errors_and_a_child_that_took_too_long_are_left_to_the_task(error, children):
    ended = children(error, None)
    with pytest.raises(type(error)):
        run_step("f", {}, Path(), lambda event: None)
    assert ended.started == 1
