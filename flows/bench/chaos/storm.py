"""Runs a sweep under faults, one after the other, types it again whenever it has ended, and prints
what happened and what is left.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console

from deployments.interruptions import ignore_interruptions, interrupted_by_signals
from flows.bench.chaos import namespace
from flows.bench.chaos.checks import ChaosCheck, checks
from flows.bench.chaos.faults import Fault, draw_faults, known_faults
from flows.bench.chaos.fleet import FleetPlace
from flows.bench.chaos.place import (
    POLL_SECONDS,
    ChaosPlace,
    Study,
    refuse_existing,
    run_undisturbed,
)
from flows.bench.chaos.strikes import NO_TARGET
from flows.cli.terminal import print_line
from flows.report.figures import clock
from flows.report.table import ReportTable, print_table
from tasks.runtime.errors import TriageError

MEGABYTES = 1500  # of the disk that is filled
LONGEST_PAUSE = 3.0  # seconds before a fault, once its time has come
WORK_SECONDS = 300.0
MOST_RUNS = 8  # after the last fault, in which a sweep must come to its end


@dataclass(frozen=True)
class Strike:
    """A fault that was done: after so many seconds, with so many experiments landed."""

    number: int
    name: str
    seconds: float
    landed: int
    effect: str


@dataclass(frozen=True)
class Weather:
    """How many faults, in at most how many minutes, drawn from which seed."""

    faults: int
    minutes: float
    seed: int


def bench_chaos(
    console: Console, study: Study, weather: Weather, folder: Path | None, pool: bool = False
) -> bool:
    """Run the study undisturbed and under faults; print the faults and checks. True if all hold.

    Both runs are in `folder`, or in a temporary one that is removed unless something was wrong.
    `pool`: under faults the machines of a fleet run it. An interruption ends whatever was started.
    Raises BadInput for a folder that is there.
    """
    refuse_existing(folder)
    namespace.enter_if_allowed()
    root = (folder or Path(mkdtemp(prefix="triage-chaos-"))).resolve()
    undisturbed = ChaosPlace(root / "undisturbed", study)
    place = (FleetPlace if pool else ChaosPlace)(root / "faults", study)

    is_sound = False
    with interrupted_by_signals():
        try:
            is_sound = _compare(console, place, undisturbed, weather)
        except KeyboardInterrupt:
            is_sound = True  # nothing to look at
            raise
        finally:
            ignore_interruptions()
            place.stop()
            undisturbed.stop()
            if is_sound and folder is None:
                _remove(root, place)
            else:
                _keep_homes(place)
                print_line(console, f"Homes, warehouses and what was printed: {root}")

    return is_sound


def _compare(
    console: Console, place: ChaosPlace, undisturbed: ChaosPlace, weather: Weather
) -> bool:
    _make_folders(undisturbed, place)
    count = place.study.experiments
    print_line(console, f"Running {count} experiments undisturbed, in {place.folder.parent} ...")
    start = time.monotonic()
    run_undisturbed(undisturbed)
    calm = time.monotonic() - start
    print_line(console, f"That took {clock(calm)}. The same under {weather.faults} faults ...")
    place.prepare()
    kinds = known_faults(place)
    strikes = _storm(console, place, [fault for fault in kinds if not fault.not_here], weather)
    results = list(checks(place, undisturbed))
    _print(console, strikes, [fault for fault in kinds if fault.not_here], results)

    return all(check.holds for check in results)


def _make_folders(*places: ChaosPlace) -> None:
    for place in places:
        (place.folder / "tmp").mkdir(parents=True)
    if namespace.is_entered():
        namespace.mount_small_disk(places[-1].disk, MEGABYTES)


def _keep_homes(place: ChaosPlace) -> None:
    """Copy homes from a disk that is gone with the namespace."""
    if namespace.is_entered() and place.disk.exists():
        shutil.copytree(place.disk, place.folder / "home_as_left")


def _remove(root: Path, place: ChaosPlace) -> None:
    if namespace.is_entered() and place.disk.exists():
        namespace.unmount(place.disk)
    shutil.rmtree(root, ignore_errors=True)


def _storm(
    console: Console, place: ChaosPlace, kinds: Sequence[Fault], weather: Weather
) -> list[Strike]:
    """Do the faults as the sweep advances, then let it come to its end. Raises TriageError if it
    does not.
    """
    rng = random.Random(weather.seed)
    start = time.monotonic()

    strikes: list[Strike] = []
    for number, fault in enumerate(draw_faults(list(kinds), weather.faults, rng)):
        due = number * place.study.experiments // weather.faults
        if not _advance(place, due, start + 60 * weather.minutes):
            break

        pause = rng.uniform(0.0, LONGEST_PAUSE)
        _until_at_work(place)
        time.sleep(pause)
        place.running()
        seconds = time.monotonic() - start
        landed_count = place.landed()
        effect = fault.strike(place, rng)
        strikes.append(Strike(number + 1, fault.name, seconds, landed_count, effect))
        print_line(console, f"{clock(seconds)}: {fault.name}: {effect}")

    _finish(place)
    print_line(console, f"The sweep ended after {clock(time.monotonic() - start)}.")
    return strikes


def _advance(place: ChaosPlace, count: int, deadline: float) -> bool:
    """Let the sweep run until so many experiments have landed; False once the time is over."""
    while place.landed() < count:
        if time.monotonic() > deadline:
            return False
        place.running()
        time.sleep(POLL_SECONDS)
    return time.monotonic() < deadline


def _until_at_work(place: ChaosPlace) -> None:
    """Wait until a step runs: a sweep starts for seconds, on a busy machine for minutes. A sweep
    that has nothing left to do never has one.
    """
    deadline = time.monotonic() + WORK_SECONDS
    place.running()
    while not place.ended() and place.step() is None and time.monotonic() < deadline:
        place.keep()
        time.sleep(POLL_SECONDS)


def _finish(place: ChaosPlace) -> None:
    for _ in range(MOST_RUNS):
        if place.wait() == 0:
            return
    raise TriageError(
        f"The sweep did not come to its end in {MOST_RUNS} runs without faults; what it printed is "
        f"in {place.log}."
    )


def _print(
    console: Console,
    strikes: Sequence[Strike],
    skipped: Sequence[Fault],
    results: Sequence[ChaosCheck],
) -> None:
    rows = [
        (str(entry.number), entry.name, f"{entry.seconds:.0f}", str(entry.landed), entry.effect)
        for entry in strikes
    ]
    columns = ("fault", "kind", "after s", "landed", "what")
    print_table(console, ReportTable("Faults", columns, tuple(rows)))

    for fault in skipped:
        print_line(console, f"Skipped: {fault.name}: {fault.not_here}.")

    verdicts = [(entry.name, "yes" if entry.holds else "NO", entry.detail) for entry in results]
    print_table(console, ReportTable("Afterwards", ("check", "holds", "found"), tuple(verdicts)))
    effective_faults = [entry for entry in strikes if entry.effect != NO_TARGET]
    kinds = len({entry.name for entry in effective_faults})
    print_line(console, f"{len(effective_faults)} faults of {kinds} kinds were done.")
