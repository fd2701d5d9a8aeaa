"""The store of frozen prefixes that the recipes of a variant share: which are worth their disk,
whether they have room, and opening one.

<home>/prefixes/<key>/
    leading.npy     (P, D)
    own.npy         (sum of own lengths, D)
    starts.npy      where each row begins in own.npy
    manifest.json
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np

from tasks.runtime.backend import backend, versions
from tasks.runtime.events import Emit, Event, Note, StepWarning
from tasks.runtime.locks import replacing
from tasks.runtime.store import build_folder, verified_manifest
from tasks.spec import ENGINE_VERSION, short_digest
from tasks.tuning.activations import Prefix, compute_prefix, tokens_that_fit
from tasks.tuning.data import TOKENS_AT_ONCE, EncodedCases
from tasks.tuning.model import Stack
from tasks.tuning.prefix_space import DiskSpace, pays, saving


def prefix_key(stack: Stack, cases: EncodedCases, boundary: int, variant: str) -> str:
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


def is_stored(folder: Path, key: str, emit: Emit) -> bool:
    """Whether a stored prefix is complete and holds what its name promises.

    Else it is removed, with a warning.
    """
    if (verified_manifest(folder) or {}).get("key") == key:
        return True
    if not folder.exists():
        return False

    with replacing(folder):
        manifest = verified_manifest(folder)
        # Another process may have just put it there.
        if manifest is not None and manifest.get("key") == key:
            return True
        if folder.exists():
            foreign = "holds another model's activations, or another boundary's or format's"
            problem = "is damaged" if manifest is None else foreign
            emit(StepWarning(f"The frozen prefix {folder} {problem}; recomputing it."))
            shutil.rmtree(folder)

    return False


def load_prefix(stack: Stack, cases: EncodedCases, boundary: int, folder: Path) -> Prefix:
    """The prefix whose arrays lie in `folder`, mapped and not read yet."""
    arrays = [
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("leading", "own", "starts")
    ]
    return Prefix(stack, cases, boundary, *arrays)


def silent(event: Event) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class PrefixStore:
    """The frozen prefixes of one variant in a home.

    `variant`: the digest of its weights.
    """

    home: Path
    variant: str

    @property
    def folder(self) -> Path:
        """The folder of all prefixes of the home."""
        return self.home / "prefixes"


def open_prefix(
    stack: Stack,
    cases: EncodedCases,
    boundary: int,
    store: PrefixStore,
    emit: Emit = silent,
    *,
    limit: int | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
    stored: bool | None = None,
) -> Prefix:
    """The stored prefix of a set at a boundary, computed first if necessary.

    If storing does not pay, or would exceed the byte budget, steps start from the embedding; `emit`
    reports which. The computation takes at most `limit` bytes of MLX's memory and `tokens_at_once`
    tokens a pass. `stored`: whether the resumed training began with a stored prefix, to end with
    the same bits; None if that is not decided.
    """
    reason = _reason_not_to_store(stack, cases, boundary, stored)
    if reason is not None:
        emit(Note(reason))
        return Prefix.embedded(stack, cases)

    key = prefix_key(stack, cases, boundary, store.variant)
    folder = store.folder / key
    needed_bytes = _stored_size(stack, cases)
    share = saving(boundary, stack.depth)

    if not is_stored(folder, key, emit):
        space = DiskSpace.of(store.folder)
        if space.room < needed_bytes:
            emit(Note(space.lack("Frozen prefix", needed_bytes, share)))
            if stored:
                sentence = "This training began with a stored prefix: its last bits may now differ."
                emit(StepWarning(sentence))
            return Prefix.embedded(stack, cases)

    blocks = f"Frozen prefix of {boundary} of {stack.depth} blocks"
    emit(Note(f"{blocks}: saves {share:.0%} of a step, {needed_bytes / 1e9:.2f} GB."))

    def build(temporary: Path) -> dict[str, Any]:
        # From the nearest shallower one, with the fewest blocks. What is stored has the bits that the
        # blocks gave, so the deeper one does not depend on it.
        start = Prefix.embedded(stack, cases)
        for shallower in range(boundary - 1, 0, -1):
            near = prefix_key(stack, cases, shallower, store.variant)
            if is_stored(store.folder / near, near, emit):
                start = load_prefix(stack, cases, shallower, store.folder / near)
                break

        tokens = tokens_that_fit(start, boundary, limit, tokens_at_once)
        counts = compute_prefix(start, boundary, temporary, tokens, emit)
        return {"key": key, "variant": store.variant, "set_digest": cases.set_digest} | counts

    # Private, since texts could be guessed from activations.
    build_folder(folder, build, single_check=True, private=True)
    return load_prefix(stack, cases, boundary, folder)


def warn_of_lack_of_space(
    stack: Stack,
    sets: Mapping[str, EncodedCases],
    boundary: int,
    store: PrefixStore,
    emit: Emit,
) -> None:
    """Warn, before anything is computed, of the sets whose prefixes will have no room.

    The arguments are those of `open_prefix`, which the sets take in this order.
    """
    space = DiskSpace.of(store.folder)
    remaining = space.room
    lacking: dict[str, int] = {}
    for name, cases in sets.items():
        if _reason_not_to_store(stack, cases, boundary, None):
            continue
        key = prefix_key(stack, cases, boundary, store.variant)
        if is_stored(store.folder / key, key, emit):
            continue

        size = _stored_size(stack, cases)
        if remaining < size:
            lacking[name] = size
        else:
            remaining -= size

    if lacking:
        lack = f"No room for the frozen prefix of {' and '.join(lacking)}"
        sentence = space.lack(lack, sum(lacking.values()), saving(boundary, stack.depth))
        emit(StepWarning(sentence))


def _reason_not_to_store(
    stack: Stack, cases: EncodedCases, boundary: int, stored: bool | None
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


def _stored_size(stack: Stack, cases: EncodedCases) -> int:
    own_tokens = sum(len(row.inputs) - cases.leading for row in cases.rows)
    return (cases.leading + own_tokens) * stack.hidden_size * stack.dtype.size
