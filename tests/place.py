"""A place of its own for a command under test, and how its sentences are read."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from filelock import FileLock
from rich.console import Console

from tasks.corpus.prepare import prepare_dataset
from tasks.grids.grid import load_grid
from tests.forked import run_forked
from tests.migrated import migrated_file
from warehouse.connect import FILE

ROOT = Path(__file__).resolve().parents[1]
USES_SERVER = (
    "from deployments import server; server.SECONDS = 60.0\n"  # in which it says its version
    "from flows.cli.start import main; main()"
)

MADE_ONCE = "TESTS_MADE_ONCE"  # the folder of what all processes of the tests copy
STARTS_PREFECT = (("sweep",), ("search",), ("up",))
TRAINS = (("sweep", "smoke"), ("search", "smoke"))


def changed(row: Any, **columns: Any) -> Any:
    """A row of the warehouse with other values in some columns."""
    return type(row)(**vars(row) | columns)


def made_once(make: Callable[[Path], object]) -> Callable[[], Path]:
    """A folder that `make` fills, in one of the processes of the tests (conftest.py makes the place)."""

    @cache
    def folder() -> Path:
        path = Path(os.environ[MADE_ONCE]) / make.__name__
        with FileLock(f"{path}.lock"):
            if not path.exists():
                making = path.with_suffix(".new")
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir()
                make(making)
                making.rename(path)
        return path

    return folder


@made_once
def prefect_home(folder: Path) -> None:
    """Prefect's database as a server's first start leaves it, to be copied: making one takes 4 s of processor time."""
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(upgrade, env=os.environ | {"PREFECT_HOME": str(folder)}, check=True, capture_output=True)


@made_once
def smoke_home(folder: Path) -> None:
    """A home with the smoke grid's cases and an empty warehouse, to be copied: that takes 6 s of processor time."""
    prepare_dataset(load_grid("smoke", []).data, folder)
    (folder / FILE).write_bytes(migrated_file())


def triage() -> None:
    """The command, in a process that was forked for it."""
    sys.argv[0] = "triage"
    # The console script, whose steps are forked; without a file DuckDB, loaded below, believes itself in a notebook.
    sys.modules["__main__"].__file__ = str(Path(sys.executable).with_name("triage"))

    from flows.cli.start import main

    main()


def without_server() -> None:
    """The command, whose sweeps start no Prefect server."""
    from flows.cli.sweep import EarlyExit

    EarlyExit.start_server = lambda early_exit: None
    triage()


def patiently(program: Callable[[], None]) -> None:
    """The command waits for an answer of the networks as long as a busy machine needs."""
    from tasks.models.sources import fetch, hub_source

    fetch.PROBE_SECONDS = 60.0
    hub_source.PAUSES = (0.05, 0.1)
    program()


def unmeasured() -> None:
    """The command, whose plan does not measure this machine, which takes seconds."""
    from flows.cli import plan
    from flows.plan import assumed_speeds

    plan.this_machine = lambda: ("not measured", assumed_speeds())
    triage()


def without_mlx() -> None:
    """The command, whose process never loads MLX."""
    try:
        triage()
    finally:
        assert not {"mlx", "mlx_lm", "transformers"} & set(sys.modules)


def process_environments() -> Iterator[tuple[int, dict[str, str]]]:
    """The ids of the running processes whose environment this user may read, each with it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, SystemError):
            yield process.pid, process.environ()


@dataclass
class Server:
    """A Prefect server that several commands use: its address, and the folder of its database."""

    url: str
    home: Path


@dataclass
class Place:
    """A home, a warehouse and a Prefect home in one folder, and the command run there.

    `is_new`: the first command makes everything, as a user's first one does; else what others made is copied.
    `server`: what its commands use instead of a server of their own, which takes 6 s of processor time.
    """

    folder: Path
    command: tuple[str, ...] = ("-m", "flows.cli")
    is_new: bool = False
    server: Server | None = None

    def __post_init__(self) -> None:
        if self.server:
            self.command = ("-c", USES_SERVER)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def warehouse(self) -> Path:
        return self.home / "triage.duckdb"

    @property
    def prefect_home(self) -> Path:
        return self.folder / "prefect"

    @property
    def environment(self) -> dict[str, str]:
        own_result = ("PREFECT_", "TRIAGE_", "HF_")
        # TRIAGE_BACKEND stays, since conftest.py sets it on a Mac.
        inherited = {k: v for k, v in os.environ.items() if k == "TRIAGE_BACKEND" or not k.startswith(own_result)}
        own_values = {
            "TRIAGE_HOME": self.home, "TRIAGE_WAREHOUSE": self.warehouse, "PREFECT_HOME": self.prefect_home,
            "PYTHONPATH": ROOT, "DO_NOT_TRACK": 1, "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }  # fmt: skip
        if self.server:
            own_values["PREFECT_API_URL"] = self.server.url
        return inherited | {key: str(value) for key, value in own_values.items()}

    def use(self, patch: Any) -> None:
        """This process has the home and the warehouse of the place."""
        for name in ("TRIAGE_HOME", "TRIAGE_WAREHOUSE"):
            patch.setenv(name, self.environment[name])

    def start(self, *args: str, **environment: str) -> subprocess.Popen[str]:
        """`triage ARGS` in the background, the leader of a process group; its outputs go to the files `out` and `err` of
        the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.is_new:
            self.copy_what_others_made(args)

        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            return subprocess.Popen(
                [sys.executable, *self.command, *args], cwd=self.folder, env=self.environment | environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True,
                # As at a terminal: a shell's background job ignores Ctrl-C, and so would whatever its tests start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), start_new_session=True,
            )  # fmt: skip

    def copy_what_others_made(self, args: tuple[str, ...]) -> None:
        """What this command would need seconds to make, where there is nothing yet."""
        if args[:1] in STARTS_PREFECT and not self.prefect_home.exists():
            self.prefect_home.mkdir()
            shutil.copy(prefect_home() / "prefect.db", self.prefect_home)

        if args[:2] in TRAINS and not self.home.exists():
            shutil.copytree(smoke_home(), self.home)

    def run(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.finish(self.start(*args, **environment))

    def ask(
        self, *args: str, program: Callable[[], object] = triage, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """As `run`, for commands that start no process: each in a process of its own, which has loaded the libraries."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return run_forked(program, args, self.folder, self.environment | environment, 1400)

    def finish(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for a command that was started here; what it printed comes with its exit code."""
        try:
            # Less than pytest's own limit, which ends this process and leaves the command running.
            code = process.wait(timeout=1400)
        finally:
            process.kill()
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(process.args, code, out, err)

    def query(self, sql: str) -> pd.DataFrame:
        """Rows of the warehouse."""
        from warehouse.query import query

        return query(sql, database=self.warehouse)

    def audits(self) -> dict[str, int]:
        """The audits that found something, with the number of rows."""
        from warehouse.connect import reading
        from warehouse.health import run_audits

        with reading(self.warehouse) as connection:
            return {name: rows for name, rows in run_audits(connection).items() if rows}

    def prefect(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of Prefect's own database."""
        home = self.server.home if self.server else self.prefect_home
        with sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True) as connection:
            return connection.execute(sql).fetchall()

    def last_steps(self, grid: str = "smoke") -> dict[str, tuple[str, int]]:
        """State name and number of attempts of each step of the latest sweep of a grid, by name."""
        flow = self.prefect(f"SELECT id FROM flow_run WHERE name = 'sweep {grid}' ORDER BY created DESC LIMIT 1")[0][0]
        rows = self.prefect(f"SELECT name, state_name, run_count FROM task_run WHERE flow_run_id = '{flow}'")
        return {name: (state, count) for name, state, count in rows}

    def experiment(self, cell: str) -> Path:
        """The folder of an experiment by its cell id."""
        (outcome,) = (p for p in (self.home / "experiments").iterdir() if p.name.startswith(f"{cell}-"))
        return outcome

    def copy(self, folder: Path, server: Server | None = None) -> Place:
        """The same state elsewhere, to be changed by one test."""
        shutil.copytree(self.folder, folder)
        return Place(folder, server=server)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until it holds, or for so long."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def one_sentence(text: str) -> bool:
    """`triage: ...` on one line, ended by a full stop, and nothing else: no traceback, no log line."""
    return text.startswith("triage: ") and text.count("\n") == 1 and text.rstrip().endswith(".")


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a command was refused."""
    assert result.returncode == 2 and one_sentence(result.stderr) and result.stdout == "", result
    return result.stderr


def shown(
    print_it: Callable[..., object], *args: Any, width: int = 200, is_terminal: bool = False, **options: Any
) -> str:
    """What a function prints on a console of this width, without the spaces at the ends of its lines."""
    console = Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)
    print_it(console, *args, **options)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())
