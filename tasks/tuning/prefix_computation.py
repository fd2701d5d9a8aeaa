"""Computing the activations of a frozen prefix: into the files of its folder, or in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.runtime.events import Emit, ProgressReport
from tasks.tuning.architecture import Stack, embed
from tasks.tuning.attention import SharedPast
from tasks.tuning.batches import EncodedCases, filled_groups
from tasks.tuning.blocks import run_blocks
from tasks.tuning.frozen_prefix import STORED_FORMS, Prefix, stored_form
from tasks.tuning.memory import cache_limit
from tasks.tuning.streams import batches_at_once, side_by_side


def prefix_in_memory(stack: Stack, cases: EncodedCases, boundary: int) -> Prefix:
    """The prefix of a few cases, computed here and not stored; embedded at boundary 0."""
    if boundary == 0 or cases.leading == 0:
        return Prefix.embedded(stack, cases)

    past, leading = _run_leading(Prefix.embedded(stack, cases), boundary)
    own_hidden = [
        run_blocks(stack, embed(stack, mx.array([row.inputs[cases.leading :]])), 0, boundary, past)
        for row in cases.rows
    ]
    mx.eval(own_hidden)
    starts = np.concatenate([[0], np.cumsum([hidden.shape[1] for hidden in own_hidden])])
    rows = np.concatenate([stored_form(hidden[0]) for hidden in own_hidden])

    return Prefix(stack, cases, boundary, stored_form(leading[0]), rows, starts.astype(np.int64))


def compute_prefix(
    start: Prefix,
    boundary: int,
    folder: Path,
    tokens_at_once: int,
    emit: Emit | None,
) -> dict[str, int]:
    """Write the three arrays of a prefix into `folder`, from those of a shallower one.

    Returns the counts that its manifest keeps.
    """
    stack = start.stack
    cases = start.cases
    past, leading = _run_leading(start, boundary)
    np.save(folder / "leading.npy", stored_form(leading[0]), allow_pickle=False)
    lengths = [len(row.inputs) - cases.leading for row in cases.rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(folder / "starts.npy", starts, allow_pickle=False)
    own_outputs = _mapped_array(
        folder / "own.npy", (int(starts[-1]), stack.hidden_size), STORED_FORMS[stack.dtype]
    )

    def hidden_of(numbers: list[int]) -> mx.array:
        longest = max(lengths[number] for number in numbers)
        rows = [cases.rows[number] for number in numbers]
        hidden = start.hidden(rows, cases.leading + longest)
        return run_blocks(stack, hidden, start.boundary, boundary, past)

    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    groups = filled_groups(order, [lengths[number] for number in order], tokens_at_once)
    done_rows = 0
    for numbers, outputs in side_by_side(groups, hidden_of):
        hidden = stored_form(outputs)
        for i, number in enumerate(numbers):
            own_outputs[starts[number] : starts[number + 1]] = hidden[i, : lengths[number]]
        done_rows += len(numbers)
        if emit:
            emit(ProgressReport("frozen prefix", done_rows, len(lengths)))

    own_outputs.flush()
    return {"boundary": boundary, "rows": len(lengths), "tokens": own_outputs.shape[0]}


def tokens_that_fit(start: Prefix, boundary: int, limit: int | None, most: int) -> int:
    """Tokens of one pass over the blocks from `start` to `boundary` that stays within `limit`
    bytes, with as many passes side by side.

    Measured on the longest row.
    """
    if limit is None:
        return most

    stack = start.stack
    past, _ = _run_leading(start, boundary)
    longest = max(start.cases.rows, key=lambda row: len(row.inputs))
    mx.clear_cache()
    active_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    hidden = start.hidden([longest], len(longest.inputs))
    mx.eval(run_blocks(stack, hidden, start.boundary, boundary, past))

    room = limit - cache_limit(limit) - active_bytes
    peak_bytes = mx.get_peak_memory() - active_bytes
    own_tokens = len(longest.inputs) - start.cases.leading
    return max(1, min(most, own_tokens * room // max(peak_bytes, 1) // batches_at_once()))


def _run_leading(start: Prefix, boundary: int) -> tuple[list[SharedPast], mx.array]:
    """Keys and values of the leading tokens in the blocks from `start` to `boundary`, and their
    output (1, P, D).
    """
    past = [SharedPast() for _ in range(boundary)]
    leading = run_blocks(start.stack, start.leading_hidden(), start.boundary, boundary, past)
    # Evaluated, since passes side by side read them on streams of their own.
    mx.eval(leading, [block.arrays() for block in past])
    return past, leading


def _mapped_array(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.memmap:
    """An array in a new file, whose blocks on disk are allocated.

    On a full disk this raises OSError, while a write into the mapping would kill the process.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # macOS has no posix_fallocate.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return array
