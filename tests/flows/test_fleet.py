"""`triage join`, `triage fleet` and the server of a fleet: what they refuse, write and show."""

import asyncio
import importlib
import os
import plistlib
import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments import fleet as fleet_module
from deployments import fleet_status, fleet_units
from deployments.fleet import enter
from deployments.fleet_status import machines
from deployments.pool_versions import code_digest, versions_here
from deployments.started_processes import UP, end_leftovers
from deployments.up import EVERYWHERE, _environment, refuse_open_server
from deployments.worker_names import host_of, worker_name
from deployments.workers import JOIN
from flows.cli import fleet as command
from flows.cli.run import refuse_pool
from flows.experiment import _run as run_experiment
from flows.selection import Narrowing, select
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tests.flows.test_pool import Server, within


@pytest.fixture
def server(monkeypatch):
    fake_server = Server()
    monkeypatch.setattr(fleet_module, "prefect_client", lambda api, **options: within(fake_server))
    monkeypatch.setattr(fleet_module, "server_version", lambda api, seconds: versions_here()["prefect"])
    monkeypatch.setattr(fleet_module, "_make_pool", lambda client, pool: fake_server.pools.add(pool))
    fake_server.create_variable = lambda variable: created(fake_server, variable.value)
    fake_server.update_variable = lambda variable: setattr(fake_server, "versions", variable.value)
    fake_server.workers = {}

    return fake_server


def created(server, versions):
    if server.versions is not None:
        raise ObjectAlreadyExists(None)
    server.versions = versions


def test_of_two_machines_that_come_first_at_once_one_decides(server, monkeypatch):
    server.versions = None
    other_versions = {**versions_here(), "mlx": "0.1"}
    server.create_variable = lambda variable: [
        setattr(server, "versions", other_versions),
        created(server, variable.value),
    ]
    server.workers = {"triage-mac1-000000000000": "ONLINE"}

    with pytest.raises(BadInput, match="mlx .* here and 0.1 there"):
        enter("http://server/api", "new")

    server.versions = None
    other_versions = versions_here()
    enter("http://server/api", "new")


def test_the_first_machine_decides_the_versions_of_a_pool_and_another_one_is_refused_by_name(server):
    server.versions = None
    enter("http://server/api", "new")
    assert server.pools == {"fleet", "new"} and server.versions == versions_here()

    server.versions = {**versions_here(), "backend": "metal", "triage": "0123456789ab"}
    server.workers = {"triage-mac1-000000000000": "ONLINE"}

    words = f"backend {versions_here()['backend']} here and metal there, triage {code_digest()} here and 0123456789ab"
    with pytest.raises(BadInput, match=f"cannot join the work pool new: {words} there; bring both"):
        enter("http://server/api", "new")


def test_a_pool_that_everyone_has_left_takes_other_versions(server):
    server.versions = {**versions_here(), "mlx": "0.1"}
    server.workers = {"triage-mac1-000000000000": "OFFLINE", worker_name(): "ONLINE"}
    enter("http://server/api", "fleet")
    assert server.versions == versions_here()


def test_a_server_of_another_version_is_named(server, monkeypatch):
    monkeypatch.setattr(fleet_module, "server_version", lambda api, seconds: "3.0.0")
    with pytest.raises(BadInput, match="is Prefect 3.0.0, and this machine has"):
        enter("http://server/api", "fleet")


def test_two_machines_with_different_shared_folders_are_no_fleet(server, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / "one"))
    enter("http://server/api", "fleet")
    server.workers = {"triage-mac1-000000000000": "ONLINE"}
    enter("http://server/api", "fleet")
    monkeypatch.setenv("TRIAGE_SHARED", str(tmp_path / "two"))
    with pytest.raises(BadInput, match="shared folder [0-9a-f]{12} here and [0-9a-f]{12} there"):
        enter("http://server/api", "fleet")


def test_a_server_that_others_reach_needs_a_password(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(BadInput, match="lets everyone in this network run code here; set PREFECT_SERVER_API_AUTH"):
        refuse_open_server(EVERYWHERE)
    with pytest.raises(BadInput, match=r"--host 10\.0\.0\.1 is not served"):
        refuse_open_server("10.0.0.1")

    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "a:b")
    refuse_open_server(EVERYWHERE)
    assert "127.0.0.1" not in _environment(4200, EVERYWHERE)["PREFECT_UI_API_URL"]


@pytest.mark.parametrize("password", [None, "fleet:WRONG"])
def test_a_machine_without_the_password_is_told_what_to_set(password):
    headers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            headers.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, temporary_settings({PREFECT_API_AUTH_STRING: password}):
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        sentence = rf"{api} refuses the request \(status 401\); set PREFECT_API_AUTH_STRING to the user and password"
        with pytest.raises(BadInput, match=sentence):
            enter(api, "fleet")
        with pytest.raises(BadInput, match=sentence), temporary_settings({PREFECT_API_URL: api}):
            refuse_pool("fleet")
        server.shutdown()

    assert len(headers) >= 2 and {bool(header) for header in headers} == {password is not None}


def test_a_server_that_was_killed_knows_the_leases_that_have_ended_since(tmp_path):
    module = importlib.import_module(_environment(4200)["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"])
    lease = asyncio.run(module.ConcurrencyLeaseStorage(tmp_path).create_lease([uuid4()], timedelta(seconds=-1)))
    started_again = module.ConcurrencyLeaseStorage(tmp_path)
    assert asyncio.run(started_again.read_expired_lease_ids()) == [lease.id]


def test_the_table_tells_by_the_servers_clock_who_is_there_and_what_they_do(monkeypatch, capsys):
    server_time = datetime(2030, 1, 1, 12, tzinfo=UTC)  # whatever this machine's clock says

    class Client:
        def request(self, method, path):
            return SimpleNamespace(headers={"date": server_time.strftime("%a, %d %b %Y %H:%M:%S GMT")})

        def read_work_pools(self):
            return [SimpleNamespace(name="fleet")]

        def read_workers_for_work_pool(self, pool):
            states = {"triage-mac1-0123456789ab": ("ONLINE", 20), "triage-mac2-0123456789ab": ("OFFLINE", 7200)}
            return [
                SimpleNamespace(
                    name=name, status=SimpleNamespace(value=state), last_heartbeat_time=server_time - timedelta(seconds=s)
                )
                for name, (state, s) in states.items()
            ]  # fmt: skip

        def read_flow_runs(self, flow_run_filter):
            return [SimpleNamespace(name="a 4bit", labels={"prefect.worker.name": "triage-mac1-0123456789ab"})]

    monkeypatch.setattr(fleet_status, "prefect_client", lambda api, **options: within(Client()))
    monkeypatch.setattr("deployments.prefect_api.configured_api", lambda: "http://server/api")
    assert [machine.seconds for machine in machines("http://server/api")] == [20, 7200]
    command.fleet()
    lines = capsys.readouterr().out.splitlines()
    assert re.search("mac1 +online +20 s ago +a 4bit", lines[1]) and re.search("mac2 +offline +2.0 h ago", lines[2])
    assert host_of("by-hand") == "by-hand"


AWKWARD = {"TRIAGE_HOME": "/Users/Zoë M/tri%age $1", "TRIAGE_SHARED": 's3://a/"b"'}
ARGUMENTS = ["/opt/my tools/triage", "join", "http://mac1:4200", "--pool", "fleet"]


def test_a_unit_of_systemd_says_what_was_meant(tmp_path):
    unit = fleet_units.systemd_unit(ARGUMENTS, "fleet", AWKWARD)
    lines = unit.text.splitlines()
    assert 'Environment="TRIAGE_HOME=/Users/Zoë M/tri%%age $1"' in lines
    assert 'ExecStart="/opt/my tools/triage" "join" "http://mac1:4200" "--pool" "fleet"' in lines
    assert 'Environment="TRIAGE_SHARED=s3://a/\\"b\\""' in lines and "Restart=always" in lines
    assert "systemctl --user enable --now triage-fleet.service" in unit.commands


def test_an_agent_of_launchd_runs_the_command_with_its_variables(tmp_path, monkeypatch):
    printing = ["printf", "%s|", "a b", "--pool"]
    unit = fleet_units.launchd_unit(printing, "fleet", AWKWARD)
    content = plistlib.loads(unit.text.encode())
    assert content["EnvironmentVariables"] == AWKWARD and content["KeepAlive"]
    result = subprocess.run(content["ProgramArguments"], capture_output=True, text=True)
    assert result.stdout == "a b|--pool|" and shlex.split(unit.commands[0])[-1] == str(unit.path)


def test_credentials_are_never_written_into_a_unit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "fleet:SECRET")
    monkeypatch.setenv("TRIAGE_NOTIFY", "mailto://user:SECRET@example.com")
    monkeypatch.setenv("HF_TOKEN", "SECRET")
    monkeypatch.setenv("TRIAGE_SHARED", "/mnt/shared")
    monkeypatch.setattr(fleet_units.shutil, "which", lambda *args, **options: "/bin/triage")
    unit = fleet_units.install("http://mac1:4200/api", "fleet")
    text = unit.path.read_text()
    assert "SECRET" not in text and "/mnt/shared" in text and str(home()) in text and "http://mac1:4200" in text


def test_up_and_join_of_one_home_do_not_end_each_others_processes():
    record = home() / UP / "host-server"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert end_leftovers(home(), JOIN) == [] and record.exists()


class Left(Exception):
    """The block was left here."""


def leave(*arguments, **options):
    raise Left


@pytest.mark.parametrize("start", ["join", "experiment"])
def test_a_machine_removes_what_its_killed_runs_left_when_it_joins_and_with_every_experiment(start, monkeypatch):
    leftover = home() / "models" / ".tmp-made-0123456789ab"
    leftover.mkdir(parents=True)
    os.utime(leftover, (0, 0))
    monkeypatch.setattr(fleet_module, "Worker", leave)
    monkeypatch.setattr("flows.experiment.label_run", leave)

    with pytest.raises(Left):
        if start == "join":
            fleet_module._work("http://server/api", "fleet", print)
        else:
            run_experiment(select("smoke", None, Narrowing(limit=1)))

    assert not leftover.exists()
