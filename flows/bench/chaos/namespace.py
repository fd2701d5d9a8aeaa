"""Linux namespaces in which a benchmark may fill a disk, forbid writing and cut the network without
touching anything outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tasks.runtime.backend import is_linux

ENTERED = "TRIAGE_CHAOS_NAMESPACE"
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--net")


def enter_if_allowed() -> None:
    """Run this command again in namespaces of its own, where the machine allows it; else return."""
    if is_entered():
        set_network(True)
        return
    if not is_linux() or not _succeeds(*UNSHARE, "ip", "link", "set", "lo", "up"):
        return

    command = [*UNSHARE, sys.executable, "-m", "flows.cli", *sys.argv[1:]]
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execvpe(UNSHARE[0], command, os.environ | {ENTERED: "1", "PYTHONPATH": path})


def is_entered() -> bool:
    """Whether this process runs in such namespaces."""
    return ENTERED in os.environ


def set_network(up: bool) -> None:
    """Cut the only network of these namespaces, the loopback, or bring it back."""
    _run("ip", "link", "set", "lo", "up" if up else "down")


def mount_small_disk(folder: Path, megabytes: int) -> None:
    """Let a folder be a disk of its own, of a size; it is gone with the namespace."""
    folder.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))


def forbid_writing(folder: Path) -> None:
    """Let nobody open a file in a folder for writing until `allow_writing`."""
    _run("mount", "--bind", str(folder), str(folder))
    _run("mount", "-o", "remount,bind,ro", str(folder))


def allow_writing(folder: Path) -> None:
    """Undo `forbid_writing`."""
    unmount(folder)


def unmount(folder: Path) -> None:
    """Let a folder no longer be a disk."""
    _run("umount", "--lazy", str(folder))


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
