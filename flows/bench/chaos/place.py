"""A home, a warehouse and a Prefect home of their own, and the sweep that runs there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from flows.bench.chaos.processes import fork_servers, own_environment, processes_of, steps
from tasks.landing import COMPLETED
from tasks.runtime.errors import BadInput, TriageError

GRID = "smoke"
OF_ONE_SEED = 8  # experiments of that grid
TRAINED = re.compile(r"^(?!.*-from).*-s\d+-[0-9a-f]{12}$")  # a training id, of no moved adapter
POLL_SECONDS = 0.1
STOP_SECONDS = 10.0  # in which everything that was killed must be gone


@dataclass(frozen=True)
class Study:
    """What is swept: the first `experiments` of the smoke grid under as many seeds as it takes,
    each of `iterations` updates with a checkpoint every `every` updates.
    """

    experiments: int
    iterations: int
    every: int = 8

    @property
    def arguments(self) -> list[str]:
        """What follows `triage`."""
        seeds = -(-self.experiments // OF_ONE_SEED)
        settings = {
            "seeds": list(range(1, seeds + 1)),
            "recipe.iterations": self.iterations,
            "training.evaluate_every": self.every,
        }
        changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]

        return ["sweep", GRID, "--limit", str(self.experiments), *changes]


@dataclass
class ChaosPlace:
    """A folder with everything that a sweep reads and writes. `sweep`: the process that runs now."""

    folder: Path
    study: Study
    sweep: subprocess.Popen[bytes] | None = None
    exit_codes: list[int] = field(default_factory=list)

    @property
    def disk(self) -> Path:
        """Holds all homes."""
        return self.folder / "home"

    @property
    def home(self) -> Path:
        """The home of the sweep."""
        return self.disk

    @property
    def homes(self) -> list[Path]:
        """The homes in which experiments run."""
        return [self.home]

    @property
    def writable(self) -> list[Path]:
        """Folders that a sweep writes to."""
        return [home / name for home in self.homes for name in ("experiments", "landing", "models")]

    @property
    def warehouse(self) -> Path:
        return self.home / "triage.duckdb"

    @property
    def log(self) -> Path:
        """What all sweeps printed."""
        return self.folder / "sweeps.log"

    @property
    def arguments(self) -> list[str]:
        """What follows `triage`."""
        return self.study.arguments

    @property
    def environment(self) -> dict[str, str]:
        """Of the sweep."""
        return own_environment(self.home, self.folder / "prefect") | {
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # speed is not what is tested
        }

    def prepare(self) -> None:
        """Start what must run before the sweep."""

    def keep(self) -> None:
        """Start again what someone else than the sweep has to start again."""

    def running(self) -> subprocess.Popen[bytes]:
        """The sweep, started again if it has ended."""
        self.keep()
        if self.sweep is None or self.ended():
            self.home.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self.sweep = subprocess.Popen(
                    [sys.executable, "-m", "flows.cli", *self.arguments],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

        return self.sweep

    def wait(self) -> int:
        """The exit code of the sweep, which is started if none runs."""
        sweep = self.running()
        while (code := sweep.poll()) is None:
            self.keep()
            time.sleep(POLL_SECONDS)
        self.ended()
        return code

    def ended(self) -> bool:
        """Whether the sweep has ended; its exit code is then noted."""
        if self.sweep is None:
            return True

        code = self.sweep.poll()
        if code is None:
            return False

        self.exit_codes.append(code)
        self.sweep = None
        return True

    def leave(self) -> None:
        """Ask what runs beside the sweep to leave."""

    def stop(self) -> None:
        """Kill whatever still runs here, and what it has started meanwhile."""
        deadline = time.monotonic() + STOP_SECONDS
        while (processes := self.processes()) and time.monotonic() < deadline:
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(POLL_SECONDS)

    def start_anew(self) -> None:
        """Run everything once more, so that it clears up."""
        self.wait()

    def landed(self) -> int:
        """How many trainings of the sweep have completed and landed."""
        folders = [path.parent for path in self.home.glob("landing/[!.]*/experiment.parquet")]
        return sum(
            bool(TRAINED.search(folder.name)) and _has_completed(folder) for folder in folders
        )

    def gave_way(self) -> int:
        """How many results were made by a second machine, too, and count once."""
        return 0

    def step(self) -> psutil.Process | None:
        """The process of a step that runs now."""
        return next(iter(steps(self.processes())), None)

    def fork_server(self) -> psutil.Process | None:
        """The process that forks steps."""
        return next(iter(fork_servers(self.processes())), None)

    def prefect_server(self) -> psutil.Process | None:
        """The temporary Prefect server of the sweep."""
        for record in self.home.glob("servers/*"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(int(record.read_text()))
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    return process
        return None

    def processes(self) -> list[psutil.Process]:
        """All processes that were started for this place."""
        return processes_of(self.homes)

    def prefect_count(self, sql: str) -> int:
        """The number that a query of Prefect's own database gives."""
        database = f"file:{self.folder / 'prefect' / 'prefect.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True)) as con:
            return int(con.execute(sql).fetchone()[0])


def refuse_existing(folder: Path | None) -> None:
    """Raise BadInput for a folder that is there already."""
    if folder is not None and folder.exists():
        raise BadInput(f"{folder} exists already; name a new folder.")


def run_undisturbed(place: ChaosPlace) -> None:
    """Run the sweep of a place to its end. Raises TriageError if it fails."""
    if code := place.wait():
        raise TriageError(
            f"The undisturbed sweep failed with exit code {code}, so there is nothing to compare "
            f"with; what it printed is in {place.log}."
        )


def _has_completed(landing: Path) -> bool:
    """Whether a landing folder is complete and its experiment has not failed."""
    try:
        status = pq.read_table(landing / "experiment.parquet", columns=["status"])["status"][0]
    except (OSError, ValueError):  # it is being replaced, or damaged
        return False
    return str(status) == COMPLETED and (landing / "manifest.json").exists()
