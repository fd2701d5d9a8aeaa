"""`triage up` where it cannot start or go on, a sentence each, and what it ends, queues again and leaves alone."""

import asyncio
import importlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings

import flows.sweep
from deployments import server as temporary_server
from deployments.interruptions import interrupted_by_signals
from deployments.notify import HEARTBEAT_SECONDS
from deployments.server import HOST, ORIGINS, NoAnswer, answering, set_damaged_database_aside
from deployments.up import EVERYWHERE, _environment, _Server, api_url, keep_working, refuse_open_server, up, version_on
from deployments.workers import (
    BOUND_PROCESS,
    EARLY_ENDS,
    QUEUES,
    Worker,
    give_back_runs,
    register,
    worker_name,
)
from flows.compare import compare
from flows.experiment import experiment
from flows.selection import Narrowing
from flows.sweep import sweep
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import at_work, locked
from tests.http_server import QuietHandler, http_server, replying, version_server


@contextmanager
def prefect_of(version: str):
    """A server that says it is Prefect of that version; yields its port."""
    with http_server(replying(json.dumps(version))) as address:
        yield urlsplit(address).port


def test_a_server_of_another_version_is_named(patient):
    own_version = metadata.version("prefect")
    other_version = pytest.raises(BadInput, match=rf"of version 2\.20\.1, .* uses {own_version}; stop")
    with prefect_of("2.20.1") as port, other_version:
        up(port, print)
    assert not (home() / "logs").exists(), "nothing was started"


def test_another_program_on_the_port_is_named():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(BadInput, match=f"Port {port} is taken by another program; choose another with --port"):
            up(port, print)
    assert not (home() / "logs").exists(), "nothing was started"


def test_a_second_start_says_where_the_first_is_or_that_it_has_another_port(patient):
    lines = []
    with locked(home() / "server"):
        with prefect_of("3.9.1") as port:
            assert version_on(port) == "3.9.1"
            up(port, lines.append)
        assert lines == [f"Already running: http://127.0.0.1:{port} (Prefect 3.9.1)."]
        with pytest.raises(BadInput, match="running already, but not on port"):
            up(port, lines.append)


def test_a_comparison_before_anything_has_run_says_so_in_its_artifact(monkeypatch):
    published = {}
    monkeypatch.setattr(
        "flows.compare.create_markdown_artifact", lambda key, markdown, description: published.update({key: markdown})
    )
    compare.fn()
    assert published == {"comparison": "# 4 bits against 8 bits\n\nNo rows yet."}
    assert not home().exists(), "a comparison makes no warehouse"


def test_the_forms_of_the_ui_refuse_a_limit_and_a_seed_that_are_nonsense():
    limit = sweep.parameters.definitions["Narrowing"]["properties"]["limit"]
    seed = experiment.parameters.properties["seed"]
    assert limit["anyOf"] == [{"type": "integer", "minimum": 1}, {"type": "null"}]
    assert (seed["type"], seed["minimum"], seed["exclusiveMaximum"]) == ("integer", 0, 2**32)
    assert sweep.validate_parameters({"only": {"limit": 1}})["only"] == Narrowing(limit=1)

    for flow, wrong in ((sweep, {"only": {"limit": 0}}), (experiment, {"seed": -1})):
        with pytest.raises(ParameterTypeError, match="greater than or equal to"):
            flow.validate_parameters(wrong)


@contextmanager
def server_that_has(*paths: str, answers: dict[str, object] | None = None):
    """A server that knows these addresses and no other, and these `answers` to requests with a body; yields its own
    address, and the requests with a body as they come."""
    requests = []

    class Handler(QuietHandler):
        def do_GET(self):
            self.answer(self.path in paths, DESCRIPTION)

        def do_POST(self):
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.answer(self.path in (answers or {}), (answers or {}).get(self.path))

        do_PATCH = do_POST

        def answer(self, exists, body):
            self.send_response(200 if exists else 404)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with http_server(Handler) as address:
        yield address, requests


ID = "12345678-1234-1234-1234-123456789abc"
# What Prefect's client needs to read a work pool, a deployment or a run.
DESCRIPTION = {
    "id": ID,
    "name": "triage",
    "type": "process",
    "default_queue_id": ID,
    "flow_id": ID,
    "state": {"type": "RUNNING"},
}
SET_STATE = f"/flow_runs/{ID}/set_state"
ACCEPTED = {"state": None, "status": "ACCEPT", "details": {"type": "accept_details"}}
WORKERS = "/work_pools/triage/workers/filter"


DEPLOYED = {WORKERS: [], "/flows/": {"id": ID}, "/deployments/": {"id": ID}, f"/deployments/{ID}": None}


def test_a_pool_that_a_worker_of_another_home_serves_is_refused_before_anything_is_deployed(tmp_path, monkeypatch):
    workers = {worker_name(): "ONLINE", worker_name("light"): "ONLINE", "gone": "OFFLINE"}
    own = [{"name": name, "status": status, "work_pool_id": ID} for name, status in workers.items()]
    with server_that_has("/work_pools/triage", answers=DEPLOYED | {WORKERS: own}) as (api, requests):
        register(api)
        requests.clear()
        monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "other"))
        served = f"pool triage of {api} is served by {own[0]['name']}, .*; choose another port"
        with pytest.raises(BadInput, match=served):
            register(api)
    assert [path for path, _ in requests] == [WORKERS]


def test_schedules_are_given_to_new_deployments_only_and_are_off_until_a_person_switches_them_on():
    with server_that_has("/work_pools/triage", "/deployments/name/compare/compare", answers=DEPLOYED) as (
        api,
        requests,
    ):
        register(api)

    new = {body["name"]: body for path, body in requests if path == "/deployments/"}
    (kept,) = (body for path, body in requests if path == f"/deployments/{ID}")
    assert list(new) == ["sweep", "experiment", "nightly"] and "schedules" not in kept
    for body in [*new.values(), kept]:
        heartbeat = body["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
        assert heartbeat == str(HEARTBEAT_SECONDS), "else the automation takes what runs for lost"
        assert body["parameter_openapi_schema"]["type"] == "object" and body["tags"] == ["triage"]
    schedules = [(s["slug"], s["active"], s["parameters"]) for body in new.values() for s in body["schedules"]]
    assert schedules == [("weekly-paper", False, {"grid": "paper"}), ("nightly", False, {"grid": "demo"})]
    assert new["nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_what_ran_is_given_back_unless_it_is_of_another_home_or_server():
    command = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()", "prefect.engine"]
    with server_that_has(f"/flow_runs/{ID}", answers={SET_STATE: ACCEPTED}) as (api, requests):
        own = {"PREFECT__FLOW_RUN_ID": ID, "PREFECT_API_URL": api, "TRIAGE_HOME": str(home())}
        changes = [{"TRIAGE_HOME": f"{home()} of others"}, {"PREFECT_API_URL": api_url(2)}, {}]
        runs = [
            subprocess.Popen(command, env=os.environ | own | change, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for change in changes
        ]
        try:
            for run in runs:
                run.stdout.readline()  # until it has written, a list of processes may show its parent's command
            give_back_runs(api)
            assert runs[-1].wait(10) == -signal.SIGKILL and [run.poll() for run in runs[:-1]] == [None, None]
            give_back_runs(api)
        finally:
            for run in runs:
                run.communicate()

    (state,) = [body for path, body in requests if path == SET_STATE]
    assert (state["state"]["type"], state["state"]["name"], state["force"]) == ("SCHEDULED", "AwaitingRetry", True)


def test_a_process_ends_with_the_command_that_started_it_whatever_that_does():
    command = [sys.executable, "-P", str(BOUND_PROCESS), "http.server", "0", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert b"Serving" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL


@pytest.fixture
def watched_often(monkeypatch):
    """`keep_working` looks often; what it leaves ignored, as in its process, comes back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr("deployments.up.POLL_SECONDS", 0.01)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_worker_that_ends_at_once_is_not_started_for_ever_and_it_is_said_where_to_read_why(
    monkeypatch, watched_often
):
    lines = []
    log = home() / "logs" / "prefect-worker-default.log"
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    workers = [Worker(queue, _environment(1), lines.append) for queue in QUEUES]

    with pytest.raises(BadInput, match=f"{EARLY_ENDS} consecutive .* in {log}. Fix the problem"):
        keep_working(SimpleNamespace(port=1, keep=lambda: None), workers)

    first = [line.split("(")[0] for line in lines if "ight" not in line]
    assert first == ["Worker started ", "Worker ended."] * EARLY_ENDS
    assert "Light worker started" in " ".join(lines) and log.exists()


def test_no_worker_is_left_where_the_server_cannot_be_started_again(monkeypatch, watched_often):
    workers = []
    monkeypatch.setattr("deployments.workers.BOUND_PROCESS", "-c")  # python -P -c prefect ...: ends by itself

    def keep():
        if workers and workers[0]._process:
            raise BadInput("It ended.")

    workers += [Worker(queue, _environment(1), print) for queue in QUEUES]
    with pytest.raises(BadInput, match="It ended"):
        keep_working(SimpleNamespace(port=1, keep=keep), workers)
    assert all(worker._process.poll() is not None for worker in workers)


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [("https://evil.example", HOST, 400), ("http://127.0.0.1:4201", HOST, 400), ("http://localhost:4200", HOST, 200),
     (f"http://{socket.gethostname()}:4200", EVERYWHERE, 200)],
)  # fmt: skip
def test_the_server_answers_pages_of_its_own_alone(origin, host, status, monkeypatch):
    from prefect.server.api.server import create_app

    monkeypatch.delenv(ORIGINS, raising=False)
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: _environment(4200, host)[ORIGINS]}):
        server = TestClient(create_app(ignore_cache=True))
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert server.options("/api/deployments/", headers=asked).status_code == status


NIGHT = {"id": ID, "flow_id": ID, "name": "sweep demo"}


@pytest.mark.parametrize(
    ("runs", "works", "message"),
    [
        ([NIGHT], False, "sweep demo has not ended, so"),
        ([], True, "A sweep or an experiment goes on in "),
        ([], False, None),
    ],
)
def test_a_night_is_left_out_while_a_sweep_waits_or_goes_on(runs, works, message, monkeypatch):
    queued = []
    monkeypatch.setattr(flows.sweep, "run_deployment", lambda name, **options: queued.append(name))
    with (
        server_that_has(answers={"/flow_runs/filter": runs}) as (api, requests),
        temporary_settings({PREFECT_API_URL: api}),
        at_work() if works else nullcontext(),
    ):
        state = flows.sweep.nightly.fn("demo")

    (asked,) = (body["flow_runs"] for _, body in requests)
    assert "SCHEDULED" in asked["state"]["type"]["any_"] and asked["expected_start_time"]["before_"]
    assert (state.type.value, queued) == (("CANCELLED", []) if message else ("COMPLETED", ["sweep/sweep"]))
    assert state.message.startswith(message or "A sweep is queued")


@pytest.mark.parametrize(
    ("number", "before"),
    [(signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_IGN)],
)
def test_a_closed_terminal_interrupts_as_ctrl_c_does_unless_nohup_has_it_ignored(number, before):
    of_tests = signal.signal(number, before)  # whatever started them may have it ignored
    interrupted = nullcontext() if before == signal.SIG_IGN else pytest.raises(KeyboardInterrupt)
    try:
        with interrupted, interrupted_by_signals():
            os.kill(os.getpid(), number)
            time.sleep(0.1 if before == signal.SIG_IGN else 5)
        assert signal.getsignal(number) == before, "what was set comes back"
    finally:
        signal.signal(number, of_tests)


@pytest.fixture
def kept_server(monkeypatch, patient):
    """The server of `triage up`, of which only the process is replaced; its processes as they are started."""
    processes = []

    def start_serving(arguments, environment, name):
        command = commands.pop(0) if commands else version_server(metadata.version("prefect"), port=arguments[-1])
        processes.append(subprocess.Popen(command))
        return processes[-1]

    with socket.socket() as freed:
        freed.bind(("127.0.0.1", 0))
        port = freed.getsockname()[1]

    commands = []
    lines = []
    monkeypatch.setattr("deployments.up.start_bound", start_serving)

    with _Server(port, lines.append) as server:
        yield server, processes, lines, commands


def kill(process):
    process.kill()
    process.wait()


def test_a_server_that_ended_is_started_again_on_its_port(kept_server):
    server, processes, lines, commands = kept_server
    server.provide()
    server.keep()
    assert len(processes) == 1 and lines == []
    kill(processes[0])
    commands.append(["false"])
    server.keep()
    assert len(processes) == 3 and processes[2].poll() is None and version_on(server.port)
    sentence = f"The Prefect server on port {server.port}"
    assert lines == [f"{sentence} has ended; starting another ...", f"{sentence} runs again."]
    server.keep()
    assert len(processes) == 3


def test_a_server_that_was_there_before_and_ended_is_replaced_by_one_of_ours(kept_server):
    server, processes, lines, _ = kept_server
    with subprocess.Popen(version_server(metadata.version("prefect"), port=server.port)) as other:
        while version_on(server.port) is None:
            time.sleep(0.05)
        server.provide()
        server.keep()
        assert processes == [] and "is used; it stays when this stops" in lines[0]
        kill(other)

    server.keep()
    assert len(processes) == 1 and processes[0].poll() is None


def test_a_server_that_cannot_be_started_again_is_a_sentence(kept_server):
    server, processes, _, commands = kept_server
    server.provide()
    kill(processes[0])
    commands += [["false"], ["false"]]
    with pytest.raises(BadInput, match=f"on port {server.port} ended and could not be started .* log is in .*logs"):
        server.keep()


def test_a_damaged_database_is_set_aside_and_another_server_is_started(kept_server):
    server, processes, lines, commands = kept_server
    database = Path(server.environment["PREFECT_HOME"]) / "prefect.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database" * 1000)
    commands.append(["false"])
    server.provide()
    assert len(processes) == 2 and not database.exists()
    (aside,) = database.parent.glob("prefect-damaged-*.db")
    assert len(lines) == 1 and str(database) in lines[0] and aside.name in lines[0]

    with closing(sqlite3.connect(database)) as con:
        con.execute("CREATE TABLE a (b)")
        assert set_damaged_database_aside(database.parent) is None, "held by another program, or sound"
    assert set_damaged_database_aside(database.parent) is None and database.exists()


def test_a_server_that_others_reach_needs_a_password(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(BadInput, match="lets everyone in this network run code here; set PREFECT_SERVER_API_AUTH"):
        refuse_open_server(EVERYWHERE)
    with pytest.raises(BadInput, match=r"--host 10\.0\.0\.1 is not served"):
        refuse_open_server("10.0.0.1")

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "a:b")
    refuse_open_server(EVERYWHERE)
    assert "127.0.0.1" not in _environment(4200, EVERYWHERE)["PREFECT_UI_API_URL"]
    monkeypatch.setattr("deployments.up.version_on", lambda port: metadata.version("prefect"))
    with pytest.raises(BadInput, match="Port 4200 has a Prefect server already, which other machines may not reach"):
        _Server(4200, print, EVERYWHERE).provide()


def test_a_server_that_was_killed_knows_the_leases_that_have_ended_since(tmp_path):
    module = importlib.import_module(_environment(4200)["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"])
    lease = asyncio.run(module.ConcurrencyLeaseStorage(tmp_path).create_lease([uuid4()], timedelta(seconds=-1)))
    started_again = module.ConcurrencyLeaseStorage(tmp_path)
    assert asyncio.run(started_again.read_expired_lease_ids()) == [lease.id]


@pytest.mark.parametrize("is_mac", [True, False])
def test_a_mac_that_keeps_a_program_from_the_local_network_is_named(monkeypatch, is_mac):
    monkeypatch.setattr("deployments.server.is_mac", lambda: is_mac)
    for reason in ("[Errno 65] No route to host", "[Errno 61] Connection refused"):
        with pytest.raises(BadInput, match="No Prefect server answers") as sentence, answering("http://mac1:4200/api"):
            raise NoAnswer(reason)
        assert ("Privacy & Security > Local Network" in str(sentence.value)) == (is_mac and "route" in reason)


def test_the_server_of_a_sweep_asks_for_no_password_and_answers_no_page(monkeypatch):
    started = []
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "fleet:SECRET")
    monkeypatch.setattr(temporary_server.subprocess, "Popen", lambda command, **options: started.append(options))
    with socket.socket() as listener:
        temporary_server._start(listener)
    (options,) = started
    assert "PREFECT_SERVER_API_AUTH_STRING" not in options["env"]
    assert options["env"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1"
