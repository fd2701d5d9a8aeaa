"""One MLX step at a time on an accelerator that several workers of a machine share.

The exclusion is a file lock in the machine's temporary folder rather than a limit on a Prefect
server: it holds between all processes of this machine, whatever home or server they use, needs no
connection, and is free again at the instant at which its holder dies.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.runtime.errors import Locked
from tasks.runtime.store import locked

VARIABLE = "TRIAGE_ACCELERATOR"
POLL_SECONDS = 0.2


@contextlib.contextmanager
def reserved(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the accelerator that `TRIAGE_ACCELERATOR` names while the block runs, after waiting for
    it; nothing where the variable is not set.

    `check` is called while it waits, and may raise to give up.
    """
    name = os.environ.get(VARIABLE, "").strip()
    if not name:
        yield
        return

    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(_folder() / name))
                break
            except Locked:
                check()
                time.sleep(POLL_SECONDS)
        yield


def _folder() -> Path:
    """A folder of this machine and user: a file that another user made could not be opened."""
    return Path(tempfile.gettempdir()) / f"triage-{os.getuid()}"
