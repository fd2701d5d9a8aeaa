"""Work that never changes: activations below the first LoRA block, computed once and shared by a
variant's recipes.

LoRA sits on the last N of L blocks, so the first L - N give the same output for a case in every
epoch, every recipe, every evaluation and every dropout pass. The common leading tokens (the
instruction) are computed and stored once.

    <home>/prefixes/<digest>/   leading.npy (P, D)   own.npy (sum of own lengths, D)   starts.npy   manifest.json
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.runtime.backend import backend, versions
from tasks.runtime.events import Emit, Note, ProgressReport, StepWarning
from tasks.runtime.store import ManifestDict, build_folder, complete_once, replacing
from tasks.spec import ENGINE_VERSION, short_digest
from tasks.tuning.architecture import SharedPast, Stack, embed, run_blocks
from tasks.tuning.batches import TOKENS_AT_ONCE, Cases, Row, filled_groups, padded_tokens
from tasks.tuning.memory import cache_limit
from tasks.tuning.prefix_space import Space, pays, saving
from tasks.tuning.streams import side_by_side, together

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
    i's own positions are `own[starts[i] : starts[i + 1]]`.
    """

    stack: Stack
    cases: Cases
    boundary: int
    leading: np.ndarray | None
    own: np.ndarray | None
    starts: np.ndarray | None

    @classmethod
    def embedded(cls, stack: Stack, cases: Cases) -> Prefix:
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
        if self.own is None or self.starts is None:
            return mx.array(padded_tokens([row.inputs[common:] for row in rows], length - common))

        hidden = np.zeros((len(rows), length - common, self.own.shape[1]), self.own.dtype)
        for i, row in enumerate(rows):
            positions = self.own[self.starts[row.number] : self.starts[row.number + 1]]
            hidden[i, : len(positions)] = positions

        return _of_stored_form(hidden)

    def stored_leading(self) -> mx.array:
        """What is stored of the leading tokens: hidden states (1, P, D), or tokens (1, P)."""
        if self.leading is None:
            return mx.array([self.cases.leading_tokens])
        return _of_stored_form(self.leading[None])

    def enter(self, stored: mx.array) -> mx.array:
        """Hidden states at the boundary, from what is stored."""
        if self.own is None:
            return embed(self.stack, stored)
        return stored.astype(self.stack.dtype)


def open_prefix(
    stack: Stack,
    cases: Cases,
    boundary: int,
    root: Path,
    variant: str,
    emit: Emit | None = None,
    *,
    limit: int | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
    stored: bool | None = None,
    most_layers: int | None = None,
) -> Prefix:
    """The stored prefix of a set at a boundary, computed first if necessary.

    `variant` is the digest of the weights.

    If storing does not pay, or would exceed the byte budget, steps start from the embedding; `emit`
    reports which. The computation takes at most `limit` bytes of MLX's memory and `tokens_at_once`
    tokens a pass. `stored`: whether the resumed training began with a stored prefix, to end with
    the same bits; None if that is not decided. `most_layers`: the most blocks that any experiment
    trains on these cases; the shallower prefix that it will read is stored first, and this one
    starts from it.
    """
    reason = _reason_not_to_store(stack, cases, boundary, stored)
    if reason is not None:
        _report(emit, Note(reason))
        return Prefix.embedded(stack, cases)

    key = _digest(stack, cases, boundary, variant)
    folder = root / "prefixes" / key
    needed_bytes = _stored_size(stack, cases)
    share = saving(boundary, stack.depth)

    if not _is_stored(folder, key, emit):
        space = Space.of(folder.parent)
        if space.left < needed_bytes:
            _report_lack_of_space(
                emit, space.lack("Frozen prefix", needed_bytes, share), bool(stored)
            )
            return Prefix.embedded(stack, cases)

    blocks = f"Frozen prefix of {boundary} of {stack.depth} blocks"
    _report(emit, Note(f"{blocks}: saves {share:.0%} of a step, {needed_bytes / 1e9:.2f} GB."))

    def build(temporary: Path) -> dict[str, Any]:
        shared = _shared_boundary(stack, boundary, most_layers)
        if shared and Space.of(folder.parent).left >= 2 * needed_bytes:
            open_prefix(
                stack=stack,
                cases=cases,
                boundary=shared,
                root=root,
                variant=variant,
                emit=emit,
                limit=limit,
                tokens_at_once=tokens_at_once,
            )

        start = _nearest_stored(stack, cases, boundary, folder.parent, variant, emit)
        tokens = _tokens_that_fit(start, boundary, limit, tokens_at_once)
        counts = _compute(start, boundary, temporary, tokens, emit)
        return {"key": key, "variant": variant} | counts

    build_folder(folder, build, once=True, private=True)
    return _load(stack, cases, boundary, folder)


def _load(stack: Stack, cases: Cases, boundary: int, folder: Path) -> Prefix:
    arrays = [
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("leading", "own", "starts")
    ]
    return Prefix(stack, cases, boundary, *arrays)


def _nearest_stored(
    stack: Stack, cases: Cases, boundary: int, prefixes: Path, variant: str, emit: Emit | None
) -> Prefix:
    """The stored prefix from which a deeper one is computed with the fewest blocks; embedded where
    there is none. What is stored has the bits that the blocks gave, so the deeper one does not
    depend on it.
    """
    for shallower in range(boundary - 1, 0, -1):
        key = _digest(stack, cases, shallower, variant)
        if _is_stored(prefixes / key, key, emit):
            return _load(stack, cases, shallower, prefixes / key)
    return Prefix.embedded(stack, cases)


def _shared_boundary(stack: Stack, boundary: int, most_layers: int | None) -> int:
    """The boundary of a shallower prefix that others will read and that pays by itself; 0 if there
    is none.
    """
    shared = stack.depth - (most_layers or stack.depth)
    return shared if 0 < shared < boundary and pays(shared, stack.depth) else 0


def warn_of_lack_of_space(
    stack: Stack,
    sets: Mapping[str, Cases],
    boundary: int,
    root: Path,
    variant: str,
    emit: Emit,
    most_layers: int | None = None,
) -> None:
    """Warn, before anything is computed, of the sets whose prefixes will have no room.

    The arguments are those of `open_prefix`, which the sets take in this order.
    """
    space = Space.of(root / "prefixes")
    remaining = space.left
    lacking: dict[str, int] = {}
    for name, cases in sets.items():
        if _reason_not_to_store(stack, cases, boundary, None):
            continue
        if _is_there(stack, cases, boundary, root, variant, emit):
            continue

        size = _stored_size(stack, cases)
        if remaining < size:
            lacking[name] = size
            continue

        shared = _shared_boundary(stack, boundary, most_layers)
        makes_both = shared and not _is_there(stack, cases, shared, root, variant, emit)
        remaining -= 2 * size if makes_both and remaining >= 2 * size else size

    if lacking:
        lack = f"No room for the frozen prefix of {' and '.join(lacking)}"
        sentence = space.lack(lack, sum(lacking.values()), saving(boundary, stack.depth))
        emit(StepWarning(sentence))


def _is_there(
    stack: Stack, cases: Cases, boundary: int, root: Path, variant: str, emit: Emit
) -> bool:
    key = _digest(stack, cases, boundary, variant)
    return _is_stored(root / "prefixes" / key, key, emit)


def prefix_in_memory(stack: Stack, cases: Cases, boundary: int) -> Prefix:
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
    rows = np.concatenate([_stored_form(hidden[0]) for hidden in own_hidden])

    return Prefix(stack, cases, boundary, _stored_form(leading[0]), rows, starts.astype(np.int64))


def _reason_not_to_store(
    stack: Stack, cases: Cases, boundary: int, stored: bool | None
) -> str | None:
    share = saving(boundary, stack.depth)
    if cases.leading == 0 or not pays(boundary, stack.depth):
        return (
            f"Frozen prefix not stored: {boundary} of {stack.depth} blocks "
            f"would save {share:.0%} of a step."
        )
    if stored is False:
        return (
            "Frozen prefix not used: this training began without one, "
            "and is to end with the same bits."
        )

    return None


def _report_lack_of_space(emit: Emit | None, lack: str, was_stored: bool) -> None:
    _report(emit, Note(lack))
    if was_stored:
        sentence = "This training began with a stored prefix: its last bits may now differ."
        _report(emit, StepWarning(sentence))


def _is_stored(folder: Path, key: str, emit: Emit | None) -> bool:
    """Whether a stored prefix is complete and holds what its name promises.

    Else it is removed, with a warning.
    """
    if _has_key(complete_once(folder), key):
        return True
    if not folder.exists():
        return False

    with replacing(folder):
        manifest = complete_once(folder)
        # Another process may have just put it there.
        if _has_key(manifest, key):
            return True
        if folder.exists():
            foreign = "holds another model's activations, or another boundary's or format's"
            problem = "is damaged" if manifest is None else foreign
            _report(emit, StepWarning(f"The frozen prefix {folder} {problem}; recomputing it."))
            shutil.rmtree(folder)

    return False


def _has_key(manifest: ManifestDict | None, key: str) -> bool:
    return manifest is not None and manifest.get("key") == key


def _stored_size(stack: Stack, cases: Cases) -> int:
    own_tokens = sum(len(row.inputs) - cases.leading for row in cases.rows)
    return (cases.leading + own_tokens) * stack.hidden_size * stack.dtype.size


def _digest(stack: Stack, cases: Cases, boundary: int, variant: str) -> str:
    """Digest of everything that decides the numbers.

    Packed bfloat16 and unpacked float32 weights of one variant give different ones.
    """
    packed = any(
        isinstance(module, nn.QuantizedLinear)
        for layer in stack.layers
        for module in layer.modules()
    )
    return short_digest(
        {
            "compute_dtype": str(stack.dtype),
            "packed": packed,
            **backend().id_ingredients,
            "variant": variant,
            "boundary": boundary,
            "dtype": str(stack.dtype).removeprefix("mlx.core."),
            "versions": versions(),
            "engine": ENGINE_VERSION,
            "rows": cases.rows_digest,
            "leading": cases.leading,
        }
    )


def _report(emit: Emit | None, event: Note | StepWarning | ProgressReport) -> None:
    if emit:
        emit(event)


def _tokens_that_fit(start: Prefix, boundary: int, limit: int | None, most: int) -> int:
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
    return max(1, min(most, own_tokens * room // max(peak_bytes, 1) // together()))


def _run_leading(start: Prefix, boundary: int) -> tuple[list[SharedPast], mx.array]:
    """Keys and values of the leading tokens in the blocks from `start` to `boundary`, and their
    output (1, P, D).
    """
    past = [SharedPast() for _ in range(boundary)]
    leading = run_blocks(start.stack, start.leading_hidden(), start.boundary, boundary, past)
    mx.eval(leading, [block.arrays() for block in past])
    return past, leading


def _compute(
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
    np.save(folder / "leading.npy", _stored_form(leading[0]), allow_pickle=False)
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
        hidden = _stored_form(outputs)
        for i, number in enumerate(numbers):
            own_outputs[starts[number] : starts[number + 1]] = hidden[i, : lengths[number]]
        done_rows += len(numbers)
        _report(emit, ProgressReport("frozen prefix", done_rows, len(lengths)))

    own_outputs.flush()
    return {"boundary": boundary, "rows": len(lengths), "tokens": own_outputs.shape[0]}


def _stored_form(hidden: mx.array) -> np.ndarray:
    return np.array(hidden.view(mx.uint16) if hidden.dtype == mx.bfloat16 else hidden)


def _of_stored_form(stored: np.ndarray) -> mx.array:
    return mx.array(stored).view(mx.bfloat16) if stored.dtype == np.uint16 else mx.array(stored)


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
