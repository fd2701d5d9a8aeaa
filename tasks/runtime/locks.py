"""Locks on files and folders by `flock`, which are released when their process dies: of a folder, of
a home in which a flow works, and of the accelerator that several workers of a machine share.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.runtime.errors import BadInput, Locked, disk_error
from tasks.runtime.events import Emit, Note
from tasks.runtime.home import home

LOCK_POLL_SECONDS = 0.02
LOCK_SECONDS = 1.0  # longer than `is_held` holds it
BUILD_SECONDS = 1800.0  # another process downloads or converts the same model
ABANDONED_SECONDS = 60.0  # a young file or folder is spared: its maker may not have locked it yet
ACCELERATOR = "TRIAGE_ACCELERATOR"
SILENT_SECONDS = 5.0  # a turn at the accelerator that comes sooner is not worth a line


@contextlib.contextmanager
def locked(
    folder: Path, wait: float = 0.0, while_waiting: Callable[[], None] = lambda: None
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
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    raise Locked(
                        f"Another process is working on {folder}; wait for it or stop it."
                    ) from None
            except OSError as error:
                raise BadInput(
                    f"{folder.parent} is on a disk that locks no files ({error.strerror}); choose "
                    "a TRIAGE_HOME on another one."
                ) from error

            while_waiting()
            time.sleep(LOCK_POLL_SECONDS)

        # macOS removes temporary files that nobody touched for three days, locked or not.
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`."""
    return is_held(lock_of(folder))


def lock_of(folder: Path) -> Path:
    """The file by which `locked` locks a folder; it stays when the lock is released."""
    # Beside the folder, which may be removed and replaced while its lock is held.
    return folder.parent / f".{folder.name}.lock"


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder itself; waits for who has locked it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks keeps its leftovers, and its races.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replacing(final: Path) -> contextlib.AbstractContextManager[None]:
    """Inspect, remove or replace a folder while no other process does; waits for one that is at it.

    The lock is that of the parent folder, which stays: between a look and a removal another
    builder's folder may appear.
    """
    return locked_folder(final.parent)


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


def remove_abandoned(root: Path, *patterns: str) -> None:
    """Delete the lock files and temporary folders of killed processes, which match `patterns` below
    `root`: nobody holds them, and they are no longer young.
    """
    with contextlib.suppress(OSError):  # a folder on the way that another process removes
        for path in (path for pattern in patterns for path in root.glob(pattern)):
            with contextlib.suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > ABANDONED_SECONDS
                if is_old and not is_held(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_at_work() -> bool:
    """Whether a flow, of this process or another one, works in the home."""
    return any(is_held(path) for path in (home() / "flows").glob(".*.lock"))


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Hold a lock in the home: whoever removes folders there asks for it (`tasks/runtime/store.py`).

    Nothing else shows a process without a server of its own, such as a worker.
    """
    folder = home() / "flows"
    remove_abandoned(folder, ".*.lock")
    note = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with locked(note):
            yield
    finally:
        with contextlib.suppress(OSError):
            lock_of(note).unlink()


@contextlib.contextmanager
def accelerator_reserved(
    check: Callable[[], None] = lambda: None, on_event: Emit = lambda event: None
) -> Iterator[None]:
    """Hold the accelerator that `TRIAGE_ACCELERATOR` names while the block runs, after waiting for
    it; nothing where the variable is not set. One MLX step at a time uses it.

    A lock in the machine's temporary folder, unlike a limit on a Prefect server, holds between all
    processes of this machine, and is free at the instant at which its holder dies. `check` is
    called while it waits, and may raise to give up; a long wait is reported to `on_event`, once.
    """
    name = os.environ.get(ACCELERATOR, "").strip()
    if not name:
        yield
        return

    # A folder of this user alone, since others may write beside it, and plant links.
    folder = Path(tempfile.gettempdir()) / f"triage-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BadInput(f"{folder} belongs to someone else; remove it, or set TMPDIR to another.")
    folder.chmod(0o700)

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / name, SILENT_SECONDS, check))
        except Locked:
            on_event(
                Note(
                    f"Waiting: another step runs on accelerator {name!r} ({ACCELERATOR}) of this "
                    "machine. To run both at once, give this one another name."
                )
            )
            stack.enter_context(locked(folder / name, math.inf, check))
        yield
