"""The micro-batch of a training, measured by probe steps on its longest case."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from tasks.runtime.events import Emit
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.gradients import step_peak
from tasks.tuning.lora import Adapted
from tasks.tuning.losses import Objective
from tasks.tuning.memory import SLACK, STATE_BYTES, MemoryChoice, choose_memory


def choose_micro_batch(
    adapted: Adapted, prefix: Prefix, objective: Objective, batch_size: int, limit: int, emit: Emit
) -> MemoryChoice:
    """The part of an effective batch to compute at once within `limit` bytes, weights included.

    Raises BadInput if not even one case fits.
    """
    cases = prefix.cases

    def peak(checkpointing: bool, count: int) -> int:
        model = with_checkpoints(adapted, checkpointing)
        return int(SLACK * step_peak(model, prefix, objective, count))

    # The optimizer's state and the accumulated gradient are not allocated yet.
    held_bytes = mx.get_active_memory() + STATE_BYTES * adapted.trainable
    batch = min(batch_size, len(cases.encoded))
    longest = max(len(row.inputs) for row in cases.rows) * cases.per_case
    return choose_memory(peak, held_bytes, batch, longest, limit, emit)


def with_checkpoints(adapted: Adapted, checkpointing: bool) -> Adapted:
    """The same adapted model, with or without its blocks computed again in the backward pass."""
    return replace(adapted, stack=replace(adapted.stack, checkpointing=checkpointing))


def keep_within(limit: int, cache_bytes: int) -> None:
    """Hold MLX to `limit` bytes, `cache_bytes` of them for freed buffers, for the rest of this
    process.

    MLX allocates ahead of the work that fills its arrays; how far ahead depends on the load of the
    machine. Past its memory limit it waits for that work (`mlx.core.set_memory_limit`), after one
    more result: hence the slack.
    """
    mx.set_cache_limit(cache_bytes)
    mx.set_memory_limit(int((limit - cache_bytes) / SLACK))
