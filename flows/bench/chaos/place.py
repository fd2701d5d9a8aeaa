"""A home, a warehouse and a Prefect home of their own, and the sweep that runs there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tasks.runtime.errors import TriageError
from tasks.runtime.fork_server import OPTION

ROOT = Path(__file__).resolve().parents[3]
GRID = "smoke"
OF_ONE_SEED = 8  # experiments of that grid
TRAINED = re.compile(r"^(?!.*-from).*-s\d+-[0-9a-f]{12}$")  # a training id, of no moved adapter
CHILD = "tasks.runtime.child"
POLL_SECONDS = 0.1
OURS = ("PREFECT_", "TRIAGE_", "HF_")  # settings of the caller that must not reach the sweep
KEPT = "TRIAGE_BACKEND"


@dataclass(frozen=True)
class Study:
    """What is swept: the first `experiments` of the smoke grid under as many seeds as it takes, each
    of `iterations` updates with a checkpoint every `every` updates.
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
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def warehouse(self) -> Path:
        return self.home / "triage.duckdb"

    @property
    def prefect_database(self) -> Path:
        return self.folder / "prefect" / "prefect.db"

    @property
    def log(self) -> Path:
        """What all sweeps printed."""
        return self.folder / "sweeps.log"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name == KEPT or not name.startswith(OURS)
        }
        return inherited | {
            "TRIAGE_HOME": str(self.home),
            "TRIAGE_WAREHOUSE": str(self.warehouse),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # speed is not what is tested
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }

    def running(self) -> subprocess.Popen[bytes]:
        """The sweep, started again if it has ended."""
        if self.sweep is None or self.ended():
            self.home.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self.sweep = subprocess.Popen(
                    [sys.executable, "-m", "flows.cli", *self.study.arguments],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return self.sweep

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

    def stop(self) -> None:
        """Kill whatever still runs here."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def landed(self) -> int:
        """How many trainings of the sweep have a complete landing folder."""
        folders = (path.parent for path in self.home.glob("landing/[!.]*/experiment.parquet"))
        names = [folder.name for folder in folders if (folder / "manifest.json").exists()]
        return sum(bool(TRAINED.search(name)) for name in names)

    def step(self) -> psutil.Process | None:
        """The process of the step that runs now."""
        server = self.fork_server()
        steps = [one for one in _children(self.sweep) if CHILD in _command(one) and one != server]
        if server is not None:
            with contextlib.suppress(psutil.Error):
                steps += server.children()
        return steps[0] if steps else None

    def fork_server(self) -> psutil.Process | None:
        """The process that forks the sweep's steps."""
        return next((one for one in _children(self.sweep) if OPTION in _command(one)), None)

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
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("TRIAGE_HOME") == str(self.home):
                    found.append(process)
        return found


def run_undisturbed(place: ChaosPlace) -> None:
    """Run the sweep of a place to its end. Raises TriageError if it fails."""
    code = place.running().wait()
    if code:
        raise TriageError(
            f"The undisturbed sweep failed with exit code {code}, so there is nothing to compare "
            f"with; what it printed is in {place.log}."
        )
    place.ended()


def _children(sweep: subprocess.Popen[bytes] | None) -> Sequence[psutil.Process]:
    if sweep is None:
        return []
    try:
        return psutil.Process(sweep.pid).children()
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
