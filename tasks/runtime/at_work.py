"""A note, by a lock, that a flow works in a home, also between two steps."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from tasks.runtime.home import home
from tasks.runtime.locks import is_held, lock_of, locked
from tasks.runtime.temporary import remove_abandoned_locks


def is_at_work() -> bool:
    """Whether a flow, of this process or another one, works in the home."""
    return any(is_held(path) for path in (home() / "flows").glob(".*.lock"))


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Hold a lock in the home: whoever removes folders there asks for it (`tasks/removal.py`).

    Nothing else shows a process without a server of its own, such as a worker.
    """
    folder = home() / "flows"
    remove_abandoned_locks(folder, ".*.lock")
    note = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with locked(note):
            yield
    finally:
        with contextlib.suppress(OSError):
            lock_of(note).unlink()
