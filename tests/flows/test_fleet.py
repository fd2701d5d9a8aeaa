"""`triage join`, `triage fleet` and the server of a fleet: what they refuse, write and show."""

import asyncio
import importlib
import os
import plistlib
import re
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments import fleet as fleet_module
from deployments import fleet_status, fleet_units, started_processes, temporary_server
from deployments.fleet import enter
from deployments.fleet_status import machines
from deployments.machine_id import machine_id
from deployments.pool_versions import code_digest, versions_here
from deployments.prefect_api import NoAnswer, answering
from deployments.started_processes import UP, end_leftovers
from deployments.up import EVERYWHERE, _environment, refuse_open_server
from deployments.worker_names import host_of, worker_name
from deployments.workers import JOIN
from flows.cli.machine import fleet as command
from flows.cli.sweeps.run import refuse_pool
from flows.experiment import _run as run_experiment
from flows.selection import Narrowing, select
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tests.flows.test_pool import Server, within
from tests.http_server import QuietHandler, http_server


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

    class Handler(QuietHandler):
        def do_GET(self):
            headers.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()

    with http_server(Handler) as address, temporary_settings({PREFECT_API_AUTH_STRING: password}):
        api = f"{address}/api"
        sentence = rf"{api} refuses the request \(status 401\); set PREFECT_API_AUTH_STRING to the user and password"
        with pytest.raises(BadInput, match=sentence):
            enter(api, "fleet")
        with pytest.raises(BadInput, match=sentence), temporary_settings({PREFECT_API_URL: api}):
            refuse_pool("fleet")

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
    enable, restart, linger = unit.commands
    assert enable == "systemctl --user enable triage-fleet.service"
    assert restart == "systemctl --user restart triage-fleet.service", "in place of a service that runs"
    assert linger == "loginctl enable-linger"


def test_an_agent_of_launchd_runs_the_command_with_its_variables(tmp_path, monkeypatch):
    printing = ["printf", "%s|", "a b", "--pool"]
    unit = fleet_units.launchd_unit(printing, "fleet", AWKWARD)
    content = plistlib.loads(unit.text.encode())
    assert content["EnvironmentVariables"] == AWKWARD and content["KeepAlive"]
    result = subprocess.run(content["ProgramArguments"], capture_output=True, text=True)
    assert result.stdout == "a b|--pool|" and str(unit.path) in shlex.split(unit.commands[-1])


SECRETS = b"""\
# The password of the fleet
A-B C=no name
2D=no name
PREFECT_API_AUTH_STRING=fleet:a$HOME b;c `d` "e" \\f=g
EMPTY=
QUOTED="as systemd reads it; $HOME"
LAST=without a line's end"""


@pytest.mark.parametrize("shell", ["/bin/sh", "bash --posix"])
def test_an_agent_reads_secrets_as_text_whatever_they_mean_to_a_shell(tmp_path, monkeypatch, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets = tmp_path / fleet_units.SECRETS_FILE
    secrets.parent.mkdir(parents=True)
    secrets.write_bytes(SECRETS)

    names = ["PREFECT_API_AUTH_STRING", "EMPTY", "QUOTED", "LAST"]
    printing = [sys.executable, "-c", "import os, sys; print(*(os.environ[n] for n in sys.argv[1:]), sep='|')", *names]
    program = plistlib.loads(fleet_units.launchd_unit(printing, "fleet", {}).text.encode())["ProgramArguments"]
    assert program[0] == "/bin/sh"
    result = subprocess.run([*shell.split(), *program[1:]], capture_output=True, text=True)
    values = ['fleet:a$HOME b;c `d` "e" \\f=g', "", "as systemd reads it; $HOME", "without a line's end"]
    assert (result.stdout, result.stderr) == ("|".join(values) + "\n", "")


def test_an_agent_is_not_throttled_and_writes_its_log_where_launchd_may(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRIAGE_HOME", "/Volumes/external/triage")
    content = plistlib.loads(fleet_units.launchd_unit(ARGUMENTS, "fleet", {}).text.encode())
    assert content["ProcessType"] == "Interactive"
    log = str(tmp_path / "Library" / "Logs" / "org.triage.fleet.log")
    assert content["StandardOutPath"] == content["StandardErrorPath"] == log


@pytest.mark.parametrize("code", [0, 125])
def test_an_agent_takes_the_place_of_an_earlier_one_and_a_refusal_says_why(tmp_path, code):
    launchctl = tmp_path / "launchctl"
    launchctl.write_text(
        f'#!/bin/sh\necho "$@"\n[ $1 = bootout ] && echo "No such process" >&2 && exit 3\nexit {code}\n'
    )
    launchctl.chmod(0o700)

    unit = fleet_units.launchd_unit(ARGUMENTS, "fleet", {})
    script = f"set -e; {'; '.join(unit.commands)}"
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run(["/bin/sh", "-c", script], env=path, capture_output=True, text=True)

    bootout, bootstrap, *refusal = result.stdout.splitlines()
    domain = f"gui/{os.getuid()}"
    assert (bootout, bootstrap) == (f"bootout {domain}/org.triage.fleet", f"bootstrap {domain} {unit.path}")
    assert (result.returncode, result.stderr) == (1 if code else 0, "")
    assert refusal == ([fleet_units.REFUSED] if code else [])
    assert "at login, not at boot" in unit.commands[-1] and "automatic login" in unit.commands[-1]


@pytest.mark.parametrize(
    ("mac", "reason", "named"),
    [(True, "[Errno 65] No route to host", True), (False, "[Errno 113] No route to host", False),
     (True, "[Errno 61] Connection refused", False)],
)  # fmt: skip
def test_a_mac_that_keeps_a_program_from_the_local_network_is_named(monkeypatch, mac, reason, named):
    monkeypatch.setattr("deployments.prefect_api.is_mac", lambda: mac)
    with pytest.raises(BadInput) as sentence, answering("http://mac1:4200/api"):
        raise NoAnswer(reason)

    privacy = (
        "; or macOS keeps this program from the local network: allow it under System Settings > "
        "Privacy & Security > Local Network, or run it from Terminal"
    )
    ending = f"({reason}); start one with `triage up`, or correct the address{privacy if named else ''}."
    assert str(sentence.value) == f"No Prefect server answers at http://mac1:4200/api {ending}"


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


def test_a_password_of_the_shared_folder_is_no_part_of_a_unit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRIAGE_SHARED", "sftp://ann:SECRET@nas.local/lab")
    monkeypatch.setattr(fleet_units.shutil, "which", lambda *args, **options: "/bin/triage")
    with pytest.raises(BadInput, match="TRIAGE_SHARED holds a password, and others may read a unit file") as caught:
        fleet_units.install("http://mac1:4200/api", "fleet")
    assert "SECRET" not in str(caught.value) and not (tmp_path / ".config").exists()


def test_a_unit_names_folders_by_their_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("TRIAGE_SHARED", "TRIAGE_WAREHOUSE", "HF_HOME", "PREFECT_HOME"):
        monkeypatch.setenv(name, "lab/one")
        assert fleet_units.environment()[name] == str(tmp_path.resolve() / "lab" / "one")
    monkeypatch.setenv("TRIAGE_SHARED", "s3://lab/one")
    assert fleet_units.environment()["TRIAGE_SHARED"] == "s3://lab/one"


def test_the_server_of_a_sweep_asks_for_no_password_and_answers_no_page(monkeypatch):
    started = []
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "fleet:SECRET")
    monkeypatch.setattr(temporary_server.subprocess, "Popen", lambda command, **options: started.append(options))
    with temporary_server._listener() as listener:
        temporary_server._start(listener)
    (options,) = started
    assert "PREFECT_SERVER_API_AUTH_STRING" not in options["env"]
    assert options["env"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1"


def test_records_of_a_machine_whose_name_begins_alike_are_its_own(monkeypatch):
    monkeypatch.setattr(started_processes, "machine_id", lambda: "gpu")
    monkeypatch.setattr(temporary_server, "machine_id", lambda: "gpu")
    paths = [home() / UP / "gpu-2-server", home() / "servers" / "gpu-2-1073741824"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    assert end_leftovers(home()) == [] and temporary_server.running_sweeps(home()) == []
    temporary_server.end_orphaned_servers(home())
    assert all(path.exists() for path in paths)


def test_up_and_join_of_one_home_do_not_end_each_others_processes():
    record = home() / UP / "host-server"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert end_leftovers(home(), JOIN) == [] and record.exists()


IOREG = """+-o J314sAP  <class IOPlatformExpertDevice, id 0x100000226, registered, matched, active>
    {
      "manufacturer" = <"Apple Inc.">
      "IOPlatformUUID" = "0A1B2C3D-0000-1111-2222-333344445555"
    }
"""


@pytest.fixture
def networks(monkeypatch):
    """Host names, of which this machine has another one each time that it is asked."""
    names = (f"network-{number}" for number in count())
    monkeypatch.setattr(socket, "gethostname", lambda: next(names))
    machine_id.cache_clear()
    yield
    machine_id.cache_clear()


def answer_of_ioreg(command, **options):
    assert command[0] == "/usr/sbin/ioreg"
    return subprocess.CompletedProcess(command, 0, IOREG)


def refused_ioreg(command, **options):
    raise OSError("no such program")


class RecordOnly:
    """A temporary server that only writes its record."""

    def __init__(self, record, say, on_loss):
        self.record = record

    def start(self):
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.write_text(str(2**30))

    def end(self):
        pass


def test_a_mac_finds_its_records_again_after_a_change_of_network(networks, monkeypatch):
    monkeypatch.setattr("deployments.machine_id.is_mac", lambda: True)
    monkeypatch.setattr("tasks.runtime.device.subprocess.run", answer_of_ioreg)
    assert machine_id() == "0A1B2C3D-0000-1111-2222-333344445555"

    monkeypatch.setattr(started_processes.subprocess, "Popen", lambda *args, **options: SimpleNamespace(pid=2**30))
    started_processes.start(ExitStack(), ["server", "start"], {}, "server")
    monkeypatch.setattr(temporary_server, "_may_be_configured", lambda: False)
    monkeypatch.setattr(temporary_server, "TemporaryServer", RecordOnly)
    temporary_server.start_temporary_server(print, print)
    up, servers = home() / UP, home() / "servers"
    assert len(list(up.iterdir())) == len(list(servers.iterdir())) == 1

    machine_id.cache_clear()  # as in the next process
    assert temporary_server.running_sweeps(home()) == [os.getpid()]
    monkeypatch.setattr(temporary_server, "is_older", lambda pid, record: False)  # it is gone
    temporary_server.end_orphaned_servers(home())
    assert end_leftovers(home()) == [] and list(up.iterdir()) == list(servers.iterdir()) == []


@pytest.mark.parametrize(
    ("mac", "ioreg"),
    [
        (False, answer_of_ioreg),
        (True, refused_ioreg),
        (True, lambda *args, **options: subprocess.CompletedProcess(args, 1, "")),
    ],
)
def test_another_machine_is_known_by_its_host_name_for_as_long_as_a_process_runs(networks, monkeypatch, mac, ioreg):
    monkeypatch.setattr("deployments.machine_id.is_mac", lambda: mac)
    monkeypatch.setattr("tasks.runtime.device.subprocess.run", ioreg)
    assert machine_id() == "network-0" == machine_id()


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
