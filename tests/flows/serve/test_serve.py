"""`triage serve`: decisions over HTTP are those of `predict`, and a bad request is a sentence."""

import json
import re
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from flows.serve.server import CONNECTIONS, listening, running
from tasks.bundle.asking import READ_DECISION, answer
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.store import refuse_while_working
from tests.flows.test_predict import CELL, MARKER, cases_of
from tests.place import refusal, wait_until

JSON = {"Content-Type": "application/json"}


pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture(scope="module")
def client(kept_model):
    with running(kept_model) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http_client:
        yield http_client


def decide(client, text):
    return client.post("/decide", json={"text": text})


def test_a_server_may_have_a_file_open_for_each_connection():
    """A terminal of a Mac allows 256."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with listening(0):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > CONNECTIONS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_low_hard_limit_of_files_is_reached(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append(limits))
    with listening(0):
        assert asked == [(1024, 1024)]


def test_eight_clients_at_once_get_the_answers_of_predict(client, kept_model, used):
    texts = [case["text"] for case in cases_of(used)[:8]]
    expected = [
        answer(kept_model.bundle, READ_DECISION.validate_python(kept_model.ask(text).result())) for text in texts
    ]
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda text: decide(client, text), texts))
    served = [response.json() for response in responses]
    shown = [one.pop("probabilities") for one in served]
    assert [list(p.values()) for p in shown] == [
        [round(p, 4) for p in one.pop("probabilities").values()] for one in expected
    ]
    assert served == json.loads(json.dumps(expected))
    assert {response.status_code for response in responses} == {200}


@pytest.mark.parametrize(
    ("body", "headers", "status", "sentence"),
    [
        (b'{"text": "a', JSON, 422, "JSON object"),
        (b"[" * 100_000, JSON, 422, "JSON object"),
        (b'{"text": "a"}', {"Content-Type": "text/plain"}, 415, "application/json"),
        (b'{"text": " "}', JSON, 422, "empty"),
        (b'{"text": "\\ud800"}', JSON, 422, "JSON object"),
        (b'{"text": "\\u0000a"}', JSON, 422, "NUL"),
        (b'{"text": 3}', JSON, 422, "one key"),
        (b'{"text": "a", "label": "ED"}', JSON, 422, "one key"),
        (b'{"text": "' + b"a" * 1_050_000 + b'"}', JSON, 422, "larger than 1 MB"),
        (b'{"text": "' + rb"\u00e9" * 500_001 + b'"}', JSON, 422, "larger than 1 MB"),
        (b"a" * 7_000_000, JSON, 413, "larger than"),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else str(value),
)
def test_a_request_that_cannot_be_decided_is_refused_with_a_sentence(client, body, headers, status, sentence):
    response = client.post("/decide", content=body, headers=headers)
    assert response.status_code == status
    assert sentence in response.json()["error"] and response.json()["error"].endswith(".")


def test_a_request_under_another_host_name_is_refused(client):
    response = client.post("/decide", json={"text": "a"}, headers={"Host": "evil.example"})
    assert response.status_code == 400 and "host" in response.text


def test_a_text_is_as_long_however_json_writes_it(client):
    response = client.post("/decide", content=json.dumps({"text": "é" * 300_000}), headers=JSON)
    assert response.status_code == 200 and "middle was left out" in response.text


def test_all_bodies_that_arrive_at_once_have_a_bound_together(client, monkeypatch):
    monkeypatch.setattr("flows.serve.app.BODIES_BYTES", 40)
    assert decide(client, "a").status_code == 200
    response = decide(client, "a" * 40)
    assert response.status_code == 503 and "too many large requests" in response.json()["error"]
    assert decide(client, "a").status_code == 200, "what was counted is given back"


def test_a_body_that_breaks_off_is_counted_as_refused_and_prints_no_traceback(client, caplog):
    count = bad_requests(client)
    head = b"POST /decide HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
        connection.sendall(head + b'{"text": "a')

    wait_until(lambda: bad_requests(client) > count)
    assert bad_requests(client) == count + 1 and caplog.text == ""
    assert decide(client, "a").status_code == 200


def bad_requests(client) -> int:
    """How many requests were refused with status 400."""
    match = re.search(r'triage_requests_total{status="400"} (\d+)', client.get("/metrics").text)
    return int(match[1]) if match else 0


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/no-such-page", 404), ("GET", "/decide", 405)])
def test_another_path_or_method_is_a_sentence_that_does_not_repeat_it(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and "POST /decide decides" in response.json()["error"]
    assert "no-such" not in response.text


def test_a_full_queue_is_a_sentence_too(kept_model):
    with running(kept_model, most_waiting=0) as port:
        response = httpx.post(f"http://127.0.0.1:{port}/decide", json={"text": "a"})
    assert response.status_code == 503 and response.headers["Retry-After"] == "2"
    assert response.json() == {"error": "0 texts wait already; ask again in a few seconds."}


def test_the_page_loads_nothing_from_elsewhere_and_the_description_is_what_is_sent(client):
    page = client.get("/docs")
    assert re.findall(r"https?://(?!127\.0\.0\.1)", page.text) == [] and "default-src 'none'" in str(page.headers)
    description = client.get("/openapi.json").json()
    operation = description["paths"]["/decide"]["post"]
    assert {"200", "400", "408", "413", "415", "422", "503"} == set(operation["responses"])
    described = [set(shape.get("properties", ())) for shape in description["components"]["schemas"].values()]
    assert set(client.get("/health").json()) in described and set(decide(client, "a").json()) in described


def test_health_and_metrics_tell_of_the_model_and_of_no_text(client):
    assert decide(client, MARKER).status_code == 200
    health = client.get("/health").json()
    assert health["model"] == "ready" and health["model_id"].startswith(CELL) and "random weights" in health["warning"]
    metrics = client.get("/metrics").text
    assert 'triage_requests_total{status="200"}' in metrics and "wombat" not in metrics


@pytest.mark.nightly
def test_a_model_that_was_killed_is_a_sentence_and_the_next_text_starts_it_again(client):
    (child,) = (one for one in psutil.Process().children() if "tasks.runtime.child" in one.cmdline())
    child.kill()
    wait_until(lambda: client.get("/health").status_code == 503)
    assert client.get("/health").json()["model"] == "lost"
    assert decide(client, "My head hurts").status_code == 200 and client.get("/health").status_code == 200


def test_two_servers_on_one_port_are_refused():
    in_use = pytest.raises(BadInput, match=r"another `triage serve`; stop that, or give --port")
    with listening(0) as first, in_use:
        host, port = first.getsockname()
        assert host == "127.0.0.1", "no other machine reaches it"
        with listening(port):
            pass


def test_a_precision_to_which_the_adapter_was_not_moved_is_refused(used):
    with listening(0) as free:
        port = str(free.getsockname()[1])
    refused = used.ask("serve", CELL, "--port", port, "--precision", "mxfp4")
    assert "was chosen at 4bit, and not at mxfp4" in refusal(refused)


def test_sigterm_ends_the_command_and_its_child_and_no_text_is_left(used):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    process = used.start("serve", CELL, "--port", str(port))
    base = f"http://127.0.0.1:{port}"

    out = used.folder / "out"
    while "answers on" not in out.read_text():
        assert process.poll() is None, (used.folder / "err").read_text()
        time.sleep(0.1)

    assert httpx.post(f"{base}/decide", json={"text": MARKER}, timeout=120).status_code == 200
    with pytest.raises(Locked, match=rf"is working in .*logs/serve-{CELL}-.*-{process.pid}\)"):
        refuse_while_working(used.home)

    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0 and "Stopped." in out.read_text()
    assert out.read_text().startswith("Checking and loading "), "before it waits"
    assert (used.folder / "err").read_text().count("\n") == 1, "more than which evaluation it rests on"
    psutil.wait_procs(children, timeout=30)
    assert [child for child in children if child.is_running()] == []
    refuse_while_working(used.home)
    assert [p for p in used.folder.rglob("*") if p.is_file() and b"wombat" in p.read_bytes()] == []
