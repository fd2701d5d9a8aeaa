"""Work that never changes: activations below the first LoRA block, computed once, into the files of
a folder or in memory, and what a step reads of them.

LoRA sits on the last N of L blocks, so the first L - N give the same output for a case in every
epoch, every recipe, every evaluation and every dropout pass. The common leading tokens (the
instruction) are computed and stored once. `activation_store` keeps the folders.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.runtime.events import Emit, ProgressReport
from tasks.tuning.cpu import side_by_side, streams
from tasks.tuning.data import EncodedCases, Row, filled_groups, padded_tokens
from tasks.tuning.memory import cache_limit
from tasks.tuning.model import SharedPast, Stack, embed, run_blocks

# numpy has no bfloat16: its bits are stored as unsigned integers.
STORED_FORMS: dict[mx.Dtype, np.dtype[Any]] = {
    mx.float32: np.dtype("<f4"),
    mx.float16: np.dtype("<f2"),
    mx.bfloat16: np.dtype("<u2"),
}


@dataclass(frozen=True)
class Prefix:
    """Input of the first trained block for every row of a set: stored, or the embedded tokens
    (boundary 0).

    A step must compute the blocks from `boundary` on. `leading` (P, D) is common to all rows; row
    i's own positions are `own_hidden[starts[i] : starts[i + 1]]`.
    """

    stack: Stack
    cases: EncodedCases
    boundary: int
    leading: np.ndarray | None
    own_hidden: np.ndarray | None
    starts: np.ndarray | None

    @classmethod
    def embedded(cls, stack: Stack, cases: EncodedCases) -> Prefix:
        """A prefix that stores nothing: every step starts from the embedding."""
        return cls(stack, cases, 0, None, None, None)

    def hidden(self, rows: Sequence[Row], length: int) -> mx.array:
        """(N, length - P, D): the positions of each row after the P leading ones, zero where a row
        has ended.
        """
        return self.enter(self.stored_rows(rows, length))

    def leading_hidden(self) -> mx.array:
        """(1, P, D): the leading tokens at the boundary."""
        return self.enter(self.stored_leading())

    def stored_rows(self, rows: Sequence[Row], length: int) -> mx.array:
        """What is stored of these rows: hidden states (N, length - P,
        D), or tokens (N, length - P).
        """
        common = self.cases.leading
        if self.own_hidden is None or self.starts is None:
            return mx.array(padded_tokens([row.inputs[common:] for row in rows], length - common))

        hidden = np.zeros(
            (len(rows), length - common, self.own_hidden.shape[1]), self.own_hidden.dtype
        )
        for i, row in enumerate(rows):
            positions = self.own_hidden[self.starts[row.number] : self.starts[row.number + 1]]
            hidden[i, : len(positions)] = positions

        return of_stored_form(hidden)

    def stored_leading(self) -> mx.array:
        """What is stored of the leading tokens: hidden states (1, P, D), or tokens (1, P)."""
        if self.leading is None:
            return mx.array([self.cases.leading_tokens])
        return of_stored_form(self.leading[None])

    def enter(self, stored: mx.array) -> mx.array:
        """Hidden states at the boundary, from what is stored."""
        if self.own_hidden is None:
            return embed(self.stack, stored)
        return stored.astype(self.stack.dtype)


def stored_form(hidden: mx.array) -> np.ndarray:
    return np.array(hidden.view(mx.uint16) if hidden.dtype == mx.bfloat16 else hidden)


def of_stored_form(stored: np.ndarray) -> mx.array:
    return mx.array(stored).view(mx.bfloat16) if stored.dtype == np.uint16 else mx.array(stored)


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
    emit: Emit,
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
    path = folder / "own.npy"
    shape = (int(starts[-1]), stack.hidden_size)
    dtype = STORED_FORMS[stack.dtype]
    own_outputs = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # On a full disk this raises OSError, while a write into the mapping would kill the process.
    # macOS has none.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)

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
    return max(1, min(most, own_tokens * room // max(peak_bytes, 1) // len(streams())))


def _run_leading(start: Prefix, boundary: int) -> tuple[list[SharedPast], mx.array]:
    """Keys and values of the leading tokens in the blocks from `start` to `boundary`, and their
    output (1, P, D).
    """
    past = [SharedPast() for _ in range(boundary)]
    leading = run_blocks(start.stack, start.leading_hidden(), start.boundary, boundary, past)
    # Evaluated, since passes side by side read them on streams of their own.
    mx.eval(leading, [block.arrays() for block in past])
    return past, leading
