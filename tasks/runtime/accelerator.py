"""One MLX step at a time on an accelerator that several workers of a machine share.

The exclusion is a file lock in the machine's temporary folder rather than a limit on a Prefect
server: it holds between all processes of this machine, whatever home or server they use, needs no
connection, and is free again at the instant at which its holder dies.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.events import Emit, Note
from tasks.runtime.locks import locked

VARIABLE = "TRIAGE_ACCELERATOR"
POLL_SECONDS = 0.2
SILENT_SECONDS = 5.0  # a turn that comes sooner is not worth a line


@contextlib.contextmanager
def reserved(
    check: Callable[[], None] = lambda: None, on_event: Emit = lambda event: None
) -> Iterator[None]:
    """Hold the accelerator that `TRIAGE_ACCELERATOR` names while the block runs, after waiting for
    it; nothing where the variable is not set.

    `check` is called while it waits, and may raise to give up. A wait of more than `SILENT_SECONDS`
    is reported to `on_event`, once. Raises BadInput where the folder of locks is another user's.
    """
    name = os.environ.get(VARIABLE, "").strip()
    if not name:
        yield
        return

    start = time.monotonic()
    reported = False
    folder = _folder()
    with contextlib.ExitStack() as locks:
        while True:
            try:
                locks.enter_context(locked(folder / name))
                break
            except Locked:
                check()
                if not reported and time.monotonic() - start >= SILENT_SECONDS:
                    on_event(Note(_wait(name)))
                    reported = True
                time.sleep(POLL_SECONDS)
        yield


def _wait(name: str) -> str:
    return (
        f"Waiting: another step runs on accelerator {name!r} ({VARIABLE}) of this machine. "
        "To run both at once, give this one another name."
    )


def _folder() -> Path:
    """A folder of this machine and user: a file that another user made could not be opened.

    Raises BadInput where another user has made it, who could put links there.
    """
    folder = Path(tempfile.gettempdir()) / f"triage-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)

    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BadInput(
            f"{folder}, which holds the locks of your accelerators, belongs to someone else; remove "
            "it, or set TMPDIR to a folder of your own."
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)

    return folder
