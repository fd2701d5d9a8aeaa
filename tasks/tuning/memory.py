"""How much of a batch fits: the micro-batch, from a memory budget and probe steps on the longest case.

A step over n cases is taken to need what the longest case alone needs, and for each further case as much as a second
longest one adds; what comes out is measured, and lessened in proportion if it is too much. Validation of as many tokens,
which keeps no gradient, needs no more than such a step. Where one case does not fit, blocks are checkpointed. Nothing here
changes a result beyond the order of sums; what was chosen is written down, so that a resumed run sums in the same order.
This file imports no MLX: the parent process reads budgets and choices too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.runtime.device import backend, cores, total_memory
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit, MemoryNote
from tasks.runtime.store import write_atomic
from tasks.spec import ExperimentSpec, byte_count
from tasks.tuning.batches import TOKENS_AT_ONCE

CHOICE = "memory.json"
DEFAULT_SHARE = (
    0.6  # of the machine's memory: it should stay usable, and Metal recommends two thirds at most
)
STATE_BYTES = 12  # per trained value: AdamW's two moments, and the accumulated gradient
CACHE_BYTES = (
    1 << 30
)  # freed buffers that MLX may keep for reuse; stock frees them all after every step
CACHE_SHARE = 8  # but one byte in so many of the budget at most
SLACK = 1.1  # by what two steps over the same cases may differ at their peak, and MLX goes beyond its limit


@dataclass(frozen=True)
class Choice:
    """Cases computed at once, and whether blocks are computed again in the backward pass to save memory; for `limit`
    bytes. `tokens_at_once`: padded tokens of one forward pass of validation. `cache_bytes`: what MLX may keep of freed
    buffers. `stored`: the sets whose frozen prefix is read from the store (None: not settled yet)."""

    micro_batch: int
    checkpointing: bool = False
    limit: int | None = None
    tokens_at_once: int = TOKENS_AT_ONCE
    cache_bytes: int = 0
    stored: tuple[str, ...] | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Choice:
        """A choice from its fields as JSON."""
        choice = cls(**values)
        return choice if choice.stored is None else replace(choice, stored=tuple(choice.stored))

    def smaller(self) -> Choice | None:
        """What to try after running out of memory; None if there is nothing smaller."""
        less = replace(self, cache_bytes=self.cache_bytes // 2)
        if self.micro_batch > 1:
            return replace(
                less, micro_batch=self.micro_batch // 2, tokens_at_once=self.tokens_at_once // 2
            )
        return None if self.checkpointing else replace(less, checkpointing=True)


SMALLEST = Choice(1, checkpointing=True, tokens_at_once=1)


def budget(spec: ExperimentSpec) -> int:
    """Bytes that a training may take: the grid's training.memory, else a share of what the machine has."""
    if spec.training.memory is not None:
        return byte_count(spec.training.memory)
    return int(DEFAULT_SHARE * total_memory())


def cache_limit(limit: int) -> int:
    """Bytes of freed buffers that MLX may keep within a budget of `limit`."""
    return min(CACHE_BYTES, limit // CACHE_SHARE)


def read_choice(folder: Path) -> Choice | None:
    """What an earlier run of this training chose, or None."""
    try:
        return Choice.of(json.loads((folder / CHOICE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_choice(folder: Path, choice: Choice) -> None:
    write_atomic(folder / CHOICE, json.dumps(asdict(choice)))


def after_out_of_memory(told: Choice | None, folder: Path) -> Choice | None:
    """What to try next: less than the run in `folder` was told, or had chosen; None if there is nothing smaller.

    A run that had chosen nothing died in the frozen prefix or in a probe step: it is given the smallest choice.
    """
    used = told or read_choice(folder)
    return SMALLEST if used is None else used.smaller()


def choose(
    peak: Callable[[bool, int], int], held: int, batch: int, longest: int, limit: int,
    emit: Emit,
) -> Choice:  # fmt: skip
    """The largest micro-batch that fits `limit` bytes beside MLX's cache, `held` of them taken by weights and optimizer.

    `peak(checkpointing, count)` measures the bytes that a step over `count` times the longest case, of `longest` tokens,
    takes on top of what is held. Raises BadInput if not even one checkpointed case fits.
    """
    need = 0
    for checkpointing in (False, True):
        one = peak(checkpointing, 1)
        need = held + one
        if need > limit:
            continue
        cache = min(cache_limit(limit), limit - need)
        room = limit - need - cache
        more = max(peak(checkpointing, 2) - one, 1) if batch > 1 else max(one, 1)
        found = min(batch, 1 + room // more)
        if found > 2 and (taken := peak(checkpointing, found) - one) > room:
            more = -(-taken // (found - 1))  # another part of the step has become the largest
        fitting = 1 + room // more
        side_by_side = (
            1 if backend() == "metal" else cores()
        )  # batches of validation, see streams.py
        micro_batch, tokens = (
            min(batch, fitting),
            min(TOKENS_AT_ONCE, max(1, fitting * longest // side_by_side)),
        )
        emit(
            MemoryNote(
                f"Memory: {limit / 1e6:.1f} MB, {held / 1e6:.1f} MB of it for weights and optimizer and up to "
                f"{cache / 1e6:.1f} MB for reuse; the longest case takes {one / 1e6:.1f} MB, each further one "
                f"{more / 1e6:.1f} MB: micro-batch {micro_batch} of {batch}"
                + (", blocks checkpointed." if checkpointing else "."),
                held_bytes=held,
                case_bytes=one,
                further_bytes=more,
            )
        )
        return Choice(micro_batch, checkpointing, limit, tokens, cache)
    raise BadInput(
        f"training.memory = {limit / 1e6:.1f} MB is less than one case needs, {need / 1e6:.1f} MB with checkpointed blocks; "
        f"give {SLACK * need / 1e6:.1f} MB with --memory, or shorten cases with training.max_tokens."
    )
