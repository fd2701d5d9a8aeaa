"""Landing folders between this machine and the place that its fleet shares.

TRIAGE_SHARED/landing/<id>    what completed: the first version stays
TRIAGE_SHARED/failed/<id>     trainings that failed: the last version, until one completes
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from tasks.runtime.files import write_atomic
from tasks.runtime.shared import SharedFolder
from tasks.runtime.store import intact_manifest, read_manifest

LANDING = "landing"
FAILED = "failed"
MARK = ".shared.json"  # in a landing folder: where it was copied to
KINDS = ("training", "evaluation", "variant", "fidelity", "dataset")  # whose id is their content's
LAG_SECONDS = 60.0  # after which a folder that another machine has written is not there
LAG_POLL_SECONDS = 1.0


def share(shared: SharedFolder, folder: Path, is_failed: bool = False, look: bool = True) -> bool:
    """Copy a landing folder to the shared place, once; False if another machine's version is there,
    which stays. Raises NotShared.

    One that was copied before is copied again where it is gone since, being damaged; it is not
    looked for without `look`.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("kind") not in KINDS:
        return True

    name = f"{FAILED if is_failed else LANDING}/{folder.name}"
    if _is_marked(shared, folder) and not (look and shared.manifest(name) is None):
        return True

    if is_failed:
        shared.replace(folder, name)
    elif shared.put(folder, name)["digest"] != manifest["digest"]:
        return False

    # Last, so that a copy that was cut off is made again.
    write_atomic(folder / MARK, json.dumps({"url": shared.url}))
    return True


def _is_marked(shared: SharedFolder, folder: Path) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(mark == {"url": shared.url})


def fetch(shared: SharedFolder, id: str, landing: Path) -> bool:
    """Bring the version that counts of what completed to `landing`, unless it is here, undamaged;
    whether it is here now. Raises NotShared, and BrokenFolder for a damaged one.
    """
    return _fetch(shared, f"{LANDING}/{id}", landing / id)


def fetch_written(
    shared: SharedFolder, ids: Iterable[str], landing: Path, completed: Collection[str] = ()
) -> None:
    """Bring what another machine says to have landed or recorded as failed, and wait for it where
    the place shows new files late. `completed`: trainings that did not fail here, of which no
    failure elsewhere takes the place.
    """
    deadline = time.monotonic() + LAG_SECONDS
    for id in ids:
        while not (
            fetch(shared, id, landing) or id in completed or _fetch_failed(shared, id, landing)
        ):
            if time.monotonic() > deadline:  # the others are there all the same
                break
            time.sleep(LAG_POLL_SECONDS)


def _fetch_failed(shared: SharedFolder, id: str, landing: Path) -> bool:
    return _fetch(shared, f"{FAILED}/{id}", landing / id)


def _fetch(shared: SharedFolder, name: str, final: Path) -> bool:
    manifest = shared.manifest(name)
    if manifest is None:
        return False

    local_manifest = intact_manifest(final, deep=True)
    if local_manifest is not None and local_manifest["digest"] == manifest["digest"]:
        return True
    if not shared.get(name, final):
        return False

    write_atomic(final / MARK, json.dumps({"url": shared.url}))
    return True
