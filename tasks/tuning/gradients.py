"""Gradients of an effective batch, computed a part at a time, with its dropout masks; and how large a
part fits the memory, measured by probe steps on the longest case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from tasks.runtime.events import Emit
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch, EncodedCases, make_batch, padded_length
from tasks.tuning.dropout import MaskRequest
from tasks.tuning.forward import PartInputs, batch_terms, leading_past
from tasks.tuning.joined import Layout, run_joined
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import (
    Objective,
    case_terms,
    objective_sum,
    score_rows,
    scored_tokens,
)
from tasks.tuning.memory import SLACK, STATE_BYTES, MemoryChoice, choose_memory

# The place of the leading tokens in a dropout key: no case of a batch has it.
LEADING = (1 << 31) - 1

Gradients = Any  # a tree of arrays, shaped as the trainable parameters


@dataclass(frozen=True)
class EffectiveBatch:
    """The batch of one update, as the loss of a part of it needs it: its sizes, and the key of its
    dropout masks.
    """

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    tokens: int | mx.array
    count: int | mx.array
    dropout_key: tuple[int, int] | None

    def loss(
        self, part: Batch, start: int, inputs: PartInputs | None = None
    ) -> tuple[mx.array, mx.array]:
        """Loss and parts (3,) of the cases `start`, `start` + 1, ... of the batch.

        `inputs`: what the prefix stores of them, if the caller has read it.
        """
        inputs = inputs or PartInputs.read(self.prefix, part)
        adapted = self.adapted
        prefix = self.prefix
        cases = prefix.cases
        key = self.dropout_key
        leading_key = (*key, LEADING) if key else None
        is_joined = adapted.stack.joins(cases.leading)
        case_keys = _case_keys(key, part, start, cases) if key else None

        if not is_joined:
            # The instruction first, then each case's own tokens.
            past = leading_past(adapted, prefix, leading_key)
            adapted.set_dropout(case_keys)
            terms = batch_terms(adapted, prefix, part, past, inputs)
        else:
            # Both in one pass, see joined.py.
            adapted.set_dropout(case_keys, (leading_key, cases.leading) if leading_key else None)
            layout = Layout(cases.leading, len(part.rows), part.length - cases.leading)
            hidden = layout.join(prefix.enter(inputs.leading), prefix.enter(inputs.own_rows))
            targets = mx.array(part.targets)
            first = mx.array(part.first) - cases.leading
            rows = targets.shape[1]
            hidden = run_joined(adapted.stack, hidden, layout, prefix.boundary, first, rows)
            scores = score_rows(adapted.stack, hidden, targets, mx.array(cases.label_tokens))
            terms = case_terms(scores, part, cases)

        adapted.set_dropout(None)
        return objective_sum(terms, part.labels, self.objective, self.tokens, self.count)


def update_gradients(
    adapted: Adapted,
    prefix: Prefix,
    case_numbers: Sequence[int],
    objective: Objective,
    micro_batch: int,
    dropout_key: tuple[int, int] | None,
) -> tuple[mx.array, mx.array, Gradients]:
    """Loss, its parts (3,) and LoRA gradients of one effective batch, computed `micro_batch` cases
    at a time.

    The common leading tokens (the instruction) pass through the trained blocks once for all cases
    of a part: attention is causal, so they are the same for each case, and their gradient is the
    sum over the cases.

    `dropout_key` is (seed, update). A case's mask depends on its position in the effective batch,
    and the leading tokens have one mask per update, so the micro-batch changes nothing but memory.

    The last part is not evaluated yet: who reads the results evaluates them in one graph with what
    else is made of them.
    """
    cases = prefix.cases
    model = adapted.stack.model
    whole = EffectiveBatch(
        adapted,
        prefix,
        objective,
        scored_tokens(cases, case_numbers),
        len(case_numbers),
        dropout_key,
    )
    value_and_gradient = nn.value_and_grad(model, whole.loss)
    parameters = model.trainable_parameters()

    total = mx.array(0.0)
    parts = mx.zeros(3)
    gradients = None
    for start, batch in parts_of(cases, case_numbers, micro_batch):
        (loss, loss_parts), gradient = value_and_gradient(batch, start)
        gradients = gradient if gradients is None else tree_map(mx.add, gradients, gradient)
        total = total + loss
        parts = parts + loss_parts
        # One part after the other: a graph of several holds the activations of all of them.
        if start + micro_batch < whole.count:
            mx.eval(total, parts, gradients)

    # Differentiation leaves its own copies of the parameters in the model.
    model.update(parameters)
    return total, parts, gradients


def _case_keys(
    dropout_key: tuple[int, int], part: Batch, start: int, cases: EncodedCases
) -> list[tuple[int, ...]]:
    """The dropout key of each row of a part whose first case is the batch's case `start`."""
    return [(*dropout_key, start + i // cases.per_case) for i in range(len(part.rows))]


def mask_requests(
    adapted: Adapted,
    prefix: Prefix,
    parts: Iterable[tuple[int, Batch]],
    dropout_key: tuple[int, int],
) -> Iterator[MaskRequest]:
    """The dropout masks that these parts of a batch take, in their order."""
    cases = prefix.cases
    leading = ((*dropout_key, LEADING), cases.leading)
    is_joined = adapted.stack.joins(cases.leading)

    for start, part in parts:
        keys = _case_keys(dropout_key, part, start, cases)
        if cases.leading > 0 and not is_joined:
            for module in adapted.dropouts:
                if adapted.is_everywhere(module):
                    yield module.request([leading[0]], cases.leading)

        for module in adapted.dropouts:
            everywhere = adapted.is_everywhere(module)
            # In the pruned last block most modules see the scored rows alone.
            positions = part.length - cases.leading if everywhere else part.targets.shape[1]
            yield module.request(keys, positions, leading if is_joined and everywhere else None)


def parts_of(
    cases: EncodedCases, case_numbers: Sequence[int], micro_batch: int
) -> Iterator[tuple[int, Batch]]:
    """The parts of an effective batch, padded to one length, with the place of their first case."""
    length = padded_length(cases.rows_of(case_numbers))
    for start in range(0, len(case_numbers), micro_batch):
        yield start, make_batch(cases, case_numbers[start : start + micro_batch], length)


def step_peak(adapted: Adapted, prefix: Prefix, objective: Objective, count: int = 1) -> int:
    """Bytes that the gradients of `count` of the set's longest cases need at their peak, on top of
    what is held.

    With a memory limit of 0 MLX finishes each result before it allocates the next, so that the peak
    depends little on what else the machine does. The order in which threads free memory still
    matters: about one step in eight of a tiny model takes up to a third more than the others.
    """
    encoded = prefix.cases.encoded
    longest = max(range(len(encoded)), key=lambda number: len(encoded[number].prompt))
    mx.clear_cache()
    active_bytes = mx.get_active_memory()
    mx.reset_peak_memory()

    usual_limit = mx.set_memory_limit(0)
    mx.eval(update_gradients(adapted, prefix, [longest] * count, objective, count, (0, 0)))
    mx.set_memory_limit(usual_limit)
    return int(mx.get_peak_memory() - active_bytes)


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
