"""Temporary folders beside the ones that they will become: held while they are filled, and removed
when their builder was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from glob import escape
from pathlib import Path

from tasks.runtime.locks import is_held, locked_folder

# A young temporary folder is spared: its builder may not have locked it yet.
ABANDONED_SECONDS = 60.0
PREFIX = ".tmp-"
# Where temporary folders may lie in a home: of models, cases, landing folders and the like; of the
# scores and checkpoints of an experiment.
PLACES = (f"*/{PREFIX}*", f"experiments/*/*/{PREFIX}*")


@contextlib.contextmanager
def temporary_folder(final: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new folder beside `final`, to be filled and renamed to it; what was not renamed is removed."""
    folder = final.with_name(f"{PREFIX}{final.name}-{secrets.token_hex(6)}")
    try:
        folder.mkdir(mode=mode)
        with builder_lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def builder_lock(folder: Path) -> Iterator[None]:
    """Lock a temporary folder itself, so that other processes see that its builder is alive.

    Who looks whether it is holds the lock for an instant.
    """
    with locked_folder(folder, fcntl.LOCK_EX):
        yield


def remove_abandoned(final: Path) -> None:
    """Delete the temporary folders of killed builders of `final`."""
    _remove(final.parent.glob(f"{PREFIX}{escape(final.name)}-*"))


def remove_abandoned_locks(folder: Path, pattern: str) -> None:
    """Delete the lock files of killed processes: nobody holds them, and they are no longer young."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            is_young = time.time() - path.stat().st_mtime < ABANDONED_SECONDS
            if not is_young and not is_held(path):
                path.unlink()


def remove_all_abandoned(root: Path) -> None:
    """Delete the temporary folders of all killed builders in a home.

    A study that has changed meanwhile, or a step that is done, never builds these folders again.
    """
    for pattern in PLACES:
        _remove(root.glob(pattern))


def _remove(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            with contextlib.suppress(OSError):
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Raises where the builder lives and holds it: `_remove` passes over that.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
