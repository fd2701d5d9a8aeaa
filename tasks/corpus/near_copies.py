"""Nearly equal texts among many, by the Jaccard index of their runs of four words.

Not all pairs of texts are compared (see `near_candidates`). Runs of words become 64-bit hashes,
computed for a batch of texts at once. Up to MOST_RUNS runs every one is compared; beyond that only
those whose hash ends in zeros, ever fewer (Broder, 1997: a modulo sketch), so that memory stays
bounded and the index is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.corpus.case import Case
from tasks.corpus.compared_forms import compared_text
from tasks.corpus.near_candidates import Hashes, Rows, Runs, SimilarTexts, find_matches

RUN = 4  # words
BATCH = 4096  # texts hashed at once
MOST_RUNS = 12_000_000
PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64


@dataclass
class Sketch:
    """The hashed runs of words of the texts added so far. `every`: one run in so many is kept."""

    texts: int = 0
    every: int = 1
    runs: int = 0
    parts: list[tuple[Hashes, Rows]] = field(default_factory=list)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Sketch:
        """A sketch of all these texts."""
        sketch = cls()
        for start in range(0, len(texts), BATCH):
            sketch.add(texts[start : start + BATCH])
        return sketch

    def add(self, texts: Sequence[str]) -> None:
        """Add a batch of texts; their numbers go on from those before."""
        hashes, rows = _hashed_runs(texts)
        self._keep(hashes, rows + self.texts)
        self.texts += len(texts)
        while self.runs > MOST_RUNS:
            self._thin_out()

    def _thin_out(self) -> None:
        parts = self.parts
        self.parts = []
        self.runs = 0
        self.every *= 2
        for part in parts:
            self._keep(*part)

    def _keep(self, hashes: Hashes, rows: Rows) -> None:
        is_kept = (hashes & np.uint64(self.every - 1)) == 0
        self.parts.append((hashes[is_kept], rows[is_kept]))
        self.runs += int(is_kept.sum())

    def pairs(self, threshold: float, sides: ArrayLike | None = None) -> SimilarTexts:
        """Numbers of two texts and their Jaccard index, from `threshold` up, most alike first.

        All pairs, as far as their number is bounded: see `near_candidates`. `sides`: with one code
        per text, shape (texts,), only pairs of different codes count.
        """
        if not self.runs:
            return []

        hashes = np.concatenate([part[0] for part in self.parts])
        rows = np.concatenate([part[1] for part in self.parts]).astype(np.int64)
        # Rows were added in order, so a stable sort leaves them ascending within a hash.
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        rows = rows[order]

        is_first = np.ones(len(hashes), dtype=bool)
        is_first[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        runs = Runs(hashes[is_first], rows[is_first], self.texts, is_sample=self.every > 1)
        return find_matches(runs, threshold, None if sides is None else np.asarray(sides))


def _hashed_runs(texts: Sequence[str]) -> tuple[Hashes, Rows]:
    """The hash of every run of RUN words with the number of its text, in order of the texts.

    A shorter text is one run as a whole.
    """
    words, rows = _hashed_words(texts)
    hashes = np.zeros(0, np.uint64)
    owners = np.zeros(0, np.int64)
    if len(words) >= RUN:
        last = len(words) - RUN + 1
        mixed = np.zeros(last, np.uint64)
        for offset in range(RUN):
            mixed = mixed * np.uint64(PRIME) + words[offset : offset + last]

        # A run must not reach from one text into the next.
        is_within_text = rows[:last] == rows[RUN - 1 :]
        hashes = _mix(mixed[is_within_text])
        owners = rows[:last][is_within_text]

    counts = np.bincount(rows, minlength=len(texts))
    short = np.flatnonzero((counts > 0) & (counts < RUN))
    if not len(short):
        return hashes, owners

    begin = np.searchsorted(rows, short)
    ends = begin + counts[short]
    whole_texts = [
        _mix(words[start:end].sum(keepdims=True)) for start, end in zip(begin, ends, strict=True)
    ]
    hashes = np.r_[hashes, np.concatenate(whole_texts)]
    owners = np.r_[owners, short]
    order = np.argsort(owners, kind="stable")

    return hashes[order], owners[order]


def _hashed_words(texts: Sequence[str]) -> tuple[Hashes, Rows]:
    """The hash of every word of a batch of texts, in order, with the number of its text.

    A word's hash is that of the polynomial of its bytes: a difference of two prefix sums, moved to
    the power 0.
    """
    encoded = [compared_text(text).encode("utf-8", "surrogatepass") for text in texts]
    content = np.frombuffer(b"\n".join(encoded) + b"\n", dtype=np.uint8)
    # The content ends with a line break, so each word that starts also ends.
    is_letter = np.r_[False, _letters()[content]]
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1])
    starts = edges[::2]
    ends = edges[1::2]

    powers, inverse = _powers(1 << len(content).bit_length())
    terms = (content.astype(np.uint64) + 1) * powers[: len(content)]
    sums = np.r_[np.zeros(1, np.uint64), np.cumsum(terms)]
    words = _mix((sums[ends] - sums[starts]) * inverse[starts])

    text_ends = np.cumsum([len(part) + 1 for part in encoded])
    rows = np.searchsorted(text_ends, starts, side="right").astype(np.int64)
    return words, rows


def _mix(values: Hashes) -> Hashes:
    """Spread differences over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _letters() -> NDArray[np.bool_]:
    """Which bytes belong to words, shape (256,).

    Letters, digits, the underscore, and all bytes of a character beyond ASCII: `compared_text` has
    left none between words.
    """
    return np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])


@cache
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """PRIME^0, PRIME^1, ... and their inverses modulo 2^64."""
    return _powers_of(PRIME, length), _powers_of(pow(PRIME, -1, 1 << 64), length)


def _powers_of(base: int, length: int) -> Hashes:
    factors = np.full(length, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


@dataclass(frozen=True)
class NearDuplicate:
    """Two cases of different sets and the Jaccard index of their runs of words, 0 to 1."""

    case_a: str
    set_a: str
    case_b: str
    set_b: str
    similarity: float


def near_duplicates(
    sets: Mapping[str, Sequence[Case]], threshold: float = 0.5
) -> list[NearDuplicate]:
    """Pairs across sets whose runs of words overlap by `threshold` or more, most alike first."""
    members = [(name, case) for name, cases in sets.items() for case in cases]
    sides = np.repeat(np.arange(len(sets)), [len(cases) for cases in sets.values()])
    sketch = Sketch.of([case.text for _, case in members])

    duplicates = []
    for a, b, index in sketch.pairs(threshold, sides):
        set_a, case_a = members[a]
        set_b, case_b = members[b]
        duplicates.append(NearDuplicate(case_a.case_id, set_a, case_b.case_id, set_b, index))

    return duplicates
