"""How much of a batch fits: the micro-batch, from a memory budget and a probe step on the longest case.

A step over n cases is taken to need at most n times what the longest case alone needs, and validation of as many
tokens, which keeps no gradient, no more than such a step. Where one case does not fit,
blocks are checkpointed. Nothing here changes a result beyond the order of sums; what was chosen is written down, so
that a resumed run sums in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.runtime.device import backend, total_memory
from tasks.runtime.errors import BadInput
from tasks.runtime.store import write_atomic
from tasks.spec import ExperimentSpec, byte_count
from tasks.tuning.batches import TOKENS_AT_ONCE

CHOICE = "memory.json"
DEFAULT_SHARE = 0.6  # of the machine's memory: it should stay usable
STATE_BYTES = 12  # per trained value: AdamW's two moments, and the accumulated gradient


@dataclass(frozen=True)
class Choice:
    """Cases computed at once, and whether blocks are computed again in the backward pass to save memory; for `limit`
    bytes. `tokens_at_once`: padded tokens of one forward pass of validation."""

    micro_batch: int
    checkpointing: bool = False
    limit: int | None = None
    tokens_at_once: int = TOKENS_AT_ONCE

    def smaller(self) -> Choice | None:
        """What to try after running out of memory; None if there is nothing smaller."""
        if self.micro_batch > 1:
            return replace(self, micro_batch=self.micro_batch // 2, tokens_at_once=self.tokens_at_once // 2)
        return None if self.checkpointing else replace(self, checkpointing=True)


def budget(spec: ExperimentSpec) -> int:
    """Bytes that a training may take: the grid's training.memory, else a share of what the device has."""
    if spec.training.memory is not None:
        return byte_count(spec.training.memory)
    if backend() == "metal":
        import mlx.core as mx

        return int(mx.device_info()["max_recommended_working_set_size"])
    return int(DEFAULT_SHARE * total_memory())


def read_choice(folder: Path) -> Choice | None:
    """What an earlier run of this training chose, or None."""
    try:
        return Choice(**json.loads((folder / CHOICE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_choice(folder: Path, choice: Choice) -> None:
    write_atomic(folder / CHOICE, json.dumps(asdict(choice)))


def choose(
    peak: Callable[[bool], int], held: int, batch: int, longest: int, limit: int, emit: Callable[[dict[str, Any]], None]
) -> Choice:
    """The largest micro-batch that fits `limit` bytes, `held` of them taken by weights and optimizer.

    `peak(checkpointing)` measures the bytes that a step over the longest case, of `longest` tokens, takes on top of
    what is held.
    Raises BadInput if not even one checkpointed case fits.
    """
    need = 0
    for checkpointing in (False, True):
        one = peak(checkpointing)
        need = held + one
        if need > limit:
            continue
        fitting = (limit - held) // max(one, 1)  # cases, each at least
        micro_batch, tokens = min(batch, fitting), min(TOKENS_AT_ONCE, fitting * longest)
        emit(
            {
                "event": "note",
                "message": f"Memory: {limit / 1e6:.1f} MB, {held / 1e6:.1f} MB of it for weights and optimizer; the longest "
                f"case takes {one / 1e6:.1f} MB: micro-batch {micro_batch} of {batch}"
                + (", blocks checkpointed." if checkpointing else "."),
            }
        )
        return Choice(micro_batch, checkpointing, limit, tokens)
    raise BadInput(
        f"training.memory = {limit / 1e6:.1f} MB is less than one case needs, {need / 1e6:.1f} MB with checkpointed blocks; "
        "give that much with --memory, or shorten cases with training.max_tokens."
    )
