"""Dropout that is repeatable case by case: a mask is a function of its key alone, so it does not
matter who draws it or when. A thread draws masks before the step that needs them.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

# 16 random bits an element: half the work of 32, and a probability exact to 1e-5.
RANDOM_STEPS = 1 << 16
# Masks of 4 x 256 tokens in 16 blocks of SmolLM2-135M take 82 MB.
AHEAD_BYTES = 128 << 20

Key = tuple[int, ...]
# Key and number of leading tokens.
Leading = tuple[Key, int]


@dataclass(frozen=True)
class MaskRequest:
    """The masks of one module in one forward pass: one key per sequence.

    `shape`: of a sequence's input; `drop`: the number of RANDOM_STEPS that are dropped; `leading`: in
    a joined row (compiled.py), the key and number of the tokens before the sequences.
    """

    keys: tuple[Key, ...]
    place: tuple[int, int]
    shape: tuple[int, ...]
    drop: int
    leading: Leading | None = None

    def __hash__(self) -> int:
        # Taken some ten times for each mask of each step: of no more than tells them apart.
        return hash((self.place, self.keys[0]))

    @property
    def size(self) -> int:
        """Bytes of the masks."""
        own_size = len(self.keys) * math.prod(self.shape)
        return own_size + (self.leading[1] * self.shape[-1] if self.leading else 0)

    def draw(self) -> np.ndarray:
        """(sequences, *shape) booleans: whether an element stays; (tokens, width) of a joined row."""
        if self.leading is None:
            mask = np.empty((len(self.keys), *self.shape), np.bool_)
            self._draw_into(mask, self.keys)
            return mask

        key, count = self.leading
        width = self.shape[-1]
        row = np.empty((self.size // width, width), np.bool_)
        self._draw_into(row[None, :count], [key])
        self._draw_into(row[count:].reshape(len(self.keys), *self.shape), self.keys)

        return row

    def _draw_into(self, mask: np.ndarray, keys: Sequence[Key]) -> None:
        for i, key in enumerate(keys):
            np.greater_equal(_draws((*key, *self.place), mask.shape[1:]), self.drop, out=mask[i])


def _draws(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform 16-bit integers of a shape, from a key alone."""
    count = math.prod(shape)
    # Four from each 64-bit integer. Raw PCG64 output is the same in every numpy.
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(-(-count // 4))
    return raw.astype("<u8", copy=False).view("<u2")[:count].reshape(shape)


# Where a dropout module takes its masks.
MaskSource = Callable[[MaskRequest], mx.array]


def draw_now(request: MaskRequest) -> mx.array:
    """The masks of a request, drawn when they are needed."""
    return mx.array(request.draw())


class MasksAhead:
    """Masks that a thread draws in the order of their requests, at most `limit` bytes ahead.

    `copied`: the thread copies them into MLX's memory too.
    """

    def __init__(self, limit: int = AHEAD_BYTES, copied: bool = False) -> None:
        self._limit = limit
        self._copied = copied
        self._changed = threading.Condition()
        self._waiting: dict[MaskRequest, None] = {}
        self._ready: dict[MaskRequest, np.ndarray | mx.array] = {}
        # How often each mask is still to be taken: that of the instruction once a micro-batch.
        self._uses: Counter[MaskRequest] = Counter()
        self._ready_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="dropout masks", daemon=True)
        self._thread.start()

    def expect(self, requests: Iterable[MaskRequest]) -> None:
        """Draw these next; what was expected before them and not yet taken is forgotten."""
        with self._changed:
            self._uses = Counter(requests)
            self._waiting = dict.fromkeys(self._uses)
            self._ready = {r: mask for r, mask in self._ready.items() if r in self._waiting}
            for request in self._ready:
                del self._waiting[request]
            self._ready_bytes = sum(request.size for request in self._ready)
            self._changed.notify()

    def take(self, request: MaskRequest) -> mx.array:
        """The masks of a request, drawn now if the thread has not come to it."""
        with self._changed:
            self._uses[request] -= 1
            mask = self._ready.get(request)
            if self._uses[request] <= 0:
                self._waiting.pop(request, None)
                if self._ready.pop(request, None) is not None:
                    self._ready_bytes -= request.size
            if self._waiting:
                # There may be room for another now. A thread that wakes for nothing delays this one.
                self._changed.notify()

        if mask is None:
            mask = request.draw()
        return mask if isinstance(mask, mx.array) else mx.array(mask)

    def __enter__(self) -> MasksAhead:
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (request := self._next()) is not None:
            # Outside the lock, since it takes a while. An array made from numpy is complete, so
            # another thread may use it.
            mask = mx.array(request.draw()) if self._copied else request.draw()
            with self._changed:
                # It may have been taken, or forgotten, meanwhile.
                if request in self._waiting:
                    del self._waiting[request]
                    self._ready[request] = mask
                    self._ready_bytes += request.size

    def _next(self) -> MaskRequest | None:
        """The request to draw next, as soon as there is one and room for it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room())
            return None if self._closed else next(iter(self._waiting))

    def _has_room(self) -> bool:
        request = next(iter(self._waiting), None)
        return request is not None and self._ready_bytes + request.size <= self._limit


# Modules that the pruned last block computes at every position, not only where a row is scored.
AT_EVERY_POSITION = ("self_attn.k_proj", "self_attn.v_proj")


class KeyedDropout(nn.Module):
    """Dropout whose mask for a case depends on that case's key alone, so that the micro-batch changes
    nothing, and a dropout pass can be repeated. Off until keys are set.

    `place`: (layer, module), so that no two modules share a mask; `width`: of the inputs; `target`:
    the module's name within its block; `source`: where it takes its masks.
    """

    def __init__(self, probability: float, place: tuple[int, int], width: int, target: str) -> None:
        super().__init__()
        self.block = place[0]
        self.at_every_position = target in AT_EVERY_POSITION
        self.source: MaskSource = draw_now
        # With underscores: under another name MLX would take lists and tuples for parameters.
        self._probability = probability
        self._place = place
        self._width = width
        self._keys: list[Key] | None = None
        self._leading: Leading | None = None

    def set_keys(self, keys: list[Key] | None, leading: Leading | None = None) -> None:
        """One key per sequence of the next forward pass, None for no dropout; `leading` as in a
        MaskRequest.
        """
        self._keys = keys
        self._leading = leading

    @property
    def keys_now(self) -> tuple[list[Key] | None, Leading | None]:
        """The arguments of the last `set_keys`."""
        return self._keys, self._leading

    def request(
        self, keys: Sequence[Key], positions: int, leading: Leading | None = None
    ) -> MaskRequest:
        """The masks of a forward pass over sequences of `positions` positions."""
        drop = round(self._probability * RANDOM_STEPS)
        return MaskRequest(tuple(keys), self._place, (positions, self._width), drop, leading)

    def __call__(self, x: mx.array) -> mx.array:
        if self._probability == 0 or self._keys is None:
            return x

        positions = x.shape[1]
        if self._leading is not None:
            positions = (len(x) - self._leading[1]) // len(self._keys)
        request = self.request(self._keys, positions, self._leading)
        # By the share that really stays: the probability is rounded to RANDOM_STEPS.
        return x * self.source(request) * (RANDOM_STEPS / (RANDOM_STEPS - request.drop))
