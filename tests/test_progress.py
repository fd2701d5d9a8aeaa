"""Where a step's events go: its progress artifact, with a server that does not answer."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from uuid import uuid4

from tasks import progress
from tasks.progress import publisher
from tasks.runtime.events import ProgressReport


def test_a_step_does_not_wait_for_a_server_that_does_not_answer_and_its_bar_is_removed_once_that_does(monkeypatch):
    answers = threading.Event()
    removed = threading.Event()
    headers = []
    id = uuid4()

    def create(progress, **artifact):
        headers.append(progress)
        assert answers.wait(60)
        return id

    server = SimpleNamespace(delete_artifact=lambda gone: gone == id and removed.set())
    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "get_client", lambda sync_client: nullcontext(server))
    monkeypatch.setattr(progress, "ARTIFACT_SECONDS", 0)
    monkeypatch.setattr(progress, "REQUEST_SECONDS", 0.01)
    emit = publisher("train a")

    for result in (1, 2, 10):
        emit(ProgressReport("cases", result, 10))

    assert headers == [10.0] and not removed.is_set()
    answers.set()
    assert removed.wait(60) and headers == [10.0]
