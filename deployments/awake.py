"""Keeps a Mac awake while a command runs: asleep, it would stop a sweep of days."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from tasks.runtime.backend import is_mac


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Let a Mac not fall asleep by itself while the block runs. A closed lid overrides it."""
    program = shutil.which("caffeinate") if is_mac() else None
    if program is None:
        yield
        return

    process = subprocess.Popen(
        # It leaves with this process, however that ends.
        [program, "-i", "-w", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()
