"""How fast the warehouse answers and loads, and how large it is, with a made-up study:
`uv run python -m tests.bench.warehouse`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from flows.cli.terminal import console
from tasks.runtime.errors import BadInput, TriageError
from tests.bench.common import print_rows, run
from tests.place import Place
from tests.synthetic_study import SyntheticStudy
from warehouse.load import load_all, load_landings

REPEATS = 5
MOST = 60  # experiments of the grid `paper`


def warehouse(
    experiments: Annotated[int, typer.Option(help="an even number")] = 60,
    cases: Annotated[int, typer.Option(min=30, help="cases that each is judged on")] = 1500,
) -> None:
    """Time queries, comparison, report and loading of a made-up study, and measure its file."""
    if experiments % 2 or not 2 <= experiments <= MOST:
        raise BadInput(f"--experiments {experiments}: give an even number of at most {MOST}.")

    with tempfile.TemporaryDirectory(prefix="triage-warehouse-") as folder:
        place = Place(Path(folder), is_new=True)
        study = SyntheticStudy(experiments, cases)
        with console.status("Making a warehouse ..."):
            study.land(place.home / "landing")
            load_all(place.home / "landing", place.warehouse)
        with console.status("Measuring ..."):
            seconds = _seconds(place, study)
        megabytes = place.warehouse.stat().st_size / 1e6

    rows = [{"what": what, "seconds": f"{value:.3f}"} for what, value in seconds.items()]
    title = f"{experiments} experiments on {cases:,} cases, {megabytes:.0f} MB"
    print_rows(title, rows)


def _seconds(place: Place, study: SyntheticStudy) -> dict[str, float]:
    """Median seconds of what a person waits for."""
    comparison = [
        _timed(lambda: place.query("FROM quantization_comparison")) for _ in range(REPEATS)
    ]
    summary = [_timed(lambda: place.query("FROM quantization_summary")) for _ in range(REPEATS)]
    loads = []
    for number in range(study.count, study.count + REPEATS):
        ids = study.land_experiment(place.home / "landing", study.specs[0], number)
        folders = [place.home / "landing" / id for id in ids]
        loads.append(_timed(lambda folders=folders: load_landings(folders, place.warehouse)))

    return {
        "quantization_comparison": median(comparison),
        "quantization_summary": median(summary),
        "one more experiment loaded": median(loads),
        "triage compare": _timed(lambda: _command(place, "compare")),
        "triage report": _timed(lambda: _command(place, "report")),
    }


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _command(place: Place, command: str) -> None:
    result = place.run(command)
    if result.returncode:
        raise TriageError(f"triage {command} failed: {result.stderr.strip()}")


if __name__ == "__main__":
    run(warehouse)
