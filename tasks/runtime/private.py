"""Folders that hold patients' texts: only their owner may read them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OTHERS = 0o077


def folder_mode(private: bool) -> int:
    """The mode of a new folder, from which the umask takes more."""
    return FOLDER_MODE if private else 0o777


def make_parent(folder: Path, private: bool) -> None:
    """Make the folder in which `folder` will lie; that of private ones is private too."""
    parent = folder.parent
    parent.mkdir(mode=folder_mode(private), parents=True, exist_ok=True)
    if private:
        _restrict(parent, FOLDER_MODE)


def close_to_others(folder: Path) -> None:
    """Take everybody else's access to a folder, to what is in it, and to its parent.

    Nothing happens where there is no folder. What belongs to another user, or lies on a disk
    without permissions, stays as it is.
    """
    _restrict(folder.parent, FOLDER_MODE)
    for parent, _, names in os.walk(folder):
        _restrict(Path(parent), FOLDER_MODE)
        for name in names:
            _restrict(Path(parent, name), FILE_MODE)


def _restrict(path: Path, mode: int) -> None:
    """Set the mode of a file or folder unless others have no access; links are not followed."""
    with contextlib.suppress(OSError):
        if not path.is_symlink() and path.stat().st_mode & OTHERS:
            path.chmod(mode)
