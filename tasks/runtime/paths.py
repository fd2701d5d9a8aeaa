"""Questions about paths that a user names, which may be longer than paths can be."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

# A path with at least one folder.
_PATH = re.compile(r"(?:~[^\s/]*|\b[A-Za-z]:|(?<![\w.]))/[^\s'\":;,()]*")


def ask(question: Callable[[Path], bool], path: Path) -> bool:
    """Ask about a path; False where it cannot even be looked at, e.g. with too long a name."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def expanded(path: str) -> Path:
    """A path in which `~` is the user's folder; as it is written where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def without_folders(text: str) -> str:
    """A text in which of each path only the name of a file is left: where a user's files lie, and
    so what they are called, concerns nobody.

    The user's own folders are looked for first, since their names may hold spaces.
    """
    own_folders = (Path.home(), Path.cwd(), expanded(os.environ.get("TRIAGE_HOME", ".")).absolute())
    for folder in sorted(map(str, own_folders), key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, "~")
    return _PATH.sub(lambda match: _file_name(match.group()), text)


def _file_name(path: str) -> str:
    """The last part of a path, if it looks like a file's name."""
    name = path.rstrip(".").rpartition("/")[2]
    return name if "." in name else "(path)"
