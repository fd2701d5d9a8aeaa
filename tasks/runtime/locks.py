"""Locks on files and folders by `flock`, which are released when their process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.runtime.errors import BadInput, Locked, disk_error

LOCK_POLL_SECONDS = 0.02
LOCK_SECONDS = 1.0  # longer than `is_locked` holds it
BUILD_SECONDS = 1800.0  # another process downloads or converts the same model


@contextlib.contextmanager
def replacing(final: Path) -> Iterator[None]:
    """Inspect, remove or replace a folder while no other process does; waits for one that is at it.

    The lock is that of the parent folder, which stays: between a look and a removal another
    builder's folder may appear.
    """
    with locked_folder(final.parent, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def locked(
    folder: Path, wait: float = 0.0, while_waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold an exclusive lock for `folder`, which is released when the process dies.

    `while_waiting` is called between two attempts; what it raises ends the wait. Raises Locked if
    another process still holds the lock after `wait` seconds, BadInput on a disk without locks.
    """
    path = lock_of(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Where others may write, too, a link could stand in its place.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise disk_error(error, path) from error

    try:
        _acquire(descriptor, folder, time.monotonic() + wait, while_waiting)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`.

    Asking holds it for an instant, so that a step waits a moment for it (LOCK_SECONDS).
    """
    return is_held(lock_of(folder))


def lock_of(folder: Path) -> Path:
    """The file by which `locked` locks a folder; it stays when the lock is released."""
    # Beside the folder, which may be removed and replaced while its lock is held.
    return folder.parent / f".{folder.name}.lock"


def _acquire(
    descriptor: int, folder: Path, deadline: float, while_waiting: Callable[[], None] | None
) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() >= deadline:
                raise Locked(
                    f"Another process is working on {folder}; wait for it or stop it."
                ) from error
        except OSError as error:
            raise BadInput(
                f"{folder.parent} is on a disk that locks no files ({error.strerror}); choose a "
                "TRIAGE_HOME on another one."
            ) from error

        if while_waiting is not None:
            while_waiting()
        time.sleep(LOCK_POLL_SECONDS)


@contextlib.contextmanager
def locked_folder(folder: Path, operation: int) -> Iterator[None]:
    """Lock a folder itself by `flock`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks keeps its leftovers, and its races.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock on a file or folder; asking holds it for an instant."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False

    try:
        # Shared, so that two who ask at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)

    return False
