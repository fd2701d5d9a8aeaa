"""`triage bench warehouse`: how fast the warehouse answers, loads and how large it is, at a size."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from flows.bench.study_copies import copy_study
from flows.bench.synthetic_study import SyntheticStudy
from flows.report.table import ReportTable, print_table
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import writing
from warehouse.load import load_all, load_landings
from warehouse.place import FILE
from warehouse.query import Bounds, query_rows

REPEATS = 5
OF_PAPER = 60  # experiments of the study of the grid `paper`
FEWEST_CASES = 30
MOST_PREDICTIONS = 100_000_000
BYTES_A_PREDICTION = 100  # on the disk at most, with everything else that an evaluation has
MEMORY = 4 * 10**9


@dataclass(frozen=True)
class StudySize:
    """Experiments in all, and cases that each is judged on."""

    experiments: int
    cases: int

    @property
    def predictions(self) -> int:
        return self.experiments * self.cases

    @property
    def in_a_study(self) -> int:
        """Experiments of one study: the most of up to OF_PAPER pairs that divide all evenly."""
        return max(n for n in range(2, OF_PAPER + 1, 2) if self.experiments % n == 0)

    @property
    def is_one_study(self) -> bool:
        return self.experiments == self.in_a_study

    def check(self) -> None:
        """Raise BadInput for a size that cannot be made here."""
        if self.experiments < 2 or self.experiments % 2:
            raise BadInput(
                f"--experiments {self.experiments} is not possible; give an even number: half of "
                "them are at 4 bits, half at 8."
            )
        if self.cases < FEWEST_CASES:
            raise BadInput(f"--cases {self.cases} are too few; give at least {FEWEST_CASES}.")
        if self.predictions > MOST_PREDICTIONS:
            raise BadInput(
                f"{self.experiments:,} experiments on {self.cases:,} cases are "
                f"{self.predictions:,} predictions; {MOST_PREDICTIONS:,} are the most."
            )

        required_bytes = self.predictions * BYTES_A_PREDICTION
        home().mkdir(parents=True, exist_ok=True)
        if required_bytes > shutil.disk_usage(home()).free:
            raise BadInput(
                f"{home()} has no room for {required_bytes / 1e9:.1f} GB; give smaller "
                "--experiments or --cases, or set TRIAGE_HOME to a folder on another disk."
            )


@dataclass(frozen=True)
class BenchFigure:
    """A measured figure, beside what it should stay under; the aim is None at a size without one."""

    name: str
    value: float
    unit: str
    aim: float | None

    @property
    def is_reached(self) -> bool:
        return self.aim is None or self.value < self.aim

    @property
    def sentence(self) -> str:
        aim_note = "" if self.aim is None else f" (aim: under {_figure_text(self.aim, self.unit)})"
        return f"{self.name} {_figure_text(self.value, self.unit)}{aim_note}"


def _figure_text(value: float, unit: str) -> str:
    digits = 0 if unit == "ms" or value >= 100 else 2
    return f"{value:,.{digits}f} {unit}"


def bench_warehouse(console: Console, size: StudySize) -> list[BenchFigure]:
    """Make a warehouse of a size in a scratch folder, measure it, and print the figures.

    Raises BadInput for a size that cannot be made.
    """
    size.check()
    folder = home() / "bench"
    folder.mkdir(parents=True, exist_ok=True)

    # In the home, since it is the room of its disk that was checked.
    with tempfile.TemporaryDirectory(prefix="warehouse-", dir=folder) as scratch:
        place = Path(scratch)
        study = SyntheticStudy(size.in_a_study, size.cases)
        with console.status("Making a warehouse ...") as status:
            _fill(place, study, size.experiments // size.in_a_study - 1, status.update)
            status.update("Measuring ...")
            figures = _figures(place, study, size)

    _print(console, size, figures)
    return figures


def _fill(place: Path, study: SyntheticStudy, copies: int, say: Callable[[str], None]) -> None:
    """One study through landing folders and loader; copies of it by SQL."""
    study.land(place / "landing")
    refusals = load_all(place / "landing", place / FILE).refused
    if refusals:
        raise BadInput(f"The loader refused a folder: {next(iter(refusals.values()))}")

    if copies:
        with writing(place / FILE) as con:
            for number in copy_study(con, copies):
                say(f"Making a warehouse: study {number + 1} of {copies + 1} ...")


def _figures(place: Path, study: SyntheticStudy, size: StudySize) -> list[BenchFigure]:
    paper = size.is_one_study
    compared = 1000 * _median(lambda: _query(place, "FROM quantization_comparison"))
    pooled = 1000 * _median(lambda: _query(place, "FROM quantization_summary"))

    figures = [
        BenchFigure("quantization_comparison", compared, "ms", 150 if paper else 3000),
        BenchFigure("quantization_summary", pooled, "ms", 150 if paper else None),
    ]
    if paper:
        seconds = _median(lambda: _compare(place))
        figures.append(BenchFigure("triage compare, processor time", seconds, "s", 2))
        figures += _report(place)

    numbers = range(size.experiments, size.experiments + REPEATS)
    loads = [_load_one(place, study, number) for number in numbers]
    loaded, worked = (1000 * median(times) for times in zip(*loads, strict=True))
    file = (place / FILE).stat().st_size / 1e6

    return [
        *figures,
        BenchFigure("one more experiment loaded", loaded, "ms", None if paper else 250),
        BenchFigure("one more experiment loaded, processor time", worked, "ms", None),
        BenchFigure("file", file, "MB", None if paper else 1500),
    ]


def _median(seconds: Callable[[], float]) -> float:
    return median(seconds() for _ in range(REPEATS))


def _query(place: Path, sql: str) -> float:
    """Seconds that `triage sql` takes for a query, with opening the file."""
    began = time.perf_counter()
    query_rows(sql, database=place / FILE, bounds=Bounds(memory=MEMORY))
    return time.perf_counter() - began


def _compare(place: Path) -> float:
    """Seconds of processor time of `triage compare`."""
    return _processor_time(place, "compare")


def _report(place: Path) -> list[BenchFigure]:
    """Time and size of `triage report`, made once: it takes as long as everything else here."""
    seconds = _processor_time(place, "report")
    (report,) = (place / "reports").glob("*.html")
    return [
        BenchFigure("triage report, processor time", seconds, "s", 20),
        BenchFigure("its file", report.stat().st_size / 1e6, "MB", 6),
    ]


def _processor_time(place: Path, command: str) -> float:
    """Seconds of processor time of a command on this warehouse."""
    environment = {"TRIAGE_HOME": str(place), "TRIAGE_WAREHOUSE": str(place / FILE)}
    # Of the children that have ended and were waited for, as subprocess.run does.
    usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(
        [sys.executable, "-m", "flows.cli", command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    usage_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise BadInput(f"triage {command} failed: {process.stderr.strip()}")

    return (
        usage_after.ru_utime - usage_before.ru_utime + usage_after.ru_stime - usage_before.ru_stime
    )


def _load_one(place: Path, study: SyntheticStudy, number: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, in which training and evaluation of a further
    experiment are loaded, as a sweep does it: together.
    """
    ids = study.land_experiment(place / "landing", study.specs[0], number)
    began = time.perf_counter()
    worked = time.process_time()
    load_landings([place / "landing" / id for id in ids], place / FILE)
    return time.perf_counter() - began, time.process_time() - worked


def _print(console: Console, size: StudySize, figures: list[BenchFigure]) -> None:
    missed = [figure for figure in figures if not figure.is_reached]
    aims = sum(figure.aim is not None for figure in figures)
    answer = "Every aim is reached" if not missed else f"{len(missed)} of {aims} aims are missed"
    sentences = "; ".join(figure.sentence for figure in figures)
    console.print(f"{answer}: {sentences}.", style="bold", soft_wrap=True)
    records = [
        {
            "figure": figure.name,
            "median": _figure_text(figure.value, figure.unit),
            "aim": "" if figure.aim is None else f"under {_figure_text(figure.aim, figure.unit)}",
            "reached": "" if figure.aim is None else "yes" if figure.is_reached else "no",
        }
        for figure in figures
    ]
    title = (
        f"{size.experiments:,} experiments on {size.cases:,} cases "
        f"({size.predictions:,} predictions), medians of {REPEATS}"
    )
    print_table(console, ReportTable.of(title, records))
    note = "Queries may take 4 GB of memory. Scores are drawn at random with a fixed seed"
    if not size.is_one_study:
        note += f"; studies of {size.in_a_study} experiments, dropout rows in the first"

    console.print(f"{note}.", soft_wrap=True)
