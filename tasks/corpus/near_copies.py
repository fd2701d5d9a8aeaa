"""Nearly equal texts among many: the Jaccard index of their runs of four words, found without comparing all pairs.

Runs of words become 64-bit hashes, computed for a batch of texts at once. Up to KEPT runs every one is compared; beyond
that only those whose hash ends in zeros, ever fewer (Broder, 1997: a modulo sketch), so that memory stays bounded and
the index becomes an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import Case
from tasks.corpus.near_candidates import Hashes, Rows, matches

RUN = 4  # words
BATCH = 4096  # texts hashed at once
KEPT = 12_000_000  # runs
PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64


@dataclass
class Sketch:
    """The hashed runs of words of the texts added so far. `every`: one run in so many is kept."""

    texts: int = 0
    every: int = 1
    kept: int = 0
    parts: list[tuple[Hashes, Rows]] = field(default_factory=list)

    def add(self, texts: Sequence[str]) -> None:
        """Add a batch of texts; their numbers go on from those before."""
        hashes, rows = _runs(texts)
        self._keep(hashes, rows + self.texts)
        self.texts += len(texts)
        while self.kept > KEPT:
            parts, self.parts, self.kept, self.every = self.parts, [], 0, self.every * 2
            for part in parts:
                self._keep(*part)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Sketch:
        """A sketch of texts that are all at hand."""
        made = cls()
        for start in range(0, len(texts), BATCH):
            made.add(texts[start : start + BATCH])
        return made

    def _keep(self, hashes: Hashes, rows: Rows) -> None:
        chosen = (hashes & np.uint64(self.every - 1)) == 0
        self.parts.append((hashes[chosen], rows[chosen]))
        self.kept += int(chosen.sum())

    def pairs(self, threshold: float, sides: Any = None) -> list[tuple[int, int, float]]:
        """Numbers of two texts and their Jaccard index, from `threshold` up, most alike first; at most COMPARED.

        `sides`: with one code per text, shape (texts,), only pairs of different codes count.
        """
        if not self.kept:
            return []
        hashes = np.concatenate([part[0] for part in self.parts])
        rows = np.concatenate([part[1] for part in self.parts]).astype(np.int64)
        order = np.argsort(
            hashes, kind="stable"
        )  # rows were added in order, so they ascend within a hash
        hashes, rows = hashes[order], rows[order]
        first = np.ones(len(hashes), dtype=bool)
        first[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        hashes, rows = hashes[first], rows[first]
        codes = None if sides is None else np.asarray(sides)
        return matches(hashes, rows, self.texts, threshold, codes, sampled=self.every > 1)


def _runs(texts: Sequence[str]) -> tuple[Hashes, Rows]:
    """The hash of every run of RUN words with the number of its text; a shorter text is one run as a whole."""
    encoded = [text.casefold().encode("utf-8", "surrogatepass") for text in texts]
    content = np.frombuffer(b"\n".join(encoded) + b"\n", dtype=np.uint8)
    inside = np.r_[False, _letters()[content]]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers, inverse = _powers(1 << len(content).bit_length())
    sums = np.r_[
        np.zeros(1, np.uint64), np.cumsum((content.astype(np.uint64) + 1) * powers[: len(content)])
    ]
    words = _mix((sums[ends] - sums[starts]) * inverse[starts])
    row_ends = np.cumsum([len(part) + 1 for part in encoded])
    rows = np.searchsorted(row_ends, starts, side="right").astype(np.int64)
    counts = np.bincount(rows, minlength=len(texts))
    if len(words) >= RUN:
        last = len(words) - RUN + 1
        mixed = np.zeros(last, np.uint64)
        for place in range(RUN):
            mixed = mixed * np.uint64(PRIME) + words[place : place + last]
        whole = rows[:last] == rows[RUN - 1 :]
        hashes, owners = _mix(mixed[whole]), rows[:last][whole]
    else:
        hashes, owners = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    short = np.flatnonzero((counts > 0) & (counts < RUN))
    if len(short):
        begin = np.searchsorted(rows, short)
        parts = [
            _mix(words[i : i + counts[n]].sum(keepdims=True))
            for i, n in zip(begin, short, strict=True)
        ]
        hashes, owners = np.r_[hashes, np.concatenate(parts)], np.r_[owners, short]
        order = np.argsort(owners, kind="stable")
        hashes, owners = hashes[order], owners[order]
    return hashes, owners


def _mix(values: Hashes) -> Hashes:
    """Spread what differs over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _letters() -> NDArray[np.bool_]:
    """Which bytes belong to words: letters, digits, the underscore, and all of a character beyond ASCII."""
    return np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """PRIME^0, PRIME^1, ... and their inverses modulo 2^64."""
    made = []
    for base in (PRIME, pow(PRIME, -1, 1 << 64)):
        factors = np.full(length, base, dtype=np.uint64)
        factors[0] = 1
        made.append(np.multiply.accumulate(factors))
    return made[0], made[1]


@dataclass(frozen=True)
class NearDuplicate:
    """Two cases of different sets that share most of their runs of words (Jaccard index, 0 to 1)."""

    case_a: str
    set_a: str
    case_b: str
    set_b: str
    similarity: float


def near_duplicates(
    sets: Mapping[str, Sequence[Case]], threshold: float = 0.5
) -> list[NearDuplicate]:
    """Pairs across sets whose runs of words overlap by `threshold` or more, most alike first."""
    keys = [(name, case.case_id) for name, cases in sets.items() for case in cases]
    sides = np.repeat(np.arange(len(sets)), [len(cases) for cases in sets.values()])
    sketch = Sketch.of([case.text for cases in sets.values() for case in cases])
    return [
        NearDuplicate(keys[a][1], keys[a][0], keys[b][1], keys[b][0], index)
        for a, b, index in sketch.pairs(threshold, sides)
    ]
