"""A step that answers requests until it is told to end: its parent's side (Conversation), and its
own (`requests`).

Requests are lines of JSON on the step's standard input, answers come as events. Neither is written
to a file. That pipe is also how a step knows that its parent lives (child.py): it closes with the
parent, so a step that reads requests is told in words when there are no more.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from tasks.runtime.children import Arguments, run_child
from tasks.runtime.errors import LostChild, TriageError
from tasks.runtime.events import Answer, Event, Ready

Answered = Future[dict[str, Any]]
END_SECONDS = 10.0
END = {"end": True}

lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # in a step: the requests that have arrived


class Conversation:
    """One child process, and the requests that it has not answered yet.

    `function`, `args` and `folder` are those of `run_child`. `ready` is done as soon as the step
    has loaded; if the step ends before, it holds the error.
    """

    def __init__(self, function: str, args: Arguments, folder: Path) -> None:
        self.ready: Future[None] = Future()
        self._lock = threading.Lock()
        self._waiting: dict[int, Answered] = {}
        self._asked = 0
        self._error: TriageError | None = None
        # A write blocks while the step is busy and the pipe is full: a thread does it.
        self._unsent: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(function, args, folder), name="step", daemon=True
        )
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the step has ended, or is about to."""
        return self._error is not None

    def ask(self, values: dict[str, Any]) -> Answered:
        """Send a request; the result is its answer, or the error with which the step has ended."""
        answer: Answered = Future()
        with self._lock:
            if self._error is not None:
                answer.set_exception(self._error)
                return answer
            self._asked += 1
            # Before the request is sent, whose answer may come at once.
            self._waiting[self._asked] = answer
            self._unsent.put(json.dumps({"number": self._asked, **values}))
        return answer

    def close(self) -> None:
        """Let the step answer what it was asked, and end."""
        self._unsent.put(json.dumps(END))
        self._thread.join(END_SECONDS)

    def _run(self, function: str, args: Arguments, folder: Path) -> None:
        error: TriageError = LostChild("The model's process has ended.")
        try:
            run_child(function, args, folder, self._event, on_start=self._start_sending)
        except TriageError as failure:
            error = failure
        finally:
            self._unsent.put(None)
            with self._lock:
                # Under the lock: `ask` sees the error from now on, or its answer is among these.
                self._error = error
                open_answers = list(self._waiting.values())
            if not self.ready.done():
                self.ready.set_exception(error)
            for answer in open_answers:
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(error)

    def _start_sending(self, stream: IO[str]) -> None:
        threading.Thread(target=self._send, args=(stream,), name="requests", daemon=True).start()

    def _send(self, stream: IO[str]) -> None:
        # Where the step has ended, `_run` says so to whoever waits.
        with contextlib.suppress(OSError, ValueError):
            while (line := self._unsent.get()) is not None:
                stream.write(f"{line}\n")
                stream.flush()

    def _event(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.ready.set_result(None)
        elif isinstance(event, Answer):
            with self._lock:
                answer = self._waiting.pop(event.number)
            # Whoever asked may have gone meanwhile.
            if answer.set_running_or_notify_cancel():
                answer.set_result(event.values)


def requests(most: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of 1 to `most` requests, as many as wait, until the parent says that there are no more."""
    while True:
        group = [json.loads(lines.get())]
        while len(group) < most and group[-1] != END and not lines.empty():
            group.append(json.loads(lines.get()))

        if group[0] != END:
            yield [request for request in group if request != END]
        if group[-1] == END:
            return
