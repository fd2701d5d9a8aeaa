"""TRIAGE_HOME, the folder of everything that can be rebuilt, and questions about paths that a user
names, which may be longer than paths can be.

Imports nothing heavy: every command starts here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from tasks.runtime.errors import BadInput, disk_error

# A path with at least one folder.
_PATH = re.compile(r"(?:~[^\s/]*|\b[A-Za-z]:|(?<![\w.]))/[^\s'\":;,()]*")


def home() -> Path:
    """`TRIAGE_HOME`, else `.triage` in the working folder."""
    return named_path("TRIAGE_HOME") or Path(".triage").resolve()


def named_path(variable: str) -> Path | None:
    """The absolute path that an environment variable names, `~` being the user's folder, or None.

    Raises BadInput for an unknown user's folder, and for a name that is too long for the disk.
    """
    value = os.environ.get(variable)
    if not value:
        return None

    try:
        path = Path(value).expanduser().resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
    except (RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{variable}={value[:80]} is no path ({reason}); choose another one."
        ) from error

    return path


def existing_home() -> Path:
    """`home()`, or its nearest parent that this user can see: the disk and the permissions are those
    of this folder.
    """
    return next(path for path in (home(), *home().parents) if ask(Path.exists, path))


def check_home() -> None:
    """Raise BadInput if `home()` cannot be a folder, since a file is in its place."""
    try:
        if not stat.S_ISDIR(home().stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, home()) from error


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
    """A text without its paths: where a user's files lie, and what they are called, concerns nobody.

    The user's own folders are looked for first, since their names may hold spaces.
    """
    own_folders = (Path.home(), Path.cwd(), expanded(os.environ.get("TRIAGE_HOME", ".")).absolute())
    for folder in sorted(map(str, own_folders), key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, "~")
    return _PATH.sub("(path)", text)
