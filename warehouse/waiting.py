"""Loading that waits: another program holds the warehouse, and what has landed is kept for later.

Any open connection of another program keeps writers out, a read-only one in a notebook too. Landing
folders are complete without the warehouse, so a sweep goes on: a mark beside them says that there
is something to load, until a later landing, the end of the sweep or the next command has loaded it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.runtime.errors import Locked
from warehouse.connect import reading, warehouse_path
from warehouse.landing import LandingManifest, is_loaded
from warehouse.load import LoadReport, load_all, load_landings
from warehouse.place import WAITING, loading_waits

FIRST_SECONDS = 30.0  # longer than any loader of ours holds the file
LATER_SECONDS = 1.0  # while loading waits already: training is what the time is for
LAST_SECONDS = 10.0  # at the end of a sweep


def load_or_wait(folders: Sequence[Path], database: Path | None = None) -> Locked | None:
    """Load landing folders of one root, and what waits beside them; or mark them as waiting, and
    return the reason.

    Raises BrokenFolder if a folder does not match its manifest.
    """
    root = folders[0].parent
    waits = loading_waits(root)
    # A program that only reads keeps writers out, but not this look.
    if waits and _are_there(folders, database):
        return None

    try:
        load_landings(folders, database, LATER_SECONDS if waits else FIRST_SECONDS)
    except Locked as error:
        if _are_there(folders, database):
            return None
        # Renews the time of a mark that is there, by which load_waiting sees that more has come.
        (root / WAITING).touch()
        return error

    if waits:
        load_waiting(root, database)
    return None


def load_all_or_wait(root: Path, database: Path | None = None) -> LoadReport | Locked:
    """Load everything under `root`; or mark it as waiting, and return the reason."""
    try:
        return load_all(root, database, FIRST_SECONDS)
    except Locked as error:
        (root / WAITING).touch()
        return error


def load_waiting(
    root: Path, database: Path | None = None, wait: float = LATER_SECONDS
) -> Locked | None:
    """Load what waits under `root`, if anything does; the reason where it still has to."""
    mark = root / WAITING
    try:
        while True:
            marked = mark.stat().st_mtime_ns
            load_all(root, database, wait)
            if mark.stat().st_mtime_ns == marked:  # else more has come to wait meanwhile
                mark.unlink()
    except FileNotFoundError:  # nothing waits any more
        return None
    except Locked as error:
        return error


def _are_there(folders: Sequence[Path], database: Path | None) -> bool:
    """Whether folders are loaded, as far as readers may see at the moment."""
    manifests = [LandingManifest.read(folder, deep=True) for folder in folders]
    if not (database or warehouse_path()).is_file():
        return False

    try:
        with reading(database, wait=0.0) as con:
            return all(
                is_loaded(con, folder.name, manifest.digest)
                for folder, manifest in zip(folders, manifests, strict=True)
            )
    except Locked:
        return False


def leave_for_later(root: Path) -> None:
    """Mark that something under `root` waits to be loaded."""
    (root / WAITING).touch()


def waiting_sentence(error: Locked) -> str:
    """What a user reads: who holds the file, and what becomes of the results."""
    holder = str(error).partition("; ")[0]
    return (
        f"{holder}. Loading waits: what has landed is kept, and is loaded as soon as that is "
        "closed, by the sweep or by the next command."
    )
