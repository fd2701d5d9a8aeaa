"""The kinds of faults: what each does to a sweep that runs, and where it can be done."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.bench.chaos import namespace
from flows.bench.chaos.place import POLL_SECONDS, ChaosPlace

WAIT_SECONDS = 60.0  # for the process or file that a fault needs
STOP_SECONDS = 20.0
SHORT_SECONDS = 6.0  # of a full disk, a read-only folder, a cut network
LOCK_SECONDS = 20.0
LEAVE_SECONDS = 5.0  # in which the processes of a killed sweep must be gone
CACHED = ("models", "prefixes", "experiments", "experiments/*/scores", "baselines", "sources")
IN_NAMESPACE = "needs namespaces (unshare), which this machine does not allow"
WITHOUT_POOL = "a sweep without a work pool has none"
NO_TARGET = "nothing to strike"
Strike = Callable[[ChaosPlace, random.Random], str]


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `strike` does it and returns what was struck; `not_here`: why this machine,
    or a sweep of this kind, cannot have it.
    """

    name: str
    strike: Strike
    not_here: str | None = None


def known_faults() -> list[Fault]:
    """Every kind; those that cannot be done here say why."""
    outside = None if namespace.is_entered() else IN_NAMESPACE
    return [
        Fault("child killed", _killing(ChaosPlace.step)),
        Fault("parent killed", _kill_parent),
        Fault("fork server killed", _killing(ChaosPlace.fork_server)),
        Fault("Prefect server killed", _killing(ChaosPlace.prefect_server)),
        Fault("child stopped for 20 s", _stop_child),
        Fault("byte flipped in a cached file", _flip_cached),
        Fault("byte flipped in a landing file", _flip_landed),
        Fault("warehouse locked", _lock_warehouse),
        Fault("disk full", _fill_disk, outside),
        Fault("folder read-only", _forbid_writing, outside),
        Fault("network to the server cut", _cut_network, outside),
        Fault("worker killed", _no_strike, WITHOUT_POOL),
        Fault("PostgreSQL killed", _no_strike, WITHOUT_POOL),
    ]


def drawn(kinds: list[Fault], count: int, rng: random.Random) -> list[Fault]:
    """`count` faults: every kind once in a random order, then again in another."""
    order: list[Fault] = []
    while len(order) < count:
        order += rng.sample(kinds, len(kinds))
    return order[:count]


def _killing(find: Callable[[ChaosPlace], psutil.Process | None]) -> Strike:
    def strike(place: ChaosPlace, rng: random.Random) -> str:
        process = _found(place, find)
        if process is None:
            return NO_TARGET
        with contextlib.suppress(psutil.Error):
            process.kill()
        return f"process {process.pid}"

    return strike


def _kill_parent(place: ChaosPlace, rng: random.Random) -> str:
    sweep = place.running()
    sweep.kill()
    sweep.wait()
    started = time.monotonic()
    while (left := place.processes()) and time.monotonic() < started + LEAVE_SECONDS:
        time.sleep(0.05)
    if left:
        return f"process {sweep.pid}; {len(left)} of its processes stayed {LEAVE_SECONDS:.0f} s"
    return f"process {sweep.pid}; its processes left in {time.monotonic() - started:.1f} s"


def _stop_child(place: ChaosPlace, rng: random.Random) -> str:
    process = _found(place, ChaosPlace.step)
    if process is None:
        return NO_TARGET
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOP_SECONDS)
        process.send_signal(signal.SIGCONT)
    return f"process {process.pid}"


def _flip_cached(place: ChaosPlace, rng: random.Random) -> str:
    return _flip(
        place, rng, (path for kind in CACHED for path in place.home.glob(f"{kind}/[!.]*/"))
    )


def _flip_landed(place: ChaosPlace, rng: random.Random) -> str:
    return _flip(place, rng, place.home.glob("landing/[!.]*/"))


def _flip(place: ChaosPlace, rng: random.Random, folders: Iterable[Path]) -> str:
    """Change a bit of a file that a manifest lists, at a random place."""
    files = sorted(file for folder in folders for file in _listed(folder))
    if not files:
        return NO_TARGET
    file = rng.choice(files)
    with contextlib.suppress(OSError), file.open("r+b") as handle:
        position = rng.randrange(file.stat().st_size)
        handle.seek(position)
        (value,) = handle.read(1)
        handle.seek(position)
        handle.write(bytes([value ^ 1]))
    return str(file.relative_to(place.home))


def _listed(folder: Path) -> list[Path]:
    """The files of a complete folder that are not empty."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        names = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return [folder / name for name in names if (folder / name).stat().st_size]
    return []


def _lock_warehouse(place: ChaosPlace, rng: random.Random) -> str:
    if not place.warehouse.exists():
        return NO_TARGET
    code = (
        "import duckdb, sys, time\n"
        "end = time.monotonic() + 30\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        held = duckdb.connect(sys.argv[1])\n"
        "        break\n"
        "    except duckdb.Error:\n"
        "        time.sleep(0.05)\n"
        f"time.sleep({LOCK_SECONDS})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(place.warehouse)], capture_output=True)
    return f"for {LOCK_SECONDS:.0f} s"


def _fill_disk(place: ChaosPlace, rng: random.Random) -> str:
    filler = place.home / "filler"
    written = 0
    try:
        with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                written += handle.write(bytes(1 << 20))
        time.sleep(SHORT_SECONDS)
    finally:
        filler.unlink(missing_ok=True)
    return f"{written >> 20} MB, for {SHORT_SECONDS:.0f} s"


def _forbid_writing(place: ChaosPlace, rng: random.Random) -> str:
    folders = [place.home / name for name in ("experiments", "landing", "models")]
    folder = rng.choice([path for path in folders if path.is_dir()] or [place.home])
    namespace.forbid_writing(folder)
    time.sleep(SHORT_SECONDS)
    namespace.allow_writing(folder)
    return f"{folder.name}, for {SHORT_SECONDS:.0f} s"


def _cut_network(place: ChaosPlace, rng: random.Random) -> str:
    namespace.set_network(False)
    time.sleep(SHORT_SECONDS)
    namespace.set_network(True)
    return f"for {SHORT_SECONDS:.0f} s"


def _no_strike(place: ChaosPlace, rng: random.Random) -> str:
    raise AssertionError("this kind is never drawn")


def _found(
    place: ChaosPlace, find: Callable[[ChaosPlace], psutil.Process | None]
) -> psutil.Process | None:
    """The process that a fault strikes, as soon as there is one; None if the sweep ends before."""

    deadline = time.monotonic() + WAIT_SECONDS
    while not place.ended() and time.monotonic() < deadline:
        if (process := find(place)) is not None:
            return process
        time.sleep(POLL_SECONDS)
    return None
