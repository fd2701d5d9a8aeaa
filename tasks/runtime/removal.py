"""How folders are removed from a home: renamed first and removed then, so that what is interrupted
is found again, and never while something works there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from tasks.runtime.errors import Locked
from tasks.runtime.locks import is_held, locked
from tasks.runtime.store import PLACES

ASIDE = ".forgotten-"
# Where folders may be set aside.
PLACES_OF_ASIDES = (
    *("data", "experiments", "experiments/*/scores", "moved", "baselines", "valid"),
    *("prefixes", "models", "sources", "landing"),
)
LOCKED = ("experiments", "landing")  # whose folders have a lock that is held while they are made
LOCK_SECONDS = 5.0


def refuse_while_working(root: Path) -> None:
    """Raise Locked if a process holds a lock in a home: it trains, scores, prepares,
    loads, or answers with a model of it."""
    for pattern in ("*/.*.lock", *PLACES):
        for path in root.glob(pattern):
            if is_held(path):
                raise Locked(
                    f"Another process is working in {root} ({path.parent.name}/"
                    f"{path.name.strip('.').removesuffix('.lock')}); wait for it or stop it, then "
                    "run the same command."
                )


def remove(folders: Collection[Path]) -> None:
    """Remove folders. Raises Locked, and removes none, if another process makes one of them."""
    with contextlib.ExitStack() as stack:
        for folder in folders:
            if folder.parent.name in LOCKED:
                stack.enter_context(locked(folder, LOCK_SECONDS))
        # All are renamed before the first is removed, so that what an
        # interruption leaves is found again.
        asides = [_set_aside(folder) for folder in folders]
        for aside in asides:
            if aside.exists():  # one that lay in another one, or had its name, is gone by now
                shutil.rmtree(aside)


def aside_of(folder: Path) -> Path:
    """What a folder that is to be removed is renamed to."""
    return folder.with_name(f"{ASIDE}{folder.name}")


def _set_aside(folder: Path) -> Path:
    if folder.name.startswith(ASIDE):
        return folder
    aside = aside_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def leftovers(root: Path) -> list[Path]:
    """What an interrupted removal left."""
    return sorted(path for place in PLACES_OF_ASIDES for path in root.glob(f"{place}/{ASIDE}*"))


def bytes_below(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(
        status.st_size for status in status_below(folder) if not stat.S_ISDIR(status.st_mode)
    )


def status_below(folder: Path) -> Iterator[os.stat_result]:
    """The status of a folder and of all that is below; what a running sweep removes meanwhile is
    left out.
    """
    for parent, _, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent) / name for name in files)):
            with contextlib.suppress(FileNotFoundError):
                yield path.lstat()
