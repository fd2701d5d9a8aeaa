"""What the machines of a work pool share: landing folders, and finished adapters.

TRIAGE_SHARED/landing/<id>        what completed: the first version stays
TRIAGE_SHARED/failed/<id>         trainings that failed: the last version, until one completes
TRIAGE_SHARED/experiments/<id>    an adapter, its curve and its summary
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tasks.runtime.errors import BrokenFolder
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.files import write_atomic
from tasks.runtime.shared import SharedFolder
from tasks.runtime.store import intact_manifest, read_manifest

LANDING = "landing"
FAILED = "failed"
EXPERIMENTS = "experiments"
MARK = ".shared.json"  # in a landing folder: where it was copied to
KINDS = ("training", "evaluation", "variant", "fidelity", "dataset")  # whose id is their content's


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
    mark = None
    with contextlib.suppress(OSError, ValueError):
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    if mark == {"url": shared.url} and not (look and shared.manifest(name) is None):
        return True

    if is_failed:
        shared.remove(name)
    if shared.put(folder, name)["digest"] != manifest["digest"]:
        return False

    # Last, so that a copy that was cut off is made again.
    write_atomic(folder / MARK, json.dumps({"url": shared.url}))
    return True


def fetch(shared: SharedFolder, id: str, landing: Path, place: str = LANDING) -> bool:
    """Bring the version that counts to `landing`, unless it is here, undamaged; whether it is here
    now. Raises NotShared, and BrokenFolder for a damaged one.

    `place`: LANDING or FAILED.
    """
    manifest = shared.manifest(f"{place}/{id}")
    if manifest is None:
        return False

    final = landing / id
    local_manifest = intact_manifest(final, deep=True)
    if local_manifest is not None and local_manifest["digest"] == manifest["digest"]:
        return True
    if not shared.get(f"{place}/{id}", final):
        return False

    write_atomic(final / MARK, json.dumps({"url": shared.url}))
    return True


def bring_adapter(shared: SharedFolder, folder: Path, emit: Emit) -> bool:
    """Bring a finished training from the shared place, unless it is here; whether it was brought.

    A damaged one is left out, with a warning. Raises NotShared.
    """
    if intact_manifest(folder) is not None:
        return False
    try:
        return shared.get(f"{EXPERIMENTS}/{folder.name}", folder)
    except BrokenFolder as error:
        emit(StepWarning(f"What another machine trained is not used: {error}"))
        return False


def share_adapter(shared: SharedFolder, folder: Path) -> None:
    """Copy a finished training to the shared place, unless one is there. Raises NotShared."""
    if intact_manifest(folder) is not None:
        shared.put(folder, f"{EXPERIMENTS}/{folder.name}")
