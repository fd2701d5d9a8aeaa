"""What Prefect, landing and comparing take beside the steps of a sweep:
`uv run python -m tests.bench.overhead`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console
from tasks.runtime.errors import TriageError
from tests.bench.common import print_rows, run, smoke_sweep
from tests.place import Place

IN_WAREHOUSE = "SELECT run_seconds, step_seconds FROM sweep ORDER BY started_at LIMIT 1"


def overhead(
    experiments: Annotated[int, typer.Option(min=1, help="of the smoke grid")] = 60,
    iterations: Annotated[int, typer.Option(min=8, help="updates of each training")] = 40,
) -> None:
    """Run a sweep twice and print what it takes beyond its steps' own processes."""
    arguments = smoke_sweep(experiments, iterations)
    with tempfile.TemporaryDirectory(prefix="triage-overhead-") as folder:
        place = Place(Path(folder), is_new=True)
        with console.status(f"Running {experiments} experiments ..."):
            command = _seconds(place, arguments)
            ((flow, steps),) = place.query(IN_WAREHOUSE).to_numpy().tolist()
            again = _seconds(place, arguments)

    seconds = {
        "the command, from its start to its end": command,
        "the sweep, once Prefect has started": flow,
        "its steps' own processes": steps,
        "the command beyond its steps": command - steps,
        "the finished sweep, typed again": again,
    }
    rows = [
        {"what": what, "seconds": f"{value:.1f}", "per experiment": f"{value / experiments:.2f}"}
        for what, value in seconds.items()
    ]
    print_rows(f"{experiments} experiments of the smoke grid", rows)


def _seconds(place: Place, arguments: list[str]) -> float:
    start = time.monotonic()
    result = place.run(*arguments)
    if result.returncode:
        raise TriageError(f"The sweep failed: {result.stderr.strip()}")
    return time.monotonic() - start


if __name__ == "__main__":
    run(overhead)
