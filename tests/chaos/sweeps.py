"""A sweep that is typed again whenever it has ended; and the same on the machines of a work pool."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tasks.runtime.errors import TriageError
from tests.place import Place

TRAINED = re.compile(r"^(?!.*-from).*-s\d+-[0-9a-f]{12}$")  # a training id, of no moved adapter
STEP = "tasks.runtime.child"
POOL = "chaos"
MACHINES = ("one", "two")
POLL_SECONDS = 0.1
START_SECONDS = 600.0  # for the server


@dataclass
class Sweep:
    """A sweep of so many experiments of the smoke grid. `process`: the command that runs now."""

    place: Place
    experiments: int
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def homes(self) -> list[Path]:
        """Those in which experiments run."""
        return [self.place.home]

    # What runs beside a sweep: what is started before it, kept running, and ended after it.
    def prepare(self) -> None: ...

    def keep(self) -> None: ...

    def leave(self) -> None: ...

    def running(self) -> subprocess.Popen[str]:
        """The command, typed again if it has ended."""
        self.keep()
        if self.process is None or self.process.poll() is not None:
            self.process = self.place.start(*self.arguments, **self.environment)
        return self.process

    def command(self) -> list[psutil.Process]:
        """The command itself; what it has started on this machine leaves with it."""
        return [psutil.Process(self.running().pid)]

    def landed(self) -> int:
        """How many trainings have landed."""
        manifests = self.place.home.glob("landing/[!.]*/manifest.json")
        return sum(bool(TRAINED.search(manifest.parent.name)) for manifest in manifests)

    def processes(self) -> list[psutil.Process]:
        """What runs in the homes."""
        homes = {str(home) for home in (self.place.home, *self.homes)}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError, SystemError):
                is_ours = process.environ().get("TRIAGE_HOME") in homes
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def steps(self) -> list[psutil.Process]:
        """The processes of steps: forked from one with the same command line, or programs."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error, SystemError):
                command = process.cmdline()
                parent = process.parent()
                if STEP in command or (parent is not None and parent.cmdline() == command):
                    found.append(process)
        return found

    def server(self) -> list[psutil.Process]:
        """The temporary Prefect server of the sweep."""
        pids = {record.read_text() for record in self.place.home.glob("servers/*")}
        return [process for process in self.processes() if str(process.pid) in pids]

    def stop(self) -> None:
        """Kill whatever runs here."""
        self.leave()
        deadline = time.monotonic() + 30
        while (processes := self.processes()) and time.monotonic() < deadline:
            for process in processes:
                with contextlib.suppress(psutil.Error, SystemError):
                    process.kill()
            time.sleep(POLL_SECONDS)


@dataclass
class Service:
    """A program of Prefect's, started again whenever it has ended."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def keep(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *self.command],
                cwd=self.log.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@dataclass
class PooledSweep(Sweep):
    """The same sweep with `--pool`; `services`: the server, then a worker for each machine."""

    services: list[Service] = field(default_factory=list)

    @property
    def homes(self) -> list[Path]:
        return [self.place.folder / name for name in MACHINES]

    def prepare(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        folder = self.place.folder
        folder.mkdir(parents=True)
        self.arguments = [*self.arguments, "--pool", POOL]
        self.environment = {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "TRIAGE_SHARED": str(folder / "shared"),
        }
        serve = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
        server = Service(serve, self.place.environment, folder / "server.log")
        self.services = [server]
        server.keep()
        environment = self.place.environment | self.environment
        create = [sys.executable, "-m", "prefect", "work-pool", "create", POOL, "--type", "process"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(create, env=environment, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise TriageError(f"The Prefect server did not start; see {server.log}.")

        for home in self.homes:
            home.mkdir()
            own = {
                "TRIAGE_HOME": str(home),
                "TRIAGE_WAREHOUSE": str(home / "triage.duckdb"),
                "TRIAGE_ACCELERATOR": home.name,
                "PREFECT_HOME": str(folder / f"prefect-{home.name}"),
            }
            work = ["worker", "start", "--pool", POOL, "--limit", "1"]
            self.services.append(Service(work, environment | own, folder / f"{home.name}.log"))

    def keep(self) -> None:
        for service in self.services:
            service.keep()

    def leave(self) -> None:
        for process in (one.process for one in reversed(self.services) if one.process):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)

    def server(self) -> list[psutil.Process]:
        return self._running(self.services[:1])

    def workers(self) -> list[psutil.Process]:
        return self._running(self.services[1:])

    def _running(self, services: list[Service]) -> list[psutil.Process]:
        pids = {one.process.pid for one in services if one.process}
        return [process for process in self.processes() if process.pid in pids]
