"""What each kind of fault does to a sweep that runs; each function returns what was struck."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.bench.chaos import namespace
from flows.bench.chaos.fleet import MACHINES, FleetPlace
from flows.bench.chaos.place import POLL_SECONDS, ChaosPlace
from flows.bench.chaos.processes import mapped_files, processes_of

WAIT_SECONDS = 60.0  # for the process or file that a fault needs
STOP_SECONDS = 20.0
SHORT_SECONDS = 6.0  # of a full disk, a read-only folder, a cut network
LOCK_SECONDS = 20.0
LEAVE_SECONDS = 5.0  # in which the processes of a killed sweep must be gone
CACHED = ("models", "prefixes", "experiments", "experiments/*/scores", "baselines", "sources")
MAPPED = ("models", "prefixes")  # kinds whose files steps map
NO_TARGET = "nothing to strike"
StrikeFunction = Callable[[Any, random.Random], str]  # in a ChaosPlace, or in a FleetPlace alone


def killing(target: str) -> StrikeFunction:
    """Kill the process that the method `target` of a place finds."""

    def strike(place: ChaosPlace, rng: random.Random) -> str:
        process = target_process(place, target)
        if process is None:
            return NO_TARGET
        with contextlib.suppress(psutil.Error):
            process.kill()
        return f"process {process.pid}"

    return strike


def kill_parent(place: ChaosPlace, rng: random.Random) -> str:
    sweep = place.running()
    sweep.kill()
    sweep.wait()

    start = time.monotonic()
    while (
        remaining_processes := processes_of([place.home])
    ) and time.monotonic() < start + LEAVE_SECONDS:
        time.sleep(0.05)
    if remaining_processes:
        return (
            f"process {sweep.pid}; {len(remaining_processes)} of its processes stayed "
            f"{LEAVE_SECONDS:.0f} s"
        )

    return f"process {sweep.pid}; its processes left in {time.monotonic() - start:.1f} s"


def kill_machine(place: FleetPlace, rng: random.Random) -> str:
    """What a power cut does: nothing of a machine runs any more; its `triage join` starts over."""
    name = rng.choice(MACHINES)
    killed = processes_of([place.disk / name])
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return f"{name}, with {len(killed)} processes"


def stop_child(place: ChaosPlace, rng: random.Random) -> str:
    process = target_process(place, "step")
    if process is None:
        return NO_TARGET

    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOP_SECONDS)
        process.send_signal(signal.SIGCONT)

    return f"process {process.pid}"


def flip_cached(place: ChaosPlace, rng: random.Random) -> str:
    return _flip(place, rng, _folders(place, CACHED))


def flip_landed(place: ChaosPlace, rng: random.Random) -> str:
    return _flip(place, rng, _folders(place, ["landing"]))


def flip_shared(place: FleetPlace, rng: random.Random) -> str:
    """Damage a result or an adapter that the machines share."""
    return _flip_one(place, rng, sorted(place.shared.glob("*/*/*/*.*")))


def _folders(place: ChaosPlace, kinds: Iterable[str]) -> Iterator[Path]:
    """The folders of some kinds in all homes, temporary ones aside."""
    for home in place.homes:
        for kind in kinds:
            yield from home.glob(f"{kind}/[!.]*/")


def _flip(place: ChaosPlace, rng: random.Random, folders: Iterable[Path]) -> str:
    """Damage a file that a manifest lists."""
    return _flip_one(
        place, rng, sorted(file for folder in folders for file in _listed_files(folder))
    )


def _may_be_mapped(place: ChaosPlace, file: Path, mapped: set[str] | None) -> bool:
    if mapped is None:
        return any(kind in file.relative_to(place.disk).parts for kind in MAPPED)
    return str(file) in mapped


def _flip_one(place: ChaosPlace, rng: random.Random, files: list[Path]) -> str:
    """Change a bit at a random place of one of the files that no step has open."""
    mapped = mapped_files(place.processes())
    free = [file for file in files if not _may_be_mapped(place, file, mapped)]
    if not free:
        return NO_TARGET

    file = rng.choice(free)
    with contextlib.suppress(OSError), file.open("r+b") as handle:
        position = rng.randrange(file.stat().st_size)
        handle.seek(position)
        (value,) = handle.read(1)
        handle.seek(position)
        handle.write(bytes([value ^ 1]))

    return str(file.relative_to(place.disk))


def _listed_files(folder: Path) -> list[Path]:
    """The files of a complete folder that are not empty."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        names = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        return [folder / name for name in names if (folder / name).stat().st_size]
    return []


def lock_warehouse(place: ChaosPlace, rng: random.Random) -> str:
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


def fill_disk(place: ChaosPlace, rng: random.Random) -> str:
    filler = place.disk / "filler"
    written_bytes = 0
    try:
        # Unbuffered: closing would have to flush onto the full disk, outside `suppress`.
        with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                written_bytes += handle.write(bytes(1 << 20))
        time.sleep(SHORT_SECONDS)
    finally:
        filler.unlink(missing_ok=True)

    return f"{written_bytes >> 20} MB, for {SHORT_SECONDS:.0f} s"


def make_read_only(place: ChaosPlace, rng: random.Random) -> str:
    folder = rng.choice([path for path in place.writable if path.is_dir()] or [place.home])
    namespace.forbid_writing(folder)
    time.sleep(SHORT_SECONDS)
    namespace.allow_writing(folder)
    return f"{folder.relative_to(place.folder)}, for {SHORT_SECONDS:.0f} s"


def cut_network(place: ChaosPlace, rng: random.Random) -> str:
    namespace.set_network(False)
    time.sleep(SHORT_SECONDS)
    namespace.set_network(True)
    return f"for {SHORT_SECONDS:.0f} s"


def target_process(place: ChaosPlace, target: str) -> psutil.Process | None:
    """The process that a fault strikes, as soon as there is one; None if the sweep ends before."""
    find: Callable[[], psutil.Process | None] = getattr(place, target)
    deadline = time.monotonic() + WAIT_SECONDS
    while (process := find()) is None:
        if place.ended() or time.monotonic() > deadline:
            return None
        place.keep()
        time.sleep(POLL_SECONDS)

    return process
