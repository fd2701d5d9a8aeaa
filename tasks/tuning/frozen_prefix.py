"""Work that never changes: activations below the first LoRA block, computed once and shared by a variant's recipes.

LoRA sits on the last N of L blocks, so the first L - N give the same output for a case in every epoch, every recipe,
every evaluation and every dropout pass. The common leading tokens (the instruction) are computed and stored once.

    <home>/prefixes/<digest>/   leading.npy (P, D)   own.npy (sum of own lengths, D)   starts.npy   manifest.json
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

from tasks.runtime.device import versions
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit, Note, ProgressReport, StepWarning
from tasks.runtime.store import build_folder, complete_once, replacing
from tasks.spec import ENGINE_VERSION, byte_count, short_digest
from tasks.tuning.architecture import SharedPast, Stack, embed, run_blocks
from tasks.tuning.batches import TOKENS_AT_ONCE, Cases, Row, filled_groups
from tasks.tuning.memory import cache_limit
from tasks.tuning.streams import side_by_side, together

PAYS_FROM = 0.15  # share of a step that a stored prefix saves, below which it is not worth its disk
SHARE_OF_DISK = 0.25
STORED = np.float32


def saving(boundary: int, depth: int) -> float:
    """Share of a training step's block work that a stored prefix of `boundary` blocks saves (backward counts as one)."""
    return boundary / (depth + (depth - boundary))


@dataclass(frozen=True)
class Prefix:
    """Input of the first trained block for every row of a set: from the store, or embedded afresh (boundary 0)."""

    stack: Stack
    cases: Cases
    boundary: int  # the block from which on a step must compute
    leading: np.ndarray | None
    own: np.ndarray | None
    starts: np.ndarray | None

    def hidden(self, rows: Sequence[Row], length: int) -> mx.array:
        """(N, length - P, D): the positions of each row after the P leading ones, zero where a row has ended."""
        common = self.cases.leading
        if self.own is None or self.starts is None:
            tokens = np.zeros((len(rows), length - common), np.int32)
            for i, row in enumerate(rows):
                tokens[i, : len(row.inputs) - common] = row.inputs[common:]
            return embed(self.stack, mx.array(tokens))
        out = np.zeros((len(rows), length - common, self.own.shape[1]), self.own.dtype)
        for i, row in enumerate(rows):
            own = self.own[self.starts[row.number] : self.starts[row.number + 1]]
            out[i, : len(own)] = own
        return mx.array(out).astype(self.stack.dtype)

    def leading_hidden(self) -> mx.array:
        """(1, P, D): the leading tokens at the boundary."""
        if self.leading is None:
            return embed(self.stack, mx.array([self.cases.rows[0].inputs[: self.cases.leading]]))
        return mx.array(self.leading[None]).astype(self.stack.dtype)


def open_prefix(
    stack: Stack, cases: Cases, boundary: int, root: Path, variant: str, emit: Emit | None = None, *,
    limit: int | None = None, tokens_at_once: int = TOKENS_AT_ONCE, stored: bool | None = None,
) -> Prefix:  # fmt: skip
    """The stored prefix of a set at a boundary, computed first if it is not there; `variant` is the weights' digest.

    Where storing does not pay, or would pass the byte budget, steps start from the embedding. `emit` reports which.
    Computing it takes at most `limit` bytes of MLX's memory and `tokens_at_once` tokens a pass. `stored`: what a training
    that is resumed began with, to end with the same bits; None where it is not settled.
    """
    share, wanted, fresh = (
        saving(boundary, stack.depth),
        _bytes(stack, cases),
        Prefix(stack, cases, 0, None, None, None),
    )
    if cases.leading == 0 or share < PAYS_FROM:
        _say(
            emit,
            f"Frozen prefix not stored: {boundary} of {stack.depth} blocks would save {share:.0%} of a step.",
        )
        return fresh
    if stored is False:
        _say(
            emit,
            "Frozen prefix not used: this training began without one, and is to end with the same bits.",
        )
        return fresh
    key = _digest(stack, cases, boundary, variant)
    folder = root / "prefixes" / key
    if not _trusted(folder, key, emit) and (left := _left(root / "prefixes")) < wanted:
        _say(
            emit,
            f"Frozen prefix not stored: it takes {wanted / 1e9:.2f} GB, and {left / 1e9:.2f} GB are left of the budget "
            "(TRIAGE_PREFIX_BYTES); the frozen blocks are computed in every step.",
        )
        if stored:
            _say(
                emit,
                "This training began with a stored prefix: its last bits may now differ.",
                StepWarning,
            )
        return fresh
    _say(
        emit,
        f"Frozen prefix of {boundary} of {stack.depth} blocks: saves {share:.0%} of a step, {wanted / 1e9:.2f} GB.",
    )

    def build(temporary: Path) -> dict[str, Any]:
        tokens = _tokens_that_fit(stack, cases, boundary, limit, tokens_at_once)
        return {"key": key, "variant": variant} | _compute(
            stack, cases, boundary, temporary, tokens, emit
        )

    build_folder(folder, build, once=True)
    arrays = [
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("leading", "own", "starts")
    ]
    return Prefix(stack, cases, boundary, *arrays)


def _trusted(folder: Path, key: str, emit: Emit | None) -> bool:
    """Whether a stored prefix is there, whole, and the one that its name promises; else it is removed, and `emit` warns."""
    if _promised(complete_once(folder), key):
        return True
    if not folder.exists():
        return False
    with replacing(folder):
        manifest = complete_once(folder)
        if _promised(manifest, key):  # another process has just put it there
            return True
        if folder.exists():
            other = "holds another model's activations, or another boundary's or format's"
            what = "is damaged" if manifest is None else other
            _say(emit, f"The frozen prefix {folder} {what}; it is computed again.", StepWarning)
            shutil.rmtree(folder)
    return False


def _promised(manifest: dict[str, Any] | None, key: str) -> bool:
    return manifest is not None and manifest.get("key") == key


def byte_budget(root: Path) -> int:
    """Bytes that all stored prefixes together may take: TRIAGE_PREFIX_BYTES (`20GB`), else a share of the free disk.

    What they take already counts as free. Raises BadInput for a value that is not a number of bytes.
    """
    if (named := os.environ.get("TRIAGE_PREFIX_BYTES")) is not None:
        try:
            return byte_count(named)
        except ValueError as error:
            raise BadInput(f"TRIAGE_PREFIX_BYTES={named}: {error}.") from None
    root.mkdir(parents=True, exist_ok=True)
    return int(SHARE_OF_DISK * (shutil.disk_usage(root).free + _stored(root)))


def _left(root: Path) -> int:
    return byte_budget(root) - _stored(root)


def _stored(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*/*.npy"))


def _bytes(stack: Stack, cases: Cases) -> int:
    own = sum(len(row.inputs) - cases.leading for row in cases.rows)
    return (cases.leading + own) * stack.hidden_size * np.dtype(STORED).itemsize


def _digest(stack: Stack, cases: Cases, boundary: int, variant: str) -> str:
    """By all that decides the numbers: packed bfloat16 and unpacked float32 weights of one variant differ in them."""
    packed = any(
        isinstance(m, nn.QuantizedLinear) for layer in stack.layers for m in layer.modules()
    )
    return short_digest(
        {
            "compute_dtype": str(stack.dtype), "packed": packed,
            "variant": variant, "boundary": boundary, "dtype": np.dtype(STORED).name, "versions": versions(),
            "engine": ENGINE_VERSION,
            "rows": short_digest({"rows": [row.inputs for row in cases.rows]}), "leading": cases.leading,
        }
    )  # fmt: skip


def _say(emit: Emit | None, message: str, event: type[Note] | type[StepWarning] = Note) -> None:
    if emit:
        emit(event(message))


def _tokens_that_fit(
    stack: Stack, cases: Cases, boundary: int, limit: int | None, most: int
) -> int:
    """Tokens of one pass over the frozen blocks, of so many side by side, that stay within `limit` bytes: by what the
    longest row takes."""
    if limit is None:
        return most
    past, _ = _leading(stack, cases, boundary)
    longest = max(cases.rows, key=lambda row: len(row.inputs)).inputs[cases.leading :]
    mx.clear_cache()
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(run_blocks(stack, embed(stack, mx.array([longest])), 0, boundary, past))
    room, taken = limit - cache_limit(limit) - held, mx.get_peak_memory() - held
    return max(1, min(most, len(longest) * room // max(taken, 1) // together()))


def _leading(stack: Stack, cases: Cases, boundary: int) -> tuple[list[SharedPast], mx.array]:
    """Keys and values of the leading tokens in the frozen blocks, and their output (1, P, D)."""
    past = [SharedPast() for _ in range(boundary)]
    tokens = mx.array([cases.rows[0].inputs[: cases.leading]])
    leading = run_blocks(stack, embed(stack, tokens), 0, boundary, past)
    mx.eval(leading, [p.arrays() for p in past])
    return past, leading


def _compute(
    stack: Stack, cases: Cases, boundary: int, folder: Path, tokens_at_once: int, emit: Emit | None
) -> dict[str, Any]:
    common = cases.leading
    past, leading = _leading(stack, cases, boundary)
    np.save(folder / "leading.npy", _stored_form(leading[0]), allow_pickle=False)
    lengths = [len(row.inputs) - common for row in cases.rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(folder / "starts.npy", starts, allow_pickle=False)
    shape = (int(starts[-1]), stack.hidden_size)
    own = np.lib.format.open_memmap(folder / "own.npy", mode="w+", dtype=STORED, shape=shape)
    _reserve(folder / "own.npy")
    done = 0
    order = sorted(range(len(lengths)), key=lambda n: (lengths[n], n))

    def hidden_of(numbers: list[int]) -> mx.array:
        tokens = np.zeros((len(numbers), max(lengths[n] for n in numbers)), np.int32)
        for i, n in enumerate(numbers):
            tokens[i, : lengths[n]] = cases.rows[n].inputs[common:]
        return run_blocks(stack, embed(stack, mx.array(tokens)), 0, boundary, past)

    groups = filled_groups(order, [lengths[n] for n in order], tokens_at_once)
    for numbers, found in side_by_side(groups, hidden_of):
        hidden = _stored_form(found)
        for i, n in enumerate(numbers):
            own[starts[n] : starts[n + 1]] = hidden[i, : lengths[n]]
        done += len(numbers)
        if emit:
            emit(ProgressReport("frozen prefix", done, len(lengths)))
    own.flush()
    return {"boundary": boundary, "rows": len(lengths), "tokens": shape[0]}


def _stored_form(hidden: mx.array) -> np.ndarray:
    return np.array(hidden.astype(mx.float32), STORED)  # numpy knows no bfloat16


def _reserve(path: Path) -> None:
    """Take the file's blocks now: on a full disk this is an error, while a write into the mapping would kill us."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
