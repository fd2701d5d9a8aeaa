"""Dropout masks from keys alone, drawn in a thread before the step that needs them.

A mask is a function of its key, so that it does not matter who draws it or when: a mask that is not
ready is drawn where it is needed. What is drawn ahead is bounded in bytes.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
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

    `shape` is that of a sequence's input, `drop` the number of RANDOM_STEPS that are dropped.
    `leading`: the inputs are one joined row (joined.py), in which the sequences follow so many
    leading tokens with a key of their own.
    """

    keys: tuple[Key, ...]
    place: tuple[int, int]
    shape: tuple[int, ...]
    drop: int
    leading: Leading | None = None

    def __hash__(self) -> int:
        # Some ten times for each mask of each step: of no more than tells them apart.
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
    """Uniform 16-bit integers of a shape, from a key alone.

    Raw PCG64 output is the same in every numpy.
    """
    count = math.prod(shape)
    # Four 16-bit integers from each 64-bit one.
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(-(-count // 4))
    return raw.astype("<u8", copy=False).view("<u2")[:count].reshape(shape)


class MaskSource(Protocol):
    """Where a dropout module takes its masks."""

    def take(self, request: MaskRequest) -> mx.array:
        """The masks of a request."""


class DrawNow:
    """Draws each mask when it is needed."""

    def take(self, request: MaskRequest) -> mx.array:
        """The masks of a request."""
        return mx.array(request.draw())


DRAW_NOW = DrawNow()


class MasksAhead:
    """Masks that a thread draws in the order of their requests, at most `limit` bytes ahead.

    `copied`: the thread copies them into MLX's memory too, so that the step need not.
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
        self.hits = 0
        self.misses = 0

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
            self.hits += mask is not None
            self.misses += mask is None
            if self._uses[request] <= 0:
                self._forget(request)
            if self._waiting:
                # There may be room for another now; a thread that
                # wakes for nothing delays this one.
                self._changed.notify()

        if mask is None:
            mask = request.draw()
        return mask if isinstance(mask, mx.array) else mx.array(mask)

    @property
    def held_bytes(self) -> int:
        """Bytes of the masks that are drawn and not yet taken."""
        with self._changed:
            return self._ready_bytes

    def _forget(self, request: MaskRequest) -> None:
        self._waiting.pop(request, None)
        if self._ready.pop(request, None) is not None:
            self._ready_bytes -= request.size

    def close(self) -> None:
        """End the thread, and wait for its end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (request := self._next()) is not None:
            # Outside the lock, since it takes a while. An array made from numpy is complete, so
            # another thread may use it; a lazy one belongs to the stream of its own thread.
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


@contextmanager
def drawn_ahead(copied: bool) -> Iterator[MasksAhead]:
    """A thread that draws masks ahead within the block."""
    ahead = MasksAhead(copied=copied)
    try:
        yield ahead
    finally:
        ahead.close()
