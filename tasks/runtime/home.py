"""TRIAGE_HOME, the folder of everything that can be rebuilt.

Imports nothing heavy: every command starts here.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tasks.runtime.errors import BadInput, disk_error
from tasks.runtime.paths import ask


def home() -> Path:
    """`TRIAGE_HOME`, else `.triage` in the working folder.

    Raises BadInput for a path that cannot be one.
    """
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
        path.lstat()
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{variable}={value} is no path ({error}); choose another one.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadInput(
                f"{variable} names a path that is too long ({len(value)} characters); choose a "
                "shorter one."
            ) from error

    return path


def existing_home() -> Path:
    """`home()`, or its nearest parent that this user can see: the disk and the permissions are those
    of this folder.
    """
    return next(path for path in (home(), *home().parents) if ask(Path.exists, path))


def check_home() -> None:
    """Raise BadInput if `home()` cannot be a folder: a file is in its
    place, or its name is too long.
    """
    try:
        if not stat.S_ISDIR(home().stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, home()) from error
