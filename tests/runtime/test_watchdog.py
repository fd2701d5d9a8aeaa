"""A child that sends no sign of life is killed, and one that is slow, or whose parent is, is not."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tasks.runtime import child
from tasks.runtime.child import run_child
from tasks.runtime.errors import LostChild
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
        assert process.killed.wait(30) and watchdog.has_killed

    process = Process()
    with Watchdog(process, limit=0.5) as watchdog:
        for _ in watchdog.lines(["a", "b", "c"]):
            # As long as all that a silent child may take: what is handled is no silence.
            time.sleep(0.6)
        assert not process.killed.is_set()
    assert not watchdog.has_killed


def test_a_child_that_was_stopped_is_killed_and_counts_as_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "SILENT_SECONDS", 6.0)

    def stop(event):
        os.kill(int(event.message), signal.SIGSTOP)

    with pytest.raises(LostChild, match="sent no sign of life") as caught:
        run_child("tests.runtime.programs.steps:name_itself", {}, tmp_path, stop)
    assert caught.value.transient
