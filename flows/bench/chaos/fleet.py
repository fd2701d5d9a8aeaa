"""A fleet on this machine: a Prefect server, machines that joined its
pool, and the sweep that asks.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deployments.up import KEEPS_LEASES
from flows.bench.chaos.place import POLL_SECONDS, TRAINED, ChaosPlace
from flows.bench.chaos.postgres import Postgres, new_postgres
from flows.bench.chaos.processes import command, own_environment, processes_of
from flows.bench.chaos.services import Service, free_port
from tasks.runtime.errors import TriageError

POOL = "fleet"
MACHINES = ("one", "two")
HOST = "127.0.0.1"
START_SECONDS = 600.0  # for the server and the machines, on a busy machine
ANSWER_SECONDS = 5.0
JOINED = b"Worker started"  # as `triage join` says


@dataclass
class FleetPlace(ChaosPlace):
    """A folder with everything that a fleet reads and writes."""

    port: int = field(default_factory=free_port)
    postgres: Postgres | None = None  # else the server keeps its data in SQLite
    database: Service | None = None
    server: Service | None = None
    machines: dict[str, Service] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.disk / "asks"

    @property
    def homes(self) -> list[Path]:
        return [self.home, *(self.disk / name for name in MACHINES)]

    @property
    def shared(self) -> Path:
        """What the machines share."""
        return self.disk / "shared"

    @property
    def writable(self) -> list[Path]:
        return [*super().writable, self.shared / "landing"]

    @property
    def arguments(self) -> list[str]:
        return [*super().arguments, "--pool", POOL]

    @property
    def environment(self) -> dict[str, str]:
        return self._environment_of(self.home)

    def prepare(self) -> None:
        """Start the server and the machines. Raises TriageError where they do not start."""
        server_environment = (
            own_environment(self.folder / "server", self.folder / "prefect") | KEEPS_LEASES
        )
        self.postgres = new_postgres(self.folder / "postgres")
        if self.postgres is not None:
            self.database = self.postgres.service(server_environment)
            server_environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.postgres.url

        server_environment["PREFECT_SERVER_UI_ENABLED"] = "false"
        serve = ["prefect", "server", "start", "--host", HOST, "--port", str(self.port)]
        self.server = Service(
            [sys.executable, "-m", *serve], server_environment, self.folder / "server.log"
        )

        for name in MACHINES:
            (self.disk / name).mkdir(parents=True)
            join = [sys.executable, "-m", "flows.cli", "join", f"http://{HOST}:{self.port}"]
            # Each machine has an accelerator of its own.
            environment = self._environment_of(self.disk / name) | {"TRIAGE_ACCELERATOR": name}
            self.machines[name] = Service(join, environment, self.folder / f"{name}.log")

        self._until(self._have_joined)

    def keep(self) -> None:
        if self.database is not None:
            self.database.keep()
        if self.server is not None:
            self.server.keep()

        due = [machine for machine in self.machines.values() if machine.is_due()]
        if due and self._answers():
            for machine in due:
                machine.keep()

    def running(self) -> subprocess.Popen[bytes]:
        if self.ended():
            self._until(self._answers)
        return super().running()

    def leave(self) -> None:
        for service in self._services:
            service.leave()

    def stop(self) -> None:
        for service in self._services:
            service.kill()
        super().stop()

    def start_anew(self) -> None:
        for machine in self.machines.values():
            machine.leave()
        self._until(lambda: not any(machine.is_due() for machine in self.machines.values()))
        super().start_anew()

    def landed(self) -> int:
        paths = self.shared.glob("landing/*/*/experiment.parquet")
        folders = {path.parents[1] for path in paths}
        names = [folder.name for folder in folders if (folder / "manifest.json").exists()]
        return sum(bool(TRAINED.search(name)) for name in names)

    def gave_way(self) -> int:
        versions = [path.parent for path in self.shared.glob("landing/*/*/")]
        return len(versions) - len(set(versions))

    def prefect_server(self) -> psutil.Process | None:
        return self.server.process if self.server else None

    def database_server(self) -> psutil.Process | None:
        """The first process of PostgreSQL."""
        return self.database.process if self.database else None

    def worker(self) -> psutil.Process | None:
        """A Prefect worker, which `triage join` has started."""
        return self._with("worker start")

    def run(self) -> psutil.Process | None:
        """The process of an experiment, which a worker has started."""
        return self._with("prefect.engine")

    def processes(self) -> list[psutil.Process]:
        return processes_of([*self.homes, self.folder / "server"])

    def prefect_count(self, sql: str) -> int:
        return self.postgres.number(sql) if self.postgres else super().prefect_count(sql)

    @property
    def _services(self) -> list[Service]:
        """In the order in which they can leave."""
        last = [service for service in (self.server, self.database) if service is not None]
        return [*self.machines.values(), *last]

    def _environment_of(self, home: Path) -> dict[str, str]:
        return own_environment(home, self.folder / f"prefect-{home.name}") | {
            "PREFECT_API_URL": f"http://{HOST}:{self.port}/api",
            "TRIAGE_SHARED": str(self.shared),
        }

    def _with(self, words: str) -> psutil.Process | None:
        return next((process for process in self.processes() if words in command(process)), None)

    def _answers(self) -> bool:
        """Whether the server is there, and its database."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/api/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _have_joined(self) -> bool:
        logs = [machine.log for machine in self.machines.values()]
        return all(log.exists() and JOINED in log.read_bytes() for log in logs)

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            self.keep()
            if time.monotonic() > deadline:
                raise TriageError(
                    f"The server or the machines did not start in {START_SECONDS:.0f} s; their "
                    f"logs are in {self.folder}."
                )
            time.sleep(POLL_SECONDS)
