"""A step that answers requests: each gets its own answer, nothing is written, and an end is an error for who waits."""

from __future__ import annotations

import pytest

from tasks.runtime.conversation import Conversation
from tasks.runtime.errors import LostChild, TriageError


@pytest.fixture
def step(tmp_path):
    conversation = Conversation("tests.runtime.programs.steps:converse", {"at_once": 4}, tmp_path)
    yield conversation
    conversation.close()


def test_each_request_gets_its_answer_and_those_that_wait_are_read_together(step, tmp_path):
    assert len(step.ask({"words": "x" * 1_000_000}).result(timeout=60)["said"]) == 1_000_000
    words = [f"wombat {i} with\na break and ünïcode" for i in range(50)]
    answers = [answered.result(timeout=60) for answered in [step.ask({"words": one}) for one in words]]
    step.ready.result(timeout=60)
    assert [one["said"] for one in answers] == [one.upper() for one in words]
    assert 1 < max(one["beside"] for one in answers) <= 4
    assert [path for path in tmp_path.rglob("*") if b"wombat" in path.read_bytes().lower()] == []


def test_what_waits_is_answered_before_the_end_and_nothing_after_it(step):
    waiting = [step.ask({"words": "a"}) for _ in range(10)]
    step.close()
    assert [one.result(timeout=60)["said"] for one in waiting] == ["A"] * 10 and step.is_over
    with pytest.raises(LostChild, match="process has ended"):
        step.ask({"words": "b"}).result(timeout=60)


def test_who_waits_for_a_process_that_was_killed_gets_its_error(step):
    waiting = [step.ask({"words": "a", "end_yourself": True}), step.ask({"words": "b"})]
    for answered in waiting:
        with pytest.raises(LostChild, match="signal 9"):
            answered.result(timeout=60)
    assert step.is_over


def test_a_step_that_cannot_start_says_why(tmp_path):
    broken = Conversation("tests.runtime.programs.steps:nothing_of_the_sort", {}, tmp_path)
    with pytest.raises(TriageError, match="nothing_of_the_sort"):
        broken.ready.result(timeout=60)
