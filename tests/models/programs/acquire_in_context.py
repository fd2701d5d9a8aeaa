"""Run in a process of its own, since huggingface_hub reads its settings once: the `acquire` step for a Hub model, and what
its progress sees, call by call, of a variable that the caller of the step has set. With `stop` behind the repository, the
sweep is stopped at the first of these calls."""

import json
import sys
import threading
from contextvars import ContextVar

import tasks.acquire
from tasks.models.sources import hub_source
from tasks.runtime.children import stop_children
from tasks.runtime.errors import Stopped
from tasks.runtime.events import Event, ProgressReport
from tasks.spec import BaseModelSpec

OURS = ContextVar("OURS", default="lost")
records: list[tuple[str, bool]] = []


def on_event(event: Event) -> None:
    if isinstance(event, ProgressReport):
        records.append((OURS.get(), threading.current_thread() is threading.main_thread()))
        if "stop" in sys.argv:
            stop_children()


if __name__ == "__main__":
    hub_source.CONNECT_SECONDS = 60.0  # as long as a busy machine needs
    tasks.acquire.publisher = lambda title: on_event
    OURS.set("seen")
    source = {"kind": "hub", "repo": sys.argv[1]}
    try:
        tasks.acquire.acquire.fn(BaseModelSpec(name="m", licence="Apache-2.0", sources=(source,)))
    except Stopped:
        records.append(("stopped", True))
    print(json.dumps(records))
