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
import threading
import time
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings

import flows.sweep
from deployments import server as temporary_server
from deployments.interruptions import interrupted_by_signals
from deployments.notify import HEARTBEAT_SECONDS
from deployments.server import BOUND_PROCESS, HOST, ORIGINS, set_damaged_database_aside
from deployments.up import EVERYWHERE, api_url, keep_working, server_environment, up
from deployments.workers import EARLY_ENDS, QUEUES, Worker, give_back_runs, register, worker_name
from flows.experiment import experiment
from flows.selection import Narrowing
from flows.sweep import sweep
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import ACCELERATOR, at_work, locked
from tests.http_server import QuietHandler, http_server, replying


def test_another_program_on_the_port_is_named(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(BadInput, match=f"Port {port} is taken by another program.*choose another port with --port"):
            up(port, print)
    assert not (home() / "logs").exists(), "nothing was started"
    monkeypatch.setattr(temporary_server, "is_open", lambda port: True)
    with pytest.raises(BadInput, match="Port 4200 is taken"):  # a Mac would let it listen, too
        temporary_server.Server({}, print, lambda: None, EVERYWHERE, 4200)


def test_a_second_start_says_where_the_first_is_or_that_it_has_another_port():
    lines = []
    with locked(home() / "server"), http_server(replying('"3.9.1"')) as address:
        port = int(address.rpartition(":")[2])
        up(port, lines.append)
        assert lines == [f"Already running: http://127.0.0.1:{port}."]
        not_there = pytest.raises(BadInput, match="running already, but not on port")
        with http_server(replying("of another program")) as address, not_there:
            up(int(address.rpartition(":")[2]), lines.append)


def test_the_forms_of_the_ui_refuse_a_limit_and_a_seed_that_are_nonsense():
    assert sweep.validate_parameters({"only": {"limit": 1}})["only"] == Narrowing(limit=1)
    for flow, wrong in ((sweep, {"only": {"limit": 0}}), (experiment, {"seed": -1})):
        with pytest.raises(ParameterTypeError, match="greater than or equal to"):
            flow.validate_parameters(wrong)


@contextmanager
def server_that_has(*paths: str, answers: dict[str, object] | None = None):
    """A server that knows these addresses and no other, and these `answers` to requests with a body; yields its own
    address, and the requests with a body as they come. It is too busy for the first request of all."""
    requests = []
    refusals = iter([503])

    class Handler(QuietHandler):
        def do_GET(self):
            self.answer(self.path in paths, DESCRIPTION)

        def do_POST(self):
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.answer(self.path in (answers or {}), (answers or {}).get(self.path))

        do_PATCH = do_POST

        def answer(self, exists, body):
            self.send_response(next(refusals, 200 if exists else 404))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with http_server(Handler) as address:
        yield address, requests


ID = "12345678-1234-1234-1234-123456789abc"
# What Prefect's client needs to read a work pool, a deployment or a run.
DESCRIPTION = {"id": ID, "name": "triage", "type": "process", "default_queue_id": ID, "flow_id": ID}
DESCRIPTION |= {"state": {"type": "RUNNING"}}
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
    workers = [Worker(queue, server_environment(1), lines.append) for queue in QUEUES]

    with pytest.raises(BadInput, match=f"{EARLY_ENDS} consecutive .* in {log}. Fix the problem"):
        keep_working(api_url(1), workers, threading.Event())

    assert all(worker._process.poll() is not None for worker in workers), "none is left"
    first = [line.split("(")[0] for line in lines if "light" not in line]
    assert first == ["Worker default started ", "Worker default ended."] * EARLY_ENDS
    assert "Worker light started" in " ".join(lines) and log.exists()


@pytest.mark.parametrize("host", [HOST, EVERYWHERE])
def test_the_server_answers_pages_of_its_own_alone(host, monkeypatch):
    from prefect.server.api.server import create_app

    monkeypatch.delenv(ORIGINS, raising=False)
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: server_environment(4200, host)[ORIGINS]}):
        server = TestClient(create_app(ignore_cache=True))
    of_this_machine = f"http://{socket.gethostname()}:4200"
    for origin, answers in (
        ("https://evil.example", False),
        ("http://127.0.0.1:4201", False),
        ("http://localhost:4200", True),
        (of_this_machine, host == EVERYWHERE),
    ):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert server.options("/api/deployments/", headers=asked).status_code == (200 if answers else 400), origin


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


def test_a_damaged_database_is_set_aside_and_a_sound_one_stays(tmp_path):
    database = tmp_path / "prefect.db"
    database.write_bytes(b"no database" * 1000)
    sentence = set_damaged_database_aside(tmp_path)
    (aside,) = tmp_path.glob("prefect-damaged-*.db")
    assert not database.exists() and str(database) in sentence and aside.name in sentence

    with closing(sqlite3.connect(database)) as con:
        con.execute("CREATE TABLE a (b)")
        assert set_damaged_database_aside(tmp_path) is None, "held by another program, or sound"
    assert set_damaged_database_aside(tmp_path) is None and database.exists()


def test_a_server_that_others_reach_needs_a_password(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(BadInput, match="lets everyone in this network run code here; set PREFECT_SERVER_API_AUTH"):
        up(4200, print, host=EVERYWHERE)
    with pytest.raises(BadInput, match=r"--host 10\.0\.0\.1 is not served"):
        up(4200, print, host="10.0.0.1")

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "a:b")
    assert "127.0.0.1" not in server_environment(4200, EVERYWHERE)["PREFECT_UI_API_URL"]


def test_a_variable_set_to_nothing_reaches_the_runs_unless_it_has_a_default(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "PREFECT_HOME", ACCELERATOR):
        monkeypatch.setenv(name, "")
    environment = server_environment(4200)
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["PREFECT_HOME"] and environment[ACCELERATOR] == "0"


def test_a_server_that_was_killed_knows_the_leases_that_have_ended_since(tmp_path):
    module = importlib.import_module(server_environment(4200)["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"])
    lease = asyncio.run(module.ConcurrencyLeaseStorage(tmp_path).create_lease([uuid4()], timedelta(seconds=-1)))
    started_again = module.ConcurrencyLeaseStorage(tmp_path)
    assert asyncio.run(started_again.read_expired_lease_ids()) == [lease.id]


def test_the_server_of_a_sweep_asks_for_no_password_and_answers_no_page(monkeypatch):
    started = []
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "fleet:SECRET")
    monkeypatch.setattr(temporary_server, "_may_be_configured", lambda: False)
    monkeypatch.setattr(temporary_server.subprocess, "Popen", lambda command, **options: started.append(options))
    temporary_server.start_temporary_server(print, lambda: None)
    (options,) = started
    assert "PREFECT_SERVER_API_AUTH_STRING" not in options["env"]
    assert options["env"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1"
