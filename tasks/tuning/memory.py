"""What a training may take of the machine: how much of a batch fits into its memory, measured by
probe steps on the longest case, and how many frozen prefixes onto its disk.

Nothing here changes a result beyond the order of sums, and the choice is saved, so that a resumed
run sums in the same order. No MLX: the parent process reads budgets and choices too.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.runtime.backend import backend
from tasks.runtime.device import cores, total_memory
from tasks.runtime.errors import BadInput, DoesNotFit
from tasks.runtime.events import Emit, MemoryNote
from tasks.runtime.files import write_atomic
from tasks.spec import ExperimentSpec, byte_count

CHOICE = "memory.json"
# Share of the machine's memory: the machine stays usable, and Metal recommends at most two thirds.
DEFAULT_SHARE = 0.6
# Bytes per trained value: the two moments of AdamW, and the accumulated gradient.
STATE_BYTES = 12
# Freed buffers that MLX may keep for reuse, at most 1/8 of the budget.
CACHE_BYTES = 1 << 30
CACHE_FRACTION = 8
# Steps over the same cases differ by this much at their peak, and MLX exceeds its limit a little.
SLACK = 1.1

VARIABLE = "TRIAGE_PREFIX_BYTES"
# A stored prefix that saves less than this share of a step is not worth its disk.
PAYS_FROM = 0.15
SHARE_OF_DISK = 0.25


@dataclass(frozen=True)
class MemoryChoice:
    """How a training uses its memory budget of `limit` bytes.

    `micro_batch`: cases computed at once. `checkpointing`: blocks are computed again in the
    backward pass. `tokens_at_once`: padded tokens of one forward pass of validation. `cache_bytes`:
    freed buffers that MLX may keep. `stored`: the sets whose frozen prefix is read from the store
    (None: not decided yet).
    """

    micro_batch: int
    checkpointing: bool = False
    limit: int | None = None
    tokens_at_once: int = backend().tokens_at_once
    cache_bytes: int = 0
    stored: tuple[str, ...] | None = None

    def smaller(self) -> MemoryChoice | None:
        """The choice to try after running out of memory; None if there is nothing smaller."""
        smaller = replace(self, cache_bytes=self.cache_bytes // 2)
        if self.micro_batch == 1:
            return None if self.checkpointing else replace(smaller, checkpointing=True)
        return replace(
            smaller, micro_batch=self.micro_batch // 2, tokens_at_once=self.tokens_at_once // 2
        )


CHOICES = TypeAdapter(MemoryChoice)
SMALLEST = MemoryChoice(1, checkpointing=True, tokens_at_once=1)


def budget(spec: ExperimentSpec) -> int:
    """Bytes that a training may take: `training.memory`, else a share of the machine's memory."""
    if spec.training.memory is not None:
        return byte_count(spec.training.memory)
    return int(DEFAULT_SHARE * total_memory())


def cache_limit(limit: int) -> int:
    """Bytes of freed buffers that MLX may keep."""
    return min(CACHE_BYTES, limit // CACHE_FRACTION)


def read_choice(folder: Path) -> MemoryChoice | None:
    """The choice that an earlier run of this training saved."""
    try:
        return CHOICES.validate_json((folder / CHOICE).read_bytes())
    # A damaged file is as good as none.
    except (OSError, ValidationError):
        return None


def write_choice(folder: Path, choice: MemoryChoice) -> None:
    """Save the choice of a training in its folder."""
    write_atomic(folder / CHOICE, json.dumps(asdict(choice)))


def choose_memory(
    peak: Callable[[bool, int], int],
    held_bytes: int,
    batch: int,
    longest: int,
    limit: int,
    emit: Emit,
) -> MemoryChoice:
    """The largest micro-batch that fits in `limit` bytes beside `held_bytes` of weights and optimizer.

    `peak(checkpointing, count)` measures the bytes that a step over `count` times the longest case
    (of `longest` tokens) takes on top. Raises DoesNotFit if not even one checkpointed case fits.
    """
    need = 0
    side_by_side = cores() if backend().cpu_kernels else 1
    # Computing blocks twice takes time, so only where one case does not fit otherwise.
    for checkpointing in (False, True):
        case_bytes = peak(checkpointing, 1)
        need = held_bytes + case_bytes
        if need > limit:
            continue

        # The first case comes before the cache.
        cache = min(cache_limit(limit), limit - need)
        room = limit - need - cache
        further_bytes = max(peak(checkpointing, 2) - case_bytes if batch > 1 else case_bytes, 1)
        count = min(batch, 1 + room // further_bytes)
        if count > 2 and (taken_bytes := peak(checkpointing, count) - case_bytes) > room:
            # Of so many cases another part of the step is the largest.
            further_bytes = -(-taken_bytes // (count - 1))

        fitting_cases = 1 + room // further_bytes
        choice = MemoryChoice(
            min(batch, fitting_cases),
            checkpointing,
            limit,
            # Validation keeps no gradient, but on a CPU its batches run side by side.
            min(backend().tokens_at_once, max(1, fitting_cases * longest // side_by_side)),
            cache,
        )
        message = (
            f"Memory: {limit / 1e6:.1f} MB, {held_bytes / 1e6:.1f} MB of it for weights and "
            f"optimizer and up to {cache / 1e6:.1f} MB for reuse; the longest case takes "
            f"{case_bytes / 1e6:.1f} MB, each further one {further_bytes / 1e6:.1f} MB: micro-batch "
            f"{choice.micro_batch} of {batch}{', blocks checkpointed' if checkpointing else ''}."
        )
        emit(MemoryNote(message, held_bytes, case_bytes, further_bytes))
        return choice

    raise DoesNotFit(
        f"training.memory = {limit / 1e6:.1f} MB is less than one case needs, {need / 1e6:.1f} MB "
        f"with checkpointed blocks; give {SLACK * need / 1e6:.1f} MB with --memory, or shorten "
        "cases with training.max_tokens."
    )


def saving(boundary: int, depth: int) -> float:
    """Share of a step's block work that a stored prefix saves (backward counts as one)."""
    return boundary / (depth + (depth - boundary))


def pays(boundary: int, depth: int) -> bool:
    """Whether a stored prefix of `boundary` blocks is worth its disk."""
    return saving(boundary, depth) >= PAYS_FROM


@dataclass(frozen=True)
class DiskSpace:
    """Bytes: what all stored prefixes together may take, and what they take."""

    budget: int
    used: int

    @classmethod
    def of(cls, prefixes: Path) -> DiskSpace:
        """The space of the folder of all prefixes. The budget is TRIAGE_PREFIX_BYTES (`20GB`), else a
        share of the disk that is free or holds prefixes. Raises BadInput for another value.
        """
        used = 0
        for path in prefixes.glob("*/*.npy"):
            # Another process may have just renamed or removed its folder.
            with contextlib.suppress(FileNotFoundError):
                used += path.stat().st_size

        value = os.environ.get(VARIABLE)
        if value is None:
            existing = next(path for path in (prefixes, *prefixes.parents) if path.exists())
            return cls(int(SHARE_OF_DISK * (shutil.disk_usage(existing).free + used)), used)
        try:
            return cls(byte_count(value), used)
        except ValueError as error:
            raise BadInput(f"{VARIABLE}={value}: {error}.") from None

    @property
    def room(self) -> int:
        """What further prefixes may take."""
        return max(0, self.budget - self.used)

    def lack(self, subject: str, needed: int, saved: float) -> str:
        """Sentences on `needed` bytes for which there is no room; `saved`: the share of a step that the
        stored prefix would save.
        """
        return (
            f"{subject}: {needed / 1e9:.2f} GB are needed, and {self.room / 1e9:.2f} GB are left "
            f"of the budget of {self.budget / 1e9:.2f} GB, so frozen blocks are computed in every "
            f"step, which takes up to {1 / (1 - saved):.1f} times as long. Set "
            f"{VARIABLE}={math.ceil((self.used + needed) / 1e9)}GB, make room with `triage clean "
            "--yes`, or name a folder on a larger disk in TRIAGE_HOME."
        )
