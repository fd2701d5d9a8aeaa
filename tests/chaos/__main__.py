"""A sweep under faults, against the same sweep undisturbed: `uv run python -m tests.chaos`,
on the machines of a work pool with `--pool`.

The exit code is 1 where a check does not hold.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from flows.cli.terminal import console
from tasks.runtime.errors import TriageError
from tests.bench.common import run, smoke_sweep
from tests.chaos.checks import checks
from tests.chaos.faults import NO_TARGET, drawn
from tests.chaos.sweeps import POLL_SECONDS, PooledSweep, Sweep
from tests.place import Place

LONGEST_PAUSE = 3.0  # seconds before a fault, once its time has come
MOST_RUNS = 8  # after the last fault, in which a sweep must come to its end
STEP_SECONDS = 300.0  # that a sweep needs to begin its first step, on a busy machine


def chaos(
    faults: Annotated[int, typer.Option(min=1, help="number of faults")] = 8,
    seed: Annotated[int, typer.Option(help="draws the order, the targets and the moments")] = 1,
    experiments: Annotated[int, typer.Option(min=1, help="of the smoke grid")] = 8,
    iterations: Annotated[int, typer.Option(min=8, help="updates of each training")] = 160,
    pool: Annotated[bool, typer.Option("--pool", help="let two workers of a pool run it")] = False,
) -> None:
    """Kill, stop and damage a sweep, and compare what it lands with an undisturbed one."""
    root = Path(mkdtemp(prefix="triage-chaos-"))
    arguments = smoke_sweep(experiments, iterations)
    undisturbed = Sweep(Place(root / "undisturbed", is_new=True), experiments, arguments)
    kind = PooledSweep if pool else Sweep
    sweep = kind(Place(root / "faults", is_new=True), experiments, arguments)
    try:
        start = time.monotonic()
        if code := undisturbed.running().wait():
            raise TriageError(f"The undisturbed sweep failed with exit code {code}; see {root}.")
        console.print(f"Undisturbed: {time.monotonic() - start:.0f} s.")
        sweep.prepare()
        count = storm(sweep, faults, random.Random(seed))
        failed = checks(sweep, undisturbed)
    finally:
        sweep.stop()
        undisturbed.stop()

    for name, found in failed.items():
        console.print(f"{'NO ' if found else 'yes'} {name}{': ' if found else ''}{found}")
    console.print(f"{count} faults were done.")
    if any(failed.values()):
        console.print(f"Homes and what was printed are in {root}.")
        raise SystemExit(1)
    shutil.rmtree(root, ignore_errors=True)


def storm(sweep: Sweep, faults: int, rng: random.Random) -> int:
    """Do the faults as experiments land, and let the sweep end; returns how many struck."""
    start = time.monotonic()
    count = 0
    for number, (name, fault) in enumerate(drawn(sweep, faults, rng)):
        while sweep.landed() < number * sweep.experiments // faults:
            sweep.running()
            time.sleep(POLL_SECONDS)
        # A sweep that has nothing left to do never has a step.
        deadline = time.monotonic() + STEP_SECONDS
        command = sweep.running()
        while command.poll() is None and not sweep.steps() and time.monotonic() < deadline:
            sweep.keep()
            time.sleep(POLL_SECONDS)
        time.sleep(rng.uniform(0.0, LONGEST_PAUSE))
        landed = sweep.landed()
        seconds = time.monotonic() - start
        struck = fault(sweep, rng)
        count += struck != NO_TARGET
        console.print(f"{seconds:4.0f} s, {landed} landed: {name}: {struck}", soft_wrap=True)

    for _ in range(MOST_RUNS):
        command = sweep.running()
        while command.poll() is None:
            sweep.keep()
            time.sleep(POLL_SECONDS)
        if command.returncode == 0:
            break
    console.print(f"Under faults: {time.monotonic() - start:.0f} s.")
    return count


if __name__ == "__main__":
    run(chaos)
