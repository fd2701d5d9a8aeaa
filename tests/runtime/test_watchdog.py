"""A child that sends no sign of life is killed, and one that is slow, or whose parent is, is not."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import pytest

from tasks.runtime import children
from tasks.runtime.children import run_child
from tasks.runtime.errors import LostChild, TookTooLong
from tasks.runtime.watchdog import Watchdog


class Process:
    """A process of which only the kill matters."""

    def __init__(self) -> None:
        self.killed = threading.Event()

    def kill(self) -> None:
        self.killed.set()


def test_silence_kills_and_each_line_begins_the_time_anew():
    process = Process()
    with Watchdog(process, limit=0.5) as watchdog:
        assert process.killed.wait(30) and watchdog.killed_for == "silence"

    process = Process()
    with Watchdog(process, limit=0.5) as watchdog:
        for _ in watchdog.lines(["a", "b", "c"]):
            # As long as all that a silent child may take: what is handled is no silence.
            time.sleep(0.6)
        assert not process.killed.is_set()

    assert watchdog.killed_for is None


def test_a_child_that_was_stopped_is_killed_and_counts_as_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "SILENT_SECONDS", 6.0)

    def stop(event):
        os.kill(int(event.message), signal.SIGSTOP)

    with pytest.raises(LostChild, match="sent no sign of life") as caught:
        run_child("tests.runtime.programs.steps:name_itself", {}, tmp_path, stop)

    assert caught.value.transient


def test_a_child_that_takes_longer_than_it_may_is_killed_however_many_signs_it_sends(tmp_path):
    process = Process()
    with Watchdog(process, limit=60.0, at_most=0.5) as watchdog:
        for _ in watchdog.lines(itertools.repeat("a sign")):
            if process.killed.wait(0.01):
                break

    assert watchdog.killed_for == "time"

    with pytest.raises(TookTooLong, match=r"longer than 0\.1 min, the time_limit of its grid") as caught:
        run_child("tests.runtime.programs.steps:name_itself", {}, tmp_path, at_most=6.0)

    assert caught.value.transient
