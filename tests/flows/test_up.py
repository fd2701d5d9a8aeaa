"""`triage up` where it cannot start or go on, a sentence each, and what it ends, queues again and leaves alone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from fastapi.testclient import TestClient
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_CORS_ALLOWED_ORIGINS, temporary_settings

import flows.nightly
from deployments.interruptions import interrupted_by_signals
from deployments.lost_runs import end_runs, queue_lost_runs
from deployments.prefect_api import HOST, ORIGINS, NoAnswer, prefect_client
from deployments.register import FILE, _deployments, _run_prefect, register
from deployments.started_processes import command_of, end_leftovers, kill_group, start
from deployments.up import (
    EVERYWHERE,
    LostServer,
    _answering,
    _environment,
    _keep_working,
    _Server,
    api_url,
    up,
    version_on,
)
from deployments.worker_names import worker_name
from deployments.workers import EARLY_ENDS
from flows.compare import compare
from flows.experiment import experiment
from flows.sweep import sweep
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import at_work, locked
from tests.http_server import QuietHandler, http_server
from tests.place import ROOT, one_sentence


@contextmanager
def prefect_of(version: str):
    """A server that says it is Prefect of that version; yields its port."""

    class Handler(QuietHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(version).encode())

    with http_server(Handler) as address:
        yield urlsplit(address).port


@pytest.fixture
def busy_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def nothing_was_started() -> bool:
    return not (home() / "logs").exists()


def test_a_server_of_another_version_is_named_with_both_versions(patient):
    own_version = metadata.version("prefect")
    with (
        prefect_of("2.20.1") as port,
        pytest.raises(BadInput, match=rf"of version 2\.20\.1, .* uses {own_version}; stop"),
    ):
        up(port, print)
    assert nothing_was_started()


def test_a_port_that_another_program_has_is_named(busy_port):
    with pytest.raises(BadInput, match=f"Port {busy_port} is taken by another program; choose another with --port"):
        up(busy_port, print)
    assert nothing_was_started()


def test_a_second_start_says_where_the_first_is_or_that_it_has_another_port(patient):
    lines = []
    code = "import sys; from tasks.runtime.home import home; from tasks.runtime.locks import locked\n"
    code += "with locked(home() / 'server'):\n"
    code += "    print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout.readline() == b"held\n"

    with prefect_of("3.9.1") as port:
        assert version_on(port) == "3.9.1"
        up(port, lines.append)

    assert lines == [f"Already running: http://127.0.0.1:{port} (Prefect 3.9.1)."]
    with pytest.raises(BadInput, match="running already, but not on port"):
        up(port, lines.append)

    other.communicate(b"")
    with locked(home() / "server"):
        pass


def test_the_command_says_it_in_one_sentence(busy_port, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up", "--port", str(busy_port)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"TRIAGE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 2 and one_sentence(result.stderr) and "Traceback" not in result.stderr


def test_a_server_that_no_longer_answers_is_a_sentence():
    with socket.socket() as freed:
        freed.bind(("127.0.0.1", 0))
        port = freed.getsockname()[1]
    with (
        pytest.raises(BadInput, match=f"server on port {port} no longer answers .*Connection refused.*run `triage up`"),
        _answering(port),
    ):
        queue_lost_runs(api_url(port), "triage", "default")


def test_a_worker_that_ends_at_once_is_not_started_for_ever_and_the_sentence_says_where_to_read_why(monkeypatch):
    lines = []
    log = home() / "logs" / "prefect-worker.log"
    monkeypatch.setattr("deployments.workers.queue_lost_runs", lambda *args: [])
    monkeypatch.setattr("deployments.up.POLL_SECONDS", 0.01)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))

    with pytest.raises(BadInput, match=f"{EARLY_ENDS} consecutive .* ended within 60 s .* in {log}. Fix the problem"):
        _keep_working(SimpleNamespace(port=1, keep=lambda: None), _environment(1), lines.append)

    first = [line.split("(")[0] for line in lines if "ight" not in line]
    assert first == ["Worker started ", "The worker ended."] * EARLY_ENDS
    assert "Light worker started" in " ".join(lines) and log.with_name("prefect-worker-light.log").exists()
    assert log.exists() and list((home() / "up").iterdir()) == []


def test_a_comparison_before_anything_has_run_says_so_in_its_artifact(monkeypatch):
    published = {}
    monkeypatch.setattr(
        "flows.compare.create_markdown_artifact", lambda key, markdown, description: published.update({key: markdown})
    )
    compare.fn()
    assert published == {"comparison": "# 4 bits against 8 bits\n\nNo rows yet."}
    assert not home().exists(), "a comparison makes no warehouse"


def test_the_forms_of_the_ui_refuse_a_limit_and_a_seed_that_are_nonsense():
    limit = sweep.parameters.properties["limit"]
    seed = experiment.parameters.properties["seed"]
    assert limit["anyOf"] == [{"type": "integer", "minimum": 1}, {"type": "null"}]
    assert (seed["type"], seed["minimum"], seed["exclusiveMaximum"]) == ("integer", 0, 2**32)
    assert sweep.validate_parameters({"limit": 1})["limit"] == 1

    for flow, wrong in ((sweep, {"limit": 0}), (experiment, {"seed": -1})):
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
# What Prefect's client needs to read a work pool or a deployment.
DESCRIPTION = {"id": ID, "name": "triage", "type": "process", "default_queue_id": ID, "flow_id": ID}
WORKERS = "/work_pools/triage/workers/filter"


def worker(name, status="ONLINE"):
    return {"name": name, "status": status, "work_pool_id": ID}


def worker_of(host="here", home_id="0123456789ab", status="ONLINE"):
    return worker(f"triage-{host}-{home_id}", status)


@pytest.mark.parametrize("other", [worker_of(), worker_of(socket.gethostname()), worker("x")])
def test_a_pool_that_a_worker_of_another_home_serves_is_refused_before_anything_is_deployed(other, monkeypatch):
    monkeypatch.setattr("deployments.register._run_prefect", lambda *args: pytest.fail("deployed"))
    workers = [worker(worker_name()), other, worker_of("gone", status="OFFLINE")]
    with server_that_has("/work_pools/triage", answers={WORKERS: workers}) as (api, _):
        sentence = f"pool triage of {api} is served by {other['name']}; choose another port with --port, or stop that"
        with pytest.raises(BadInput, match=sentence):
            register(api, {})


def test_an_own_worker_and_one_that_is_gone_are_no_reason_to_refuse(monkeypatch):
    commands = []
    name = worker_name()
    monkeypatch.setattr(
        "deployments.register._run_prefect", lambda arguments, environment: commands.append(arguments[0])
    )
    monkeypatch.setattr(socket, "gethostname", lambda: "another-network")
    assert worker_name() == f"triage-another-network-{name[-12:]}" != name

    workers = [worker(name), worker(worker_name("light")), worker_of(status="OFFLINE")]
    with server_that_has("/work_pools/triage", answers={WORKERS: workers}) as (api, _):
        register(api, {})

    assert commands == ["deploy"]


def test_two_homes_have_workers_of_different_names(tmp_path, monkeypatch):
    names = [worker_name(), worker_name()]
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "other"))
    assert names[0] == names[1] != worker_name()


def run_of(worker: str | None, state: str = "RUNNING") -> dict[str, object]:
    labels = {} if worker is None else {"prefect.worker.name": worker}
    run = {"id": ID, "flow_id": ID, "name": f"run of {worker}", "state": {"type": state}, "labels": labels}
    return run | {"work_queue_name": "default"}


SET_STATE = f"/flow_runs/{ID}/set_state"
LABELS = f"/flow_runs/{ID}/labels"
ACCEPTED = {"state": None, "status": "ACCEPT", "details": {"type": "accept_details"}}


HERE = worker_of(socket.gethostname())["name"]
ELSEWHERE = worker_of("elsewhere")["name"]


@pytest.mark.parametrize(
    ("taken_by", "queued"),
    [("ours", True), ("ours before the network changed", True), (HERE, True), (ELSEWHERE, False), (None, True),
     ("of a name of its own", True), ("of a name of its own, at work", False)],
)  # fmt: skip
def test_a_lost_run_is_queued_again_unless_it_is_surely_of_another_machine(taken_by, queued):
    own_name = worker_name()
    named = {"ours": own_name, "ours before the network changed": f"triage-before-{own_name[-12:]}"}
    run = run_of(named.get(taken_by, taken_by))
    elsewhere = run_of(own_name) | {"work_queue_name": "light"}

    workers = [worker(own_name), worker("of a name of its own, at work")]
    answers = {"/flow_runs/filter": [run, elsewhere], WORKERS: workers, LABELS: None, SET_STATE: ACCEPTED}
    with server_that_has(answers=answers) as (api, requests):
        assert queue_lost_runs(api, "triage", "default") == ([run["name"]] if queued else [])

    # Else the next machine's run would look lost until that machine has named itself.
    changes = [(path, body) for path, body in requests if path in (LABELS, SET_STATE)]
    assert changes[:1] == ([(LABELS, {"prefect.worker.name": ""})] if queued else [])
    assert states_set(requests) == ([("SCHEDULED", "AwaitingRetry", True)] if queued else [])
    (body,) = [body for path, body in requests if path == "/flow_runs/filter"]
    assert body["flow_runs"]["state"]["type"]["any_"] == ["RUNNING", "PENDING", "CANCELLING"]
    assert body["work_pools"]["name"]["any_"] == ["triage"]


def states_set(requests):
    bodies = [body for path, body in requests if path == SET_STATE]
    return [(body["state"]["type"], body["state"]["name"], body["force"]) for body in bodies]


@pytest.mark.parametrize(("taken", "queued"), [(timedelta(0), False), (timedelta(hours=2), True)])
def test_a_run_that_some_machine_has_just_taken_is_not_lost(taken, queued):
    run = run_of(None, "PENDING")
    run["state"] |= {"timestamp": (datetime.now(UTC) - taken).isoformat()}
    answers = {"/flow_runs/filter": [run], WORKERS: [], LABELS: None, SET_STATE: ACCEPTED}
    with server_that_has(answers=answers) as (api, requests):
        assert queue_lost_runs(api, "triage", None) == ([run["name"]] if queued else [])
    assert len(states_set(requests)) == queued


def test_a_lost_run_that_was_being_cancelled_is_cancelled():
    answers = {"/flow_runs/filter": [run_of(worker_name(), "CANCELLING")], WORKERS: [], SET_STATE: ACCEPTED}
    with server_that_has(answers=answers) as (api, requests):
        queue_lost_runs(api, "triage", "default")
    assert states_set(requests) == [("CANCELLED", "Cancelled", True)]


def test_a_run_with_a_process_of_this_machine_is_not_lost():
    command = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"]
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": ID}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with server_that_has(answers={"/flow_runs/filter": [run_of(worker_name())], WORKERS: []}) as (api, _):
            assert queue_lost_runs(api, "triage", "default") == []
        process.stdin.close()


def test_an_error_of_the_server_comes_with_its_status_and_at_once():
    started = time.monotonic()
    with server_that_has() as (api, _), pytest.raises(NoAnswer, match="status 404") as caught:
        queue_lost_runs(api, "triage", "default")
    assert caught.value.status == 404 and time.monotonic() - started < 10


def test_schedules_are_given_to_new_deployments_only_and_what_the_server_has_stays():
    with server_that_has() as (api, _), prefect_client(api) as client:
        assert _deployments(client) == FILE
    with server_that_has("/deployments/name/sweep/local") as (api, _), prefect_client(api) as client:
        file = _deployments(client)

    first, again = (yaml.safe_load(path.read_text())["deployments"] for path in (FILE, file))
    assert [(s["slug"], s["active"]) for s in first[-1]["schedules"]] == [("nightly", True)]
    schedules = [(s["slug"], s["active"], s["parameters"]) for s in first[0].pop("schedules")]
    assert schedules == [("weekly-paper", False, {"grid": "paper"})]
    assert again == first, "nothing else differs"


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


def test_a_server_that_others_may_not_reach_is_no_fleets(monkeypatch):
    monkeypatch.setattr("deployments.up.version_on", lambda port: metadata.version("prefect"))
    with pytest.raises(BadInput, match="Port 4200 has a Prefect server already, which other machines may not reach"):
        _Server(4200, {}, print, EVERYWHERE).provide()


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
    monkeypatch.setattr(flows.nightly, "run_deployment", lambda name, **options: queued.append(name))
    with (
        server_that_has(answers={"/flow_runs/filter": runs}) as (api, requests),
        temporary_settings({PREFECT_API_URL: api}),
        at_work() if works else nullcontext(),
    ):
        state = flows.nightly.nightly.fn("demo")

    (asked,) = (body["flow_runs"] for _, body in requests)
    assert "SCHEDULED" in asked["state"]["type"]["any_"] and asked["expected_start_time"]["before_"]
    assert (state.type.value, queued) == (("CANCELLED", []) if message else ("COMPLETED", ["sweep/local"]))
    assert state.message.startswith(message or "sweep/local is queued")


def test_a_set_up_that_fails_on_a_fresh_home_says_where_to_read_why():
    with pytest.raises(BadInput, match="`prefect no-such command` failed; its output is in .*prefect-setup.log"):
        _run_prefect(["no-such", "command"], _environment(1))
    assert "no-such" in (home() / "logs" / "prefect-setup.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_interrupts_as_ctrl_c_does_and_what_was_set_before_comes_back(number):
    before = signal.signal(number, signal.SIG_DFL)  # whatever started the tests may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_study_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


WAITS = "import sys, time\nif '--for-ever' in sys.orig_argv:\n    time.sleep(300)\n"


def test_what_a_killed_start_left_is_ended_and_a_process_that_has_its_number_by_now_is_not(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    with ExitStack() as stack:
        path = {"PYTHONPATH": str(tmp_path)}
        leftover = start(stack, ["worker", "start", "--for-ever"], os.environ | path, "worker")
        stack.pop_all()  # as if killed: nothing is tidied up

    deadline = time.monotonic() + 60
    while "--for-ever" not in command_of(leftover.pid) and time.monotonic() < deadline:
        time.sleep(0.02)  # just started, it may still have its parent's command

    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    record = next((home() / "up").iterdir())
    note = json.loads(record.read_text())
    assert note == {"pid": leftover.pid, "command": "worker start --for-ever"}
    record.with_name(record.name + "-2").write_text(json.dumps(note | {"pid": other.pid}))
    record.with_name(record.name + "-3").write_text("{")
    reused = record.with_name(record.name + "-4")
    reused.write_text(json.dumps({"pid": other.pid, "command": "sys.stdin.read()"}))
    os.utime(reused, (0, 0))  # the process started long after its record was written

    try:
        assert end_leftovers(home()) == [leftover.pid]
        assert leftover.wait(10) == -signal.SIGKILL and other.poll() is None
        assert list((home() / "up").iterdir()) == []
    finally:
        other.communicate(b"")


@pytest.fixture
def killpg_of_macos(monkeypatch):
    """XNU refuses a signal to a process group of which only zombies are left."""
    real = os.killpg

    def killpg(group, number):
        if psutil.pid_exists(group) and psutil.Process(group).status() == psutil.STATUS_ZOMBIE:
            raise PermissionError(1, "Operation not permitted")
        real(group, number)

    monkeypatch.setattr(os, "killpg", killpg)


def test_on_macos_a_process_that_has_ended_already_is_no_error(tmp_path, killpg_of_macos):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)\n")
    with ExitStack() as stack:
        process = start(stack, ["worker", "start"], os.environ | {"PYTHONPATH": str(tmp_path)}, "worker")
        deadline = time.monotonic() + 60
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(PermissionError):
            os.killpg(process.pid, 0)
        kill_group(process.pid)

    assert process.returncode == 3 and list((home() / "up").iterdir()) == []


def test_on_macos_a_running_process_is_ended(tmp_path, killpg_of_macos):
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    with ExitStack() as stack:
        process = start(stack, ["--for-ever"], os.environ | {"PYTHONPATH": str(tmp_path)}, "server")
    assert process.returncode == -signal.SIGTERM


SERVES = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Version(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())

HTTPServer(("127.0.0.1", int(sys.argv[1])), Version).serve_forever()
"""


@pytest.fixture
def kept_server(monkeypatch, patient):
    """The server of `triage up`, of which only the process is replaced; its processes as they are started."""
    processes = []

    def start_serving(stack, arguments, environment, name):
        version = json.dumps(metadata.version("prefect"))
        command = [sys.executable, "-c", SERVES, arguments[-1], version]
        processes.append(subprocess.Popen(commands.pop(0) if commands else command))
        stack.callback(processes[-1].wait)
        stack.callback(processes[-1].kill)
        return processes[-1]

    with socket.socket() as freed:
        freed.bind(("127.0.0.1", 0))
        port = freed.getsockname()[1]

    commands = []
    lines = []
    monkeypatch.setattr("deployments.up.start", start_serving)

    with _Server(port, {}, lines.append) as server:
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
    command = [sys.executable, "-c", SERVES, str(server.port), json.dumps(metadata.version("prefect"))]
    with subprocess.Popen(command) as other:
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
    with pytest.raises(LostServer, match=f"on port {server.port} ended and could not be started .* log is in .*logs"):
        server.keep()


def test_the_worker_ends_with_a_server_that_cannot_be_started_again(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(300)\n")
    lines = []
    workers = []

    def keep():
        workers.extend(line for line in lines if line.startswith("Worker started"))
        if workers:
            raise LostServer("It ended.")

    monkeypatch.setattr("deployments.workers.queue_lost_runs", lambda *args: [])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    environment = _environment(1) | {"PYTHONPATH": str(tmp_path)}

    try:
        with pytest.raises(LostServer, match="It ended"):
            _keep_working(SimpleNamespace(port=1, keep=keep), environment, lines.append)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert not command_of(int(workers[0].split("process ")[1].split(")")[0]))


@pytest.mark.parametrize("name", ["home", "my own home"])
def test_only_flow_runs_of_this_triage_home_and_server_are_ended(tmp_path, name):
    api = api_url(1)
    folder = f"{tmp_path}/{name}"
    command = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()", "prefect.engine"]
    of_run = {"PREFECT__FLOW_RUN_ID": "a", "PREFECT_API_URL": api, "TRIAGE_HOME": folder}
    other_environments = [{"TRIAGE_HOME": f"{folder}{end}"} for end in ("/other", " of others", " of/others")]
    other_environments += [{"PREFECT_API_URL": api_url(2)}]
    runs = [
        subprocess.Popen(command, env=os.environ | of_run | other, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for other in (*other_environments, {})
    ]

    try:
        for run in runs:
            run.stdout.readline()  # until it has written, a list of processes may show its parent's command
        end_runs(api, Path(folder))
        assert runs[-1].wait(10) == -signal.SIGKILL and [run.poll() for run in runs[:-1]] == [None] * len(
            other_environments
        )
    finally:
        for run in runs:
            run.communicate()
