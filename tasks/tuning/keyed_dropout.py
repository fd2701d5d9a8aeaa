"""Dropout that is repeatable case by case: a module whose masks depend on keys alone."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from tasks.tuning.dropout_masks import DRAW_NOW, RANDOM_STEPS, Key, Leading, MaskRequest, MaskSource

# Modules that the pruned last block computes at every position; the others only where a row is
# scored.
AT_EVERY_POSITION = ("self_attn.k_proj", "self_attn.v_proj")


class KeyedDropout(nn.Module):
    """Dropout whose mask for a case depends on that case's key alone, never on its neighbours in
    the batch.

    So the micro-batch size changes nothing, and a dropout pass can be repeated. Off until keys are
    set. `place` is (layer, module), so that no two modules share a mask; `width` is the size of the
    inputs, and `target` the module's name within its block.
    """

    def __init__(self, probability: float, place: tuple[int, int], width: int, target: str) -> None:
        super().__init__()
        # With underscores: under another name MLX would take the list of keys for parameters.
        self._probability = probability
        self._place = place
        self._width = width
        self._target = target
        self._keys: list[Key] | None = None
        self._leading: Leading | None = None
        self._source: MaskSource = DRAW_NOW

    def set_keys(self, keys: list[Key] | None, leading: Leading | None = None) -> None:
        """One key (a tuple of integers) per sequence of the next forward pass.

        None switches dropout off. `leading`: the inputs are one joined row (joined.py), in which
        the sequences follow so many leading tokens with a key of their own.
        """
        self._keys = keys
        self._leading = leading

    def take_from(self, source: MaskSource) -> None:
        """Set where masks are taken."""
        self._source = source

    @property
    def source(self) -> MaskSource:
        """Where masks are taken."""
        return self._source

    @property
    def keys_now(self) -> tuple[list[Key] | None, Leading | None]:
        """The arguments of the last `set_keys`."""
        return self._keys, self._leading

    @property
    def block(self) -> int:
        """The block that the module is in."""
        return self._place[0]

    @property
    def at_every_position(self) -> bool:
        """Whether the module is computed for every position, in the last block too."""
        return self._target in AT_EVERY_POSITION

    def request(
        self, keys: Sequence[Key], positions: int, leading: Leading | None = None
    ) -> MaskRequest:
        """The masks of a forward pass over sequences of `positions` positions."""
        drop = round(self._probability * RANDOM_STEPS)
        return MaskRequest(tuple(keys), self._place, (positions, self._width), drop, leading)

    def __call__(self, x: mx.array) -> mx.array:
        if self._probability == 0 or self._keys is None:
            return x

        request = self._request_for(x, self._keys)
        mask = self._source.take(request)
        # By the share that really stays: the probability is rounded to RANDOM_STEPS.
        return x * mask * (RANDOM_STEPS / (RANDOM_STEPS - request.drop))

    def _request_for(self, x: mx.array, keys: list[Key]) -> MaskRequest:
        if self._leading is None:
            return self.request(keys, x.shape[1])
        return self.request(keys, (len(x) - self._leading[1]) // len(keys), self._leading)
