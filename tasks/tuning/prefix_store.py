"""The store of frozen prefixes: which are worth their disk, whether they have room, and opening one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.events import Emit, Note, StepWarning
from tasks.runtime.store import build_folder
from tasks.tuning.architecture import Stack
from tasks.tuning.batches import TOKENS_AT_ONCE, EncodedCases
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.prefix_computation import compute_prefix, tokens_that_fit
from tasks.tuning.prefix_folder import is_stored, load_prefix, nearest_stored, prefix_key
from tasks.tuning.prefix_space import DiskSpace, pays, saving


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

    def holds(self, stack: Stack, cases: EncodedCases, boundary: int, emit: Emit) -> bool:
        """Whether the prefix of a set at a boundary is complete here."""
        key = prefix_key(stack, cases, boundary, self.variant)
        return is_stored(self.folder / key, key, emit)


def open_prefix(
    stack: Stack,
    cases: EncodedCases,
    boundary: int,
    store: PrefixStore,
    emit: Emit | None = None,
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
        _report(emit, Note(reason))
        return Prefix.embedded(stack, cases)

    key = prefix_key(stack, cases, boundary, store.variant)
    folder = store.folder / key
    needed_bytes = _stored_size(stack, cases)
    share = saving(boundary, stack.depth)

    if not is_stored(folder, key, emit):
        space = DiskSpace.of(store.folder)
        if space.room < needed_bytes:
            _report_lack_of_space(
                emit, space.lack("Frozen prefix", needed_bytes, share), bool(stored)
            )
            return Prefix.embedded(stack, cases)

    blocks = f"Frozen prefix of {boundary} of {stack.depth} blocks"
    _report(emit, Note(f"{blocks}: saves {share:.0%} of a step, {needed_bytes / 1e9:.2f} GB."))

    def build(temporary: Path) -> dict[str, Any]:
        start = nearest_stored(stack, cases, boundary, store.folder, store.variant, emit)
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
        if store.holds(stack, cases, boundary, emit):
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


def _report_lack_of_space(emit: Emit | None, lack: str, was_stored: bool) -> None:
    _report(emit, Note(lack))
    if was_stored:
        sentence = "This training began with a stored prefix: its last bits may now differ."
        _report(emit, StepWarning(sentence))


def _stored_size(stack: Stack, cases: EncodedCases) -> int:
    own_tokens = sum(len(row.inputs) - cases.leading for row in cases.rows)
    return (cases.leading + own_tokens) * stack.hidden_size * stack.dtype.size


def _report(emit: Emit | None, event: Note | StepWarning) -> None:
    if emit:
        emit(event)
