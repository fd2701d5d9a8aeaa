"""Disk space of frozen prefixes: what they may take, and what happens where there is no room.

Imports no MLX, since a plan asks too.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.runtime.errors import BadInput
from tasks.spec import byte_count

VARIABLE = "TRIAGE_PREFIX_BYTES"
# A stored prefix that saves less than this share of a step is not worth its disk.
PAYS_FROM = 0.15
SHARE_OF_DISK = 0.25


def saving(boundary: int, depth: int) -> float:
    """Share of a training step's block work that a stored prefix of `boundary` blocks saves
    (backward counts as one).
    """
    return boundary / (depth + (depth - boundary))


def pays(boundary: int, depth: int) -> bool:
    """Whether a stored prefix of `boundary` blocks is worth its disk."""
    return saving(boundary, depth) >= PAYS_FROM


@dataclass(frozen=True)
class DiskSpace:
    """Bytes: what all stored prefixes together may take, what they take, what the disk has free."""

    budget: int
    used: int
    free: int

    @classmethod
    def of(cls, prefixes: Path) -> DiskSpace:
        """The space of the folder of all prefixes, which may not exist yet.

        The budget is TRIAGE_PREFIX_BYTES (`20GB`), else a share of the free disk, where the space
        of stored prefixes counts as free. Raises BadInput for a value that is no number of bytes.
        """
        existing = next(path for path in (prefixes, *prefixes.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        used = stored_bytes(prefixes)
        value = os.environ.get(VARIABLE)
        if value is None:
            return cls(int(SHARE_OF_DISK * (free + used)), used, free)

        try:
            return cls(byte_count(value), used, free)
        except ValueError as error:
            raise BadInput(f"{VARIABLE}={value}: {error}.") from None

    @property
    def room(self) -> int:
        """What further prefixes may take."""
        return max(0, self.budget - self.used)

    def lack(self, subject: str, needed: int, saved: float) -> str:
        """Sentences on `needed` bytes for which there is no room: the slower path, and the remedy.

        `saved`: the share of a step that the stored prefix would save.
        """
        return (
            f"{subject}: {needed / 1e9:.2f} GB are needed, and {self.room / 1e9:.2f} GB are left "
            f"of the budget ({VARIABLE}) of {self.budget / 1e9:.2f} GB. What has no room is not "
            "stored: its frozen blocks are computed in every step, which takes up to "
            f"{1 / (1 - saved):.1f} times as long. {self._remedy(needed)}"
        )

    def _remedy(self, needed: int) -> str:
        if needed > self.free:
            return (
                f"The disk has {self.free / 1e9:.2f} GB free: make room, e.g. with `triage "
                "clean --yes`, or name a folder on a larger disk in TRIAGE_HOME."
            )
        enough = math.ceil((self.used + needed) / 1e9)
        return f"Set {VARIABLE}={enough}GB, for instance, to make room."


def stored_bytes(prefixes: Path, name: str = "*") -> int:
    """Bytes that stored prefixes take: all, or the one of this name."""
    return sum(map(_size, prefixes.glob(f"{name}/*.npy")))


def _size(path: Path) -> int:
    """Bytes of a file; none where another process has just renamed or removed its folder."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
