"""`triage up --notify`: messages about a failed gate and a failed sweep reach a listener.

uv run pytest -m nightly tests/browser/test_notify.py
"""

import json
import time
from uuid import uuid4

import pytest

from deployments.notify import notices
from tests.browser.study import new_study
from tests.http_server import QuietHandler, http_server

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def messages():
    """What arrives at a listener on this machine, and its Apprise address."""
    received = []

    class Listener(QuietHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

    with http_server(Listener) as address:
        yield received, address.replace("http", "json")


@pytest.fixture(scope="module")
def study(tmp_path_factory, messages):
    new = new_study(tmp_path_factory.mktemp("home"))
    process = new.up("--notify", messages[1])
    yield new
    new.end(process)


def arrived(messages, part, seconds=120):
    """The first message whose title holds `part`."""
    deadline = time.monotonic() + seconds
    while True:
        for message in messages[0]:
            if part in message["title"]:
                return message
        assert time.monotonic() < deadline, messages[0]
        time.sleep(0.5)


def test_a_gate_that_fails_and_a_sweep_that_fails_are_told(study, messages):
    study.wait(study.run("experiment/local", {"grid": "smoke", "model": "tiny-llama", "recipe": "baseline"}))
    unsafe = arrived(messages, "unsafe by its gates")
    assert "tiny-llama 4bit baseline s42" in unsafe["title"] and "ED recall" in unsafe["message"]

    study.wait(study.run("sweep/local", {"grid": "no-such-grid"}), until=("FAILED",))
    failed = arrived(messages, "failed")
    assert "no grid 'no-such-grid'" in failed["message"]


def test_the_events_of_the_experiment_are_in_the_feed(study):
    body = {"filter": {"event": {"prefix": ["triage."]}, "order": "DESC"}, "limit": 50}
    names = {event["event"] for event in study.post("/events/filter", body)["events"]}
    assert {"triage.experiment.landed", "triage.experiment.gate_failed"} <= names


def test_the_automations_are_there(study):
    names = {one["name"] for one in study.post("/automations/filter", {})}
    expected = {notice.name for notice in notices(uuid4())} | {"triage: a lost run runs again"}
    assert {name for name in names if name.startswith("triage: ")} == expected
