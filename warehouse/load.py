"""From landing folders into the warehouse file: idempotent, one transaction per folder; and loading
that waits while another program holds the file.

Any open connection of another program keeps writers out, a read-only one in a notebook too. Landing
folders are complete without the warehouse, so a sweep goes on: a mark beside them says that there
is something to load, until a later landing, the end of the sweep or the next command has loaded it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tasks.runtime.errors import Locked
from warehouse.comparison import pools
from warehouse.connect import WAIT_SECONDS, WAITING, loading_waits, reading, warehouse_path
from warehouse.fill import LoadReport, fill, fill_part, is_loaded, landed_at
from warehouse.landing import LandingManifest, landing_folders
from warehouse.rebuild import current

FIRST_SECONDS = 30.0  # longer than any loader of ours holds the file
LATER_SECONDS = 1.0  # while loading waits already: training is what the time is for
LAST_SECONDS = 10.0  # at the end of a sweep
BETWEEN_SECONDS = 0.6  # longer than the pause of a process that waits for the file


# What this process has seen to be loaded, ids and digests, by the state of the file. A finished sweep,
# typed again, asks for each of its results, and opening the file takes longer than all else.
_seen: dict[object, set[tuple[str, str]]] = {}


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return None
    return path, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _note_seen(path: Path, contents: Collection[tuple[str, str]]) -> None:
    """Note what is loaded, once the connection is closed: closing it may still write."""
    stamp = _stamp(path)
    seen = {*_seen.get(stamp, set()), *contents}
    _seen.clear()
    _seen[stamp] = seen


def load_landings(
    folders: Sequence[Path], database: Path | None = None, wait: float = WAIT_SECONDS
) -> list[str]:
    """Load landing folders in their order, a transaction each, through one connection: opening and
    closing a large file takes longer than the rows of an experiment. Returns the ids of those whose
    content was not loaded already.

    Raises BrokenFolder if a folder does not match its manifest, and loads none of them then; Locked
    if the warehouse stays in use for `wait` seconds.
    """
    # Before the file is opened: nobody waits while files are hashed, and a folder that is damaged
    # keeps all of them from being loaded.
    manifests = {folder: LandingManifest.read(folder, deep=True) for folder in folders}
    contents = {(folder.name, manifest.digest) for folder, manifest in manifests.items()}
    path = database or warehouse_path()
    if contents <= _seen.get(_stamp(path), set()):
        return []

    with current(database, wait, folders[0].parent) as con:
        new_ids = [folder.name for folder in folders if fill(con, folder, manifests[folder])]
        # Once, after the last of them: a pool is made from all of its pairs.
        pools.refresh_after(con, new_ids)

    _note_seen(path, contents)
    return new_ids


def load_all(root: Path, database: Path | None = None, wait: float = WAIT_SECONDS) -> LoadReport:
    """Load every new landing folder under `root`; a broken one does not stop the others.

    Other processes have a turn at the file between two parts of the work. Raises Locked if the
    warehouse stays in use for `wait` seconds.
    """
    report = LoadReport()
    folders = sorted(landing_folders(root), key=landed_at)
    with current(database, wait, root) as con:
        fill_part(con, folders, report)

    while folders:
        time.sleep(BETWEEN_SECONDS)
        # A load that has begun waits for the turn of others, however short `wait` is.
        with current(database, max(wait, WAIT_SECONDS), root) as con:
            fill_part(con, folders, report)

    _note_seen(database or warehouse_path(), report.contents)
    return report


def load_or_wait(folders: Sequence[Path]) -> Locked | None:
    """Load landing folders of one root, and what waits beside them; or mark them as waiting, and
    return the reason.

    Raises BrokenFolder if a folder does not match its manifest.
    """
    root = folders[0].parent
    waits = loading_waits(root)
    # A program that only reads keeps writers out, but not this look.
    if waits and _are_there(folders):
        return None

    try:
        load_landings(folders, wait=LATER_SECONDS if waits else FIRST_SECONDS)
    except Locked as error:
        if _are_there(folders):
            return None
        # Renews the time of a mark that is there, by which load_waiting sees that more has come.
        (root / WAITING).touch()
        return error

    if waits:
        load_waiting(root)
    return None


def load_waiting(root: Path, wait: float = LATER_SECONDS) -> Locked | None:
    """Load what waits under `root`, if anything does; the reason where it still has to."""
    mark = root / WAITING
    try:
        while True:
            marked = mark.stat().st_mtime_ns
            load_all(root, wait=wait)
            if mark.stat().st_mtime_ns == marked:  # else more has come to wait meanwhile
                mark.unlink()
    except FileNotFoundError:  # nothing waits any more
        return None
    except Locked as error:
        return error


def _are_there(folders: Sequence[Path]) -> bool:
    """Whether folders are loaded, as far as readers may see at the moment."""
    digests = {folder.name: LandingManifest.read(folder, deep=True).digest for folder in folders}
    if not warehouse_path().is_file():
        return False

    try:
        with reading(wait=0.0) as con:
            return all(is_loaded(con, id, digest) for id, digest in digests.items())
    except Locked:
        return False


def waiting_sentence(error: Locked) -> str:
    """What a user reads: who holds the file, and what becomes of the results."""
    holder = str(error).partition("; ")[0]
    return (
        f"{holder}. Loading waits: what has landed is kept, and is loaded as soon as that is "
        "closed, by the sweep or by the next command."
    )
