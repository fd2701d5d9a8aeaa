"""A PostgreSQL of the benchmark's own, in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flows.bench.chaos.services import Service, free_port

PROGRAMS = ("initdb", "postgres", "psql")
DEBIAN = "/usr/lib/postgresql"  # which is not on the path there
USER = "triage"
DATABASE = "postgres"  # which initdb makes
OTHER_USER = "daemon"  # which every machine has


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL that listens on a port of the loopback."""

    folder: Path
    programs: dict[str, str]
    port: int

    @property
    def url(self) -> str:
        """As Prefect's server takes it."""
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def service(self, environment: dict[str, str]) -> Service:
        """The program that runs it."""
        # Processes are killed here, not the machine, so that nothing has to be on the disk at once.
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off"]
        command = [*_as_other_user(), self.programs["postgres"], "-D", str(self.folder), *options]
        return Service(command, environment, self.folder.with_name("postgres.log"))

    def number(self, sql: str) -> int:
        """What a query gives."""
        command = [self.programs["psql"], "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        command += ["-d", DATABASE, "-Atc", sql]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def new_postgres(folder: Path) -> Postgres | None:
    """A new database in a folder; None where PostgreSQL is missing or cannot run."""
    programs = {name: path for name in PROGRAMS if (path := _program(name))}
    if len(programs) < len(PROGRAMS):
        return None

    command = [*_as_other_user(), programs["initdb"], "-D", str(folder), "-U", USER]
    command += ["--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None

    return Postgres(folder, programs, free_port())


def _program(name: str) -> str | None:
    places = sorted(Path(DEBIAN).glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))


def _as_other_user() -> list[str]:
    """PostgreSQL refuses to run as root; in a namespace root, whose
    files these are, is another user.
    """
    if os.geteuid():
        return []
    id = pwd.getpwnam(OTHER_USER).pw_uid
    return ["unshare", "--user", f"--map-user={id}", f"--map-group={id}"]
