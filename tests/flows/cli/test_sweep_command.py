"""How a sweep ends: exit code 1 where an experiment failed, a sentence where the user must fix something."""

import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from prefect.states import Completed, Failed
from rich.console import Console

from deployments import temporary_server
from flows.cli import run
from flows.selection import select
from tasks.progress import listeners, publish
from tasks.runtime.errors import BadInput, Diverged, LostChild, SourceUnavailable, TriageError
from tasks.runtime.events import ExperimentFailed
from tasks.runtime.store import home
from tests.place import Place, one_sentence


@pytest.fixture
def ends_with(monkeypatch):
    """Runs a sweep of which only the flow is replaced: by one whose experiments fail with the given errors."""
    import flows.sweep

    def run_it(*errors: Exception) -> int:
        def flow(*args, **kwargs):
            for error in errors:
                publish("land x", ExperimentFailed(str(error), error))
            return Failed(message="not all") if errors else Completed(message="all")

        monkeypatch.setattr(flows.sweep, "sweep", flow)
        monkeypatch.setattr(run, "start_temporary_server", lambda: nullcontext)
        return run.run_sweep(Console(quiet=True), select("smoke"), "smoke")

    return run_it


@pytest.mark.parametrize("errors", [[Diverged("a")], [LostChild("a"), BadInput("b")], [RuntimeError("a")]])
def test_a_failed_experiment_is_exit_code_one(errors, ends_with):
    assert ends_with(*errors) == 1


def test_all_done_is_exit_code_zero(ends_with):
    assert ends_with() == 0 and listeners == []


def test_what_the_user_must_fix_is_printed_once_however_many_experiments_it_stopped(ends_with):
    with pytest.raises(BadInput, match=r"^The disk is full\.$"):
        ends_with(*[BadInput("The disk is full.")] * 60)
    with pytest.raises(BadInput, match=r"^A\. B\.$"):
        ends_with(BadInput("A."), SourceUnavailable("B."), BadInput("A."))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 KiB; made where the tests may mount one."""
    folder = tmp_path / "place" / "home"
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("no right to mount a file system")
    yield Place(tmp_path / "place")
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_is_a_sentence_and_nothing_half_made_stays(small_disk):
    found = small_disk.run("sweep", "smoke")
    assert (
        found.returncode == 2 and one_sentence(found.stderr) and found.stderr.startswith("triage: The disk is full: ")
    )
    assert [p for p in small_disk.home.rglob("*") if p.is_file()] == []


def test_a_server_is_ended_only_if_its_sweep_is_dead_and_it_is_a_server(tmp_path):
    """Numbers of processes are used again: a record may name one that is something else by now."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        records = home() / "servers"
        records.mkdir(parents=True)
        ours, dead = (records / f"{socket.gethostname()}-{pid}" for pid in (os.getpid(), ended.pid))
        elsewhere = records / f"another-machine-{ended.pid}"
        for record in (ours, dead, elsewhere):
            record.write_text(str(bystander.pid))
        temporary_server.end_orphaned_servers(home())
        assert bystander.poll() is None
        assert sorted(records.iterdir()) == sorted([ours, elsewhere])
    finally:
        bystander.kill()


def test_sigterm_ends_a_sweep_as_ctrl_c_does_and_prefects_server_with_it(place):
    process = place.start("sweep", "smoke", "--limit", "1")
    deadline = time.monotonic() + 200
    while "weights  tiny-llama" not in (place.folder / "out").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    (record,) = (place.home / "servers").iterdir()
    server = int(record.read_text())
    assert temporary_server.SERVER in temporary_server.command_of(server)
    process.terminate()
    found = place.finish(process)
    assert found.returncode == 130 and one_sentence(found.stderr) and "run the same command again" in found.stderr
    deadline = time.monotonic() + 20
    while temporary_server.SERVER in temporary_server.command_of(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert temporary_server.SERVER not in temporary_server.command_of(server)
    assert list((place.home / "servers").iterdir()) == []


@pytest.mark.parametrize("name", ["profiles.toml", ".env", "prefect.toml", "pyproject.toml"])
def test_prefect_is_asked_for_a_server_wherever_one_may_be_configured(name, tmp_path, monkeypatch):
    for variable in temporary_server.NAMES_A_SERVER:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delitem(sys.modules, "prefect.context")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not temporary_server._may_be_configured()
    (tmp_path / name).write_text("[project]\n")
    assert temporary_server._may_be_configured() == (name != "pyproject.toml")
    (tmp_path / name).write_text('[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"\n')
    assert temporary_server._may_be_configured()


def test_a_server_in_a_profile_is_used_and_none_started(place):
    profile = place.folder / "own" / "profiles.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text('active = "own"\n[profiles.own]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n')
    found = place.run("sweep", "smoke", PREFECT_HOME=str(profile.parent))
    assert found.returncode == 2 and one_sentence(found.stderr)
    assert "no server answers at http://127.0.0.1:9" in found.stderr
    assert not (place.home / "servers").exists()


ANSWERS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Version(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"3.9.1"')

HTTPServer(("127.0.0.1", int(sys.argv[1])), Version).serve_forever()
"""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Prefect's server, of which only the process is replaced: by ones of the given commands, one at each start."""

    def start(*commands: list[str]) -> temporary_server._Server:
        left = list(commands)
        monkeypatch.setattr(temporary_server, "_start", lambda port: subprocess.Popen([*left.pop(0), str(port)]))
        server = temporary_server._Server(tmp_path / "record")
        server.start()
        ends.append(server.end)
        return server

    ends: list = []
    yield start
    for end in ends:
        end()


def test_a_server_that_ends_at_once_twice_is_one_sentence(started):
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(TriageError, match=r"did not start \(it ended with code 3\).*Run the same command again"):
        started(fails, fails).wait(60)
    with pytest.raises(TriageError, match=r"did not start \(it does not answer\)"):
        started(["sleep"]).wait(0.2)


def test_a_server_that_ends_at_once_as_where_its_port_is_taken_is_started_again_on_another(started, tmp_path):
    server = started(["false"], [sys.executable, "-c", ANSWERS])
    taken, first = server.port, (tmp_path / "record").read_text()
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        server.wait(60)
    assert server.port != taken and (tmp_path / "record").read_text() != first
    server.end()
    assert not (tmp_path / "record").exists()
