"""Work that never changes: activations below the first LoRA block, computed once and shared by a
variant's recipes. Here is what a step reads of them.

LoRA sits on the last N of L blocks, so the first L - N give the same output for a case in every
epoch, every recipe, every evaluation and every dropout pass. The common leading tokens (the
instruction) are computed and stored once.

`prefix_store` opens a prefix, `prefix_computation` computes one, and `prefix_folder` has its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.tuning.architecture import Stack, embed
from tasks.tuning.batches import EncodedCases, Row, padded_tokens

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
