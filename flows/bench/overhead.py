"""`triage bench overhead`: what Prefect, landing and comparing take beside the steps of a sweep."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import duckdb
from rich.console import Console

from deployments.interruptions import interrupted_by_signals
from flows.bench.chaos.place import ChaosPlace, Study, refuse_existing, run_undisturbed
from flows.bench.shared import own_versions
from flows.cli.terminal import print_line
from flows.report.table import ReportTable, print_table

IN_WAREHOUSE = "SELECT run_seconds, step_seconds FROM sweep ORDER BY started_at LIMIT 1"


@dataclass(frozen=True)
class Overhead:
    """Seconds of a sweep of so many experiments.

    `command`: from the start of the command to its end; `flow`: of it, the flow's; `steps`: of
    that, the steps' own processes; `again`: the same command with nothing left to do.
    """

    experiments: int
    command: float
    flow: float
    steps: float
    again: float

    @property
    def records(self) -> list[dict[str, str]]:
        """One per figure, in words."""
        rows = {
            "the command, from its start to its end": self.command,
            "the sweep, once Prefect has started": self.flow,
            "its steps' own processes": self.steps,
            "the sweep beyond its steps": self.flow - self.steps,
            "the command beyond its steps": self.command - self.steps,
            "the finished sweep, typed again": self.again,
        }
        return [
            {
                "what": part,
                "seconds": f"{seconds:.1f}",
                "s per experiment": f"{seconds / self.experiments:.2f}",
            }
            for part, seconds in rows.items()
        ]


def bench_overhead(console: Console, study: Study, folder: Path | None) -> None:
    """Run a sweep twice in a home of its own and print what its steps do not account for.

    The home is in `folder`, or in a temporary one that is removed. Raises BadInput for a folder
    that is there.
    """
    refuse_existing(folder)
    root = (folder or Path(mkdtemp(prefix="triage-overhead-"))).resolve()
    place = ChaosPlace(root, study)

    try:
        with interrupted_by_signals():
            overhead = _measure(console, place)
    finally:
        place.stop()
        if folder is None:
            shutil.rmtree(root, ignore_errors=True)

    versions = ", ".join(f"{name} {version}" for name, version in own_versions().items())
    title = f"{study.experiments} experiments of the smoke grid ({versions})"
    print_table(console, ReportTable.of(title, overhead.records))


def _measure(console: Console, place: ChaosPlace) -> Overhead:
    print_line(console, f"Running {place.study.experiments} experiments in {place.folder} ...")
    command = _seconds(place)
    with duckdb.connect(str(place.warehouse), read_only=True) as warehouse:
        times = warehouse.execute(IN_WAREHOUSE).fetchone()

    assert times is not None  # a sweep that has succeeded has landed
    flow, steps = times
    print_line(console, "Typing the same command again ...")
    return Overhead(place.study.experiments, command, flow, steps, _seconds(place))


def _seconds(place: ChaosPlace) -> float:
    start = time.monotonic()
    run_undisturbed(place)
    return time.monotonic() - start
