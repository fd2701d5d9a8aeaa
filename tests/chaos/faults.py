"""The kinds of faults: what each does to a sweep that runs. Each returns what was struck."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import psutil

from tests.chaos.sweeps import POLL_SECONDS, PooledSweep, Sweep

WAIT_SECONDS = 60.0  # for the process or file that a fault needs
SHORT_SECONDS = 20.0  # of a stop or a lock
# Not models and prefixes: steps map their files, and would not see a later change.
CACHED = ("experiments", "experiments/*/scores", "baselines", "sources")
LANDED = ("landing",)
NO_TARGET = "nothing to strike"
Fault = Callable[[Sweep, random.Random], str]


def strike(
    kind: str, blow: Callable[[psutil.Process], None], sweep: Sweep, rng: random.Random
) -> str:
    """Strike one of the processes that the method `kind` of a sweep finds, as soon as there is one;
    none if the sweep ends before.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    command = sweep.running()
    while not (found := getattr(sweep, kind)()):
        if command.poll() is not None or time.monotonic() > deadline:
            return NO_TARGET
        sweep.keep()
        time.sleep(POLL_SECONDS)

    process = rng.choice(found)
    with contextlib.suppress(psutil.Error, SystemError):
        blow(process)
    return f"process {process.pid}"


def stop_for_a_while(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(SHORT_SECONDS)
    process.send_signal(signal.SIGCONT)


kill = psutil.Process.kill  # kill -9


def damage(kinds: tuple[str, ...], truncated: bool, sweep: Sweep, rng: random.Random) -> str:
    """Change a bit of a file that the manifest of a complete folder lists, or leave half of it, as
    on a disk that was full.
    """
    files: list[Path] = []
    for home in sweep.homes:
        for manifest in (
            path for kind in kinds for path in home.glob(f"{kind}/[!.]*/manifest.json")
        ):
            with contextlib.suppress(OSError, ValueError, KeyError):
                names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
                listed = [manifest.parent / name for name in names]
                files += [file for file in listed if file.stat().st_size]
    if not files:
        return NO_TARGET

    file = rng.choice(sorted(files))
    with contextlib.suppress(OSError), file.open("r+b") as handle:
        size = file.stat().st_size
        if truncated:
            handle.truncate(size // 2)
        else:
            position = rng.randrange(size)
            handle.seek(position)
            (value,) = handle.read(1)
            handle.seek(position)
            handle.write(bytes([value ^ 1]))
    return str(file.relative_to(sweep.place.folder))


def lock_warehouse(sweep: Sweep, rng: random.Random) -> str:
    """Hold the file open, as another program does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while sweep.place.warehouse.exists() and time.monotonic() < deadline:
        with contextlib.suppress(duckdb.Error), duckdb.connect(str(sweep.place.warehouse)):
            time.sleep(SHORT_SECONDS)
            return f"for {SHORT_SECONDS:.0f} s"
        time.sleep(POLL_SECONDS)
    return NO_TARGET


FAULTS: dict[str, Fault] = {
    "step killed": partial(strike, "steps", kill),
    "sweep killed": partial(strike, "command", kill),
    "Prefect server killed": partial(strike, "server", kill),
    "step stopped": partial(strike, "steps", stop_for_a_while),
    "byte flipped in a cached file": partial(damage, CACHED, False),
    "byte flipped in a landing file": partial(damage, LANDED, False),
    "landing file truncated": partial(damage, LANDED, True),
    "warehouse locked": lock_warehouse,
}
IN_POOL: dict[str, Fault] = FAULTS | {"worker killed": partial(strike, "workers", kill)}


def drawn(sweep: Sweep, count: int, rng: random.Random) -> list[tuple[str, Fault]]:
    """`count` faults: every kind once in a random order, then again in another."""
    kinds = list((IN_POOL if isinstance(sweep, PooledSweep) else FAULTS).items())
    order: list[tuple[str, Fault]] = []
    while len(order) < count:
        order += rng.sample(kinds, len(kinds))
    return order[:count]
