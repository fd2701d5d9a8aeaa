"""Cached activations: what the frozen blocks below the first LoRA block give, computed once.

LoRA sits on the last N of L blocks, so the first L - N give the same output for a case in every
epoch, recipe, evaluation and dropout pass. All recipes of a variant share them:

<home>/prefixes/<key>/
    leading.npy     (P, D), of the common leading tokens (the instruction)
    own.npy         (sum of own lengths, D)
    starts.npy      where each row begins in own.npy
    manifest.json
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.runtime.backend import backend, versions
from tasks.runtime.events import Emit, Note, ProgressReport, StepWarning
from tasks.runtime.locks import replacing
from tasks.runtime.store import build_folder, mark_used, verified_manifest
from tasks.spec import ENGINE_VERSION, short_digest
from tasks.tuning.data import TOKENS_AT_ONCE, EncodedCases, Row, filled_groups, padded_tokens
from tasks.tuning.memory import DiskSpace, pays, saving
from tasks.tuning.model import SharedPast, Stack, embed, run_blocks, side_by_side, streams


@dataclass(frozen=True)
class Prefix:
    """Input of block `boundary` for every row of a set: stored, or the embedded tokens (boundary 0).

    `leading` (P, D) is common to all rows; row i's own positions are
    `own_hidden[starts[i] : starts[i + 1]]`.
    """

    stack: Stack
    cases: EncodedCases
    boundary: int = 0
    leading: np.ndarray | None = None
    own_hidden: np.ndarray | None = None
    starts: np.ndarray | None = None

    def hidden(self, rows: Sequence[Row], length: int) -> mx.array:
        """(N, length - P, D): each row's positions after the P leading ones, 0 past its end."""
        return self.enter(self.stored_rows(rows, length))

    def stored_rows(self, rows: Sequence[Row], length: int) -> mx.array:
        """What is stored of these rows: hidden states (N, length - P, D), or tokens."""
        common = self.cases.leading
        if self.own_hidden is None or self.starts is None:
            return mx.array(padded_tokens([row.inputs[common:] for row in rows], length - common))

        shape = (len(rows), length - common, self.own_hidden.shape[1])
        hidden = np.zeros(shape, self.own_hidden.dtype)
        for i, row in enumerate(rows):
            positions = self.own_hidden[self.starts[row.number] : self.starts[row.number + 1]]
            hidden[i, : len(positions)] = positions

        return of_stored_form(hidden)

    def stored_leading(self) -> mx.array:
        """What is stored of the leading tokens: hidden states (1, P, D), or tokens (1, P)."""
        if self.leading is None:
            return mx.array([self.cases.leading_tokens])
        return of_stored_form(self.leading[None])

    def stored(self, rows: Sequence[Row], length: int) -> tuple[mx.array, mx.array]:
        """What is stored of the leading tokens, and of these rows."""
        return self.stored_leading(), self.stored_rows(rows, length)

    def enter(self, stored: mx.array) -> mx.array:
        """Hidden states at the boundary, from what is stored."""
        if self.own_hidden is None:
            return embed(self.stack, stored)
        return stored.astype(self.stack.dtype)


def stored_form(hidden: mx.array) -> mx.array:
    """numpy has no bfloat16: its bits are stored as unsigned integers."""
    return hidden.view(mx.uint16) if hidden.dtype == mx.bfloat16 else hidden


def of_stored_form(stored: np.ndarray) -> mx.array:
    return mx.array(stored).view(mx.bfloat16) if stored.dtype == np.uint16 else mx.array(stored)


def prefix_in_memory(stack: Stack, cases: EncodedCases, boundary: int) -> Prefix:
    """The prefix of a few cases, computed here and not stored."""
    if boundary == 0 or cases.leading == 0:
        return Prefix(stack, cases)

    past, leading = _run_leading(Prefix(stack, cases), boundary)
    own_hidden = [
        run_blocks(stack, embed(stack, mx.array([row.inputs[cases.leading :]])), 0, boundary, past)
        for row in cases.rows
    ]
    mx.eval(own_hidden)
    starts = np.concatenate([[0], np.cumsum([hidden.shape[1] for hidden in own_hidden])])
    rows = np.concatenate([np.array(stored_form(hidden[0])) for hidden in own_hidden])

    leading_rows = np.array(stored_form(leading[0]))
    return Prefix(stack, cases, boundary, leading_rows, rows, starts.astype(np.int64))


def compute_prefix(
    start: Prefix, boundary: int, folder: Path, tokens_at_once: int, emit: Emit
) -> dict[str, int]:
    """Write the arrays of a prefix into `folder`, from those of a shallower one; the counts that its
    manifest keeps.
    """
    stack = start.stack
    cases = start.cases
    past, leading = _run_leading(start, boundary)
    leading_rows = np.array(stored_form(leading[0]))
    np.save(folder / "leading.npy", leading_rows, allow_pickle=False)
    lengths = [len(row.inputs) - cases.leading for row in cases.rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(folder / "starts.npy", starts, allow_pickle=False)

    path = folder / "own.npy"
    shape = (int(starts[-1]), stack.hidden_size)
    own_outputs = np.lib.format.open_memmap(path, "w+", leading_rows.dtype, shape)
    # On a full disk this raises OSError, while a write into the mapping would kill the process;
    # macOS has none.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)

    def hidden_of(numbers: list[int]) -> mx.array:
        longest = max(lengths[number] for number in numbers)
        hidden = start.hidden([cases.rows[i] for i in numbers], cases.leading + longest)
        # Here: on a GPU a view of a result that is read would wait for the batch behind it.
        return stored_form(run_blocks(stack, hidden, start.boundary, boundary, past))

    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    groups = filled_groups(order, [lengths[number] for number in order], tokens_at_once)
    done_rows = 0
    for numbers, outputs in side_by_side([groups], hidden_of):
        hidden = np.array(outputs)
        for i, number in enumerate(numbers):
            own_outputs[starts[number] : starts[number + 1]] = hidden[i, : lengths[number]]
        done_rows += len(numbers)
        emit(ProgressReport("frozen prefix", done_rows, len(lengths)))

    own_outputs.flush()
    return {"boundary": boundary, "rows": len(lengths), "tokens": own_outputs.shape[0]}


def tokens_that_fit(stack: Stack, cases: EncodedCases, limit: int) -> int:
    """Tokens of the passes side by side, each, that stay about within half of `limit` bytes."""
    args = stack.model.args
    longest = max(len(row.inputs) for row in cases.rows)
    # What a block holds of a token at once: its states, those of the MLP, the attention's weights.
    values = 8 * args.hidden_size + 4 * args.intermediate_size
    values += 3 * args.num_attention_heads * longest
    return max(1, limit // (2 * len(streams()) * stack.dtype.size * values))


def _run_leading(start: Prefix, boundary: int) -> tuple[list[SharedPast], mx.array]:
    """Keys and values of the leading tokens in the blocks from `start` to `boundary`, and their
    output (1, P, D).
    """
    past = [SharedPast() for _ in range(boundary)]
    hidden = start.enter(start.stored_leading())
    leading = run_blocks(start.stack, hidden, start.boundary, boundary, past)
    # Evaluated, since passes side by side read them on streams of their own.
    mx.eval(leading, [block.arrays() for block in past])
    return past, leading


@dataclass(frozen=True)
class PrefixStore:
    """The frozen prefixes in a home of the variant whose weights have the digest `variant`."""

    home: Path
    variant: str

    @property
    def folder(self) -> Path:
        """The folder of all prefixes of the home."""
        return self.home / "prefixes"

    def place(self, stack: Stack, cases: EncodedCases, boundary: int) -> Path:
        """The folder of a prefix. Its name is the digest of everything that decides the numbers: packed
        and unpacked weights of one variant give different ones.
        """
        packed = any(
            isinstance(module, nn.QuantizedLinear)
            for layer in stack.layers
            for module in layer.modules()
        )
        return self.folder / short_digest(
            {
                "compute_dtype": str(stack.dtype),
                "packed": packed,
                **backend().id_ingredients,
                "variant": self.variant,
                "boundary": boundary,
                "dtype": str(stack.dtype).removeprefix("mlx.core."),
                "versions": versions(),
                "engine": ENGINE_VERSION,
                "rows": cases.rows_digest,
                "leading": cases.leading,
            }
        )


def is_stored(folder: Path, emit: Emit) -> bool:
    """Whether a prefix is stored and holds what its name promises; else it is removed."""
    if (verified_manifest(folder) or {}).get("key") == folder.name:
        return True
    if not folder.exists():
        return False

    with replacing(folder):
        # Another process may have just put it there.
        if (verified_manifest(folder) or {}).get("key") == folder.name:
            return True
        emit(StepWarning(f"The frozen prefix {folder} is damaged or another's; recomputing it."))
        shutil.rmtree(folder, ignore_errors=True)

    return False


def load_prefix(stack: Stack, cases: EncodedCases, boundary: int, folder: Path) -> Prefix:
    """The prefix whose arrays lie in `folder`, mapped and not read yet."""
    files = [folder / f"{name}.npy" for name in ("leading", "own", "starts")]
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    return Prefix(stack, cases, boundary, *arrays)


def open_prefix(
    stack: Stack,
    cases: EncodedCases,
    boundary: int,
    store: PrefixStore,
    emit: Emit = lambda event: None,
    *,
    limit: int | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
    stored: bool | None = None,
) -> Prefix:
    """The stored prefix of a set at a boundary, computed first if necessary, within `limit` bytes and
    `tokens_at_once` tokens a pass.

    Steps start from the embedding where storing does not pay or has no room. `stored`: whether the
    resumed training began with a stored prefix, to end with the same bits; None if undecided.
    """
    blocks = f"{boundary} of {stack.depth} blocks"
    share = saving(boundary, stack.depth)
    if not pays(boundary, stack.depth):
        emit(Note(f"Frozen prefix not stored: {blocks} would save {share:.0%} of a step."))
        return Prefix(stack, cases)
    if stored is False:
        emit(Note("Frozen prefix not used: this training began without one."))
        return Prefix(stack, cases)

    folder = store.place(stack, cases, boundary)
    own_tokens = sum(len(row.inputs) - cases.leading for row in cases.rows)
    needed_bytes = (cases.leading + own_tokens) * stack.hidden_size * stack.dtype.size
    exists = is_stored(folder, emit)
    if not exists:
        space = DiskSpace.of(store.folder)
        if space.room < needed_bytes:
            emit(StepWarning(space.lack("Frozen prefix", needed_bytes, share)))
            if stored:
                sentence = "This training began with a stored prefix: its last bits may now differ."
                emit(StepWarning(sentence))
            return Prefix(stack, cases)

    saved = f"saves {share:.0%} of a step, {needed_bytes / 1e9:.2f} GB."
    emit(Note(f"Frozen prefix of {blocks}: {saved}"))

    def build(temporary: Path) -> dict[str, Any]:
        # From the nearest shallower one, which has the bits that its blocks gave.
        start = Prefix(stack, cases)
        for shallower in range(boundary - 1, 0, -1):
            near = store.place(stack, cases, shallower)
            if is_stored(near, emit):
                start = load_prefix(stack, cases, shallower, near)
                break

        tokens = tokens_at_once
        if limit is not None:
            tokens = min(tokens, tokens_that_fit(stack, cases, limit))
        counts = compute_prefix(start, boundary, temporary, tokens, emit)
        names = {"key": folder.name, "variant": store.variant, "set_digest": cases.set_digest}
        return names | counts

    if exists:
        mark_used(folder)
    else:
        # Private, since texts could be guessed from activations.
        build_folder(folder, build, private=True)
    return load_prefix(stack, cases, boundary, folder)
