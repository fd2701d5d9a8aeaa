"""`triage up` where it cannot start: a sentence each, before anything is started."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from threading import Thread

import pytest

from deployments.lost_runs import end_runs
from deployments.up import _lost_runs, api_url, server_version, up
from tasks.runtime.errors import BadInput
from tasks.runtime.store import home, locked
from tests.flows.conftest import ROOT, one_sentence


@contextmanager
def prefect_of(version: str):
    """A server that says it is Prefect of that version; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(version).encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def busy_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def nothing_was_started() -> bool:
    return not (home() / "logs").exists()


def test_a_server_of_another_version_is_named_with_both_versions():
    ours = metadata.version("prefect")
    with prefect_of("2.20.1") as port, pytest.raises(BadInput, match=rf"of version 2\.20\.1, .* uses {ours}; stop"):
        up(port, print)
    assert nothing_was_started()


def test_a_port_that_another_program_has_is_named(busy_port):
    with pytest.raises(BadInput, match=f"Port {busy_port} is taken by another program; choose another with --port"):
        up(busy_port, print)
    assert nothing_was_started()


def test_a_second_start_says_where_the_first_is_or_that_it_has_another_port():
    said = []
    code = "import sys; from pathlib import Path; from tasks.runtime.store import *\nwith locked(home() / 'server'):\n"
    code += "    print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout.readline() == b"held\n"
    with prefect_of("3.9.1") as port:
        assert server_version(port) == "3.9.1"
        up(port, said.append)
    assert said == [f"Already running: http://127.0.0.1:{port} (Prefect 3.9.1)."]
    with pytest.raises(BadInput, match="running already, but not on port"):
        up(port, said.append)
    other.communicate(b"")
    with locked(home() / "server"):
        pass


def test_the_command_says_it_in_one_sentence(busy_port, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up", "--port", str(busy_port)], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"TRIAGE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and one_sentence(done.stderr) and "Traceback" not in done.stderr


def test_a_server_that_no_longer_answers_is_a_sentence():
    with socket.socket() as freed:
        freed.bind(("127.0.0.1", 0))
        port = freed.getsockname()[1]
    with pytest.raises(BadInput, match=f"server on port {port} no longer answers .URLError.*run `triage up`"):
        _lost_runs(port)


def test_only_flow_runs_of_this_triage_home_and_server_are_ended(tmp_path):
    api = api_url(1)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "prefect.engine"]
    own = {"PREFECT__FLOW_RUN_ID": "a", "PREFECT_API_URL": api, "TRIAGE_HOME": str(tmp_path)}
    others = ({"TRIAGE_HOME": f"{tmp_path}/other"}, {"PREFECT_API_URL": api_url(2)}, {})
    runs = [subprocess.Popen(command, env=os.environ | own | other, stdin=subprocess.PIPE) for other in others]
    try:
        end_runs(api, tmp_path)
        assert runs[2].wait(10) == -signal.SIGKILL and [run.poll() for run in runs[:2]] == [None, None]
    finally:
        for run in runs:
            run.communicate()
