"""Nearly equal texts among many, by the Jaccard index of their runs of four words.

Runs become 64-bit hashes. Beyond MOST_RUNS only those whose hash ends in zeros are compared, ever
fewer (a modulo sketch: Broder, 1997), so that memory stays bounded and the index is an estimate.

Pairs are found by prefix filtering (Chaudhuri, Ganti and Kaushik, 2006; PPJoin: Xiao, Wang, Lin and
Yu, 2008). All runs have one order, rarest first. Two similar texts share one of the first few runs
of each, its prefix, so only texts that share a run of their prefixes are compared in full. Where
these are more than MAX_PAIRS only the closest pairs are looked for, whose prefixes are shorter, and
texts that share a run are chained: each is compared with the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.corpus.case import Case, compared_text

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RUN = 4  # words
BATCH = 4096  # texts hashed at once
MOST_RUNS = 12_000_000
PRIME = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64

MAX_PAIRS = 100_000_000  # pairs of texts that share a run of their prefixes, once for each run
MAX_MATCHES = 2_000_000  # similar pairs, of which the most alike are kept
CLOSEST = 0.97  # the highest Jaccard index for which shorter prefixes are tried
# In a sample of the runs, one in more texts than this may be a stock phrase: it only chains.
COMMON = 50
# Runs in common from which a sample tells copies from texts that share a stock phrase alone.
SURE = 8
BLOCK_SIZE = 2_000_000  # runs or pairs that are in memory at once
# Which bytes belong to words, shape (256,): letters, digits, the underscore, and all bytes of a
# character beyond ASCII, since `compared_text` has left none between words.
WORD_BYTES = np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])
SLACK = 1e-9  # above the rounding error of a share of runs

Array = NDArray[Any]
Matches = tuple[Array, Array, Array]
"""Numbers of two texts, the lower first, and their Jaccard index."""
SimilarTexts = list[tuple[int, int, float]]
"""The same for each pair, most alike first."""


def near_duplicates(
    sets: Mapping[str, Sequence[Case]], threshold: float
) -> list[tuple[str, Case, str, Case, float]]:
    """Pairs across sets with a Jaccard index from `threshold` up, most alike first: the set and the
    case of each, and the index, 0 to 1.
    """
    members = [(name, case) for name, cases in sets.items() for case in cases]
    sides = np.repeat(np.arange(len(sets)), [len(cases) for cases in sets.values()])
    pairs = Sketch.of([case.text for _, case in members]).pairs(threshold, sides)
    return [(*members[a], *members[b], index) for a, b, index in pairs]


@dataclass
class Sketch:
    """The hashed runs of words of the texts added so far. `every`: one run in so many is kept."""

    texts: int = 0
    every: int = 1
    runs: int = 0
    parts: list[tuple[Array, Array]] = field(default_factory=list)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Sketch:
        """A sketch of all these texts."""
        sketch = cls()
        for start in range(0, len(texts), BATCH):
            sketch.add(texts[start : start + BATCH])
        return sketch

    def add(self, texts: Sequence[str]) -> None:
        """Add a batch of texts, numbered after those before."""
        hashes, rows = _hashed_runs(texts)
        self._keep(hashes, rows + self.texts)
        self.texts += len(texts)
        while self.runs > MOST_RUNS:
            parts = self.parts
            self.parts = []
            self.runs = 0
            self.every *= 2
            for part in parts:
                self._keep(*part)

    def _keep(self, hashes: Array, rows: Array) -> None:
        is_kept = (hashes & np.uint64(self.every - 1)) == 0
        self.parts.append((hashes[is_kept], rows[is_kept]))
        self.runs += int(is_kept.sum())

    def pairs(self, threshold: float, sides: ArrayLike | None = None) -> SimilarTexts:
        """The pairs with a Jaccard index from `threshold` up; all of them up to MAX_PAIRS.

        `sides`: with one code per text, shape (texts,), only pairs of different codes count.
        """
        if not self.runs:
            return []

        codes = np.arange(self.texts) if sides is None else np.asarray(sides)
        texts = Texts.of(self.parts, codes)
        is_sample = self.every > 1
        pairable = slice(None)
        if is_sample:
            pairable = slice(int(np.searchsorted(texts.holders, COMMON, side="right")))

        aim = threshold
        while (prefixes := texts.prefixes(aim)[:, pairable]).nnz:
            holders = np.bincount(prefixes.indices)
            if (holders * (holders - 1) // 2).sum() <= MAX_PAIRS:
                break
            aim = (1 + aim) / 2
            if aim > CLOSEST:
                prefixes = prefixes[:, :0]
                break

        matches = [_every_two(texts, prefixes, threshold)]
        if aim > threshold or is_sample:
            chains = _chained(texts.prefixes(threshold))
            least = SURE if is_sample else 1
            matches += [texts.compare(a, b, threshold, least) for a, b in chains]

        a, b, index = (np.concatenate(parts) for parts in zip(*matches, strict=True))
        _, first = np.unique(np.c_[a, b], axis=0, return_index=True)
        a, b, index = a[first], b[first], np.round(index[first], 3)
        order = np.argsort(-index, kind="stable")
        return list(zip(a[order].tolist(), b[order].tolist(), index[order].tolist(), strict=True))


@dataclass(frozen=True)
class Texts:
    """The texts to compare.

    `incidence`: 1 where a text has a run that another one may share, shape (texts, runs); the runs
    stand rarest first, also within a row. `holders`: the texts of each run. `size`, `shared`: all
    runs of each text, and those in `incidence`, shape (texts,) each.
    """

    incidence: csr_array
    holders: Array
    size: Array
    shared: Array
    sides: Array

    @classmethod
    def of(cls, parts: list[tuple[Array, Array]], sides: Array) -> Texts:
        """Leave out runs of one text or of one side alone: no pair that counts shares them.

        `parts`: hashes of runs and the text of each, in the order of the texts.
        """
        from scipy.sparse import csr_array

        hashes, rows = (np.concatenate(of) for of in zip(*parts, strict=True))
        # A stable sort leaves the texts ascending within a hash.
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        rows = rows[order].astype(np.int64)
        is_first = np.r_[True, (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])]
        hashes = hashes[is_first]
        rows = rows[is_first]

        edges = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        holders = np.diff(np.r_[edges, len(hashes)])
        side = sides[rows]
        is_shared = np.minimum.reduceat(side, edges) != np.maximum.reduceat(side, edges)

        size = np.bincount(rows, minlength=len(sides))
        rows = rows[np.repeat(is_shared, holders)]
        holders = holders[is_shared]
        order = np.argsort(holders, kind="stable")  # equally rare ones: by hash
        column = np.empty(len(order), np.int32)
        column[order] = np.arange(len(order), dtype=np.int32)

        entries = (np.ones(len(rows), np.int32), (rows, np.repeat(column, holders)))
        incidence = csr_array(entries, shape=(len(sides), len(order)))
        incidence.sort_indices()
        return cls(incidence, holders[order], size, np.diff(incidence.indptr), sides)

    def prefixes(self, threshold: float) -> csr_array:
        """Of each text with n runs the first n - ceil(threshold * n) + 1, as in `incidence`.

        Those that are left out there are the rarest ones, so they are among the first.
        """
        from scipy.sparse import csr_array

        lengths = self.shared - np.ceil(threshold * self.size - SLACK).astype(np.int64) + 1
        begin = self.incidence.indptr[:-1]
        place = np.arange(self.incidence.nnz) - np.repeat(begin, self.shared)
        is_first = place < np.repeat(lengths, self.shared)
        edges = np.r_[0, np.cumsum(np.clip(lengths, 0, self.shared))]
        entries = (self.incidence.data[is_first], self.incidence.indices[is_first], edges)

        return csr_array(entries, shape=self.incidence.shape)

    def compare(
        self, a: Array, b: Array, threshold: float, least: int = 1, most: Array | None = None
    ) -> Matches:
        """The pairs on two sides that reach the threshold, with `least` runs in common. `most`: how
        many each can have in common, where that is known.
        """
        bound = np.minimum(self.shared[a], self.shared[b])
        if most is not None:
            bound = np.minimum(bound, most)
        highest = bound / (self.size[a] + self.size[b] - bound)
        may_match = (highest > threshold - SLACK) & (self.sides[a] != self.sides[b])
        a = a[may_match].astype(np.int64)
        b = b[may_match].astype(np.int64)

        in_common = np.zeros(len(a), np.int64)
        for part in _portions(self.shared[a] + self.shared[b]):
            both = self.incidence[a[part]].multiply(self.incidence[b[part]])
            in_common[part] = both.sum(axis=1)
        index = in_common / (self.size[a] + self.size[b] - in_common)
        is_match = (index >= threshold) & (in_common >= least)
        return a[is_match], b[is_match], index[is_match]


def _every_two(texts: Texts, prefixes: csr_array, threshold: float) -> Matches:
    """The similar pairs that share a run of these `prefixes`, at most MAX_MATCHES.

    Of one of the two the prefix ends earlier in the order of runs. It shares with the other text
    what the prefixes have in common, and at most what comes after its own.
    """
    lengths = np.diff(prefixes.indptr)
    later = texts.shared - lengths
    end = np.full(len(lengths), -1)
    end[lengths > 0] = prefixes.indices[prefixes.indptr[1:][lengths > 0] - 1]
    by_run = prefixes.T.tocsr()

    none = np.zeros(0, np.int64)
    matches: Matches = (none, none, np.zeros(0))
    for part in _portions(prefixes @ np.diff(by_run.indptr).astype(np.int64)):
        # With the texts of this part and later ones only: earlier parts have met the others.
        met = (prefixes[part] @ by_run[:, part.start :]).tocoo()
        is_once = met.row < met.col
        a = met.row[is_once] + part.start
        b = met.col[is_once] + part.start
        most = met.data[is_once] + np.where(end[a] <= end[b], later[a], later[b])
        more = texts.compare(a, b, threshold, most=most)
        a, b, index = (np.r_[of, further] for of, further in zip(matches, more, strict=True))
        best = np.argsort(-index, kind="stable")[:MAX_MATCHES]
        matches = (a[best], b[best], index[best])

    return matches


def _chained(prefixes: csr_array) -> Iterator[tuple[Array, Array]]:
    """Each text that has a run in its prefix, and the next one. The cost grows with their number."""
    by_run = prefixes.tocsc()
    for part in _portions(np.diff(by_run.indptr)):
        runs = by_run[:, part].tocoo()
        is_same_run = runs.col[1:] == runs.col[:-1]
        pairs = np.c_[runs.row[:-1], runs.row[1:]][is_same_run]
        a, b = np.unique(pairs, axis=0).T
        yield a, b


def _portions(work: Array) -> list[slice]:
    """Slices of entries with about BLOCK_SIZE runs or pairs. `work`: how many each entry has."""
    marks = np.arange(BLOCK_SIZE, int(work.sum()) + BLOCK_SIZE, BLOCK_SIZE)
    ends = np.searchsorted(np.cumsum(work), marks, side="left") + 1
    edges = sorted({0, *np.minimum(ends, len(work)).tolist()})
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def _hashed_runs(texts: Sequence[str]) -> tuple[Array, Array]:
    """The hash of every run of RUN words with the number of its text, in order of the texts. A shorter
    text is one run as a whole.
    """
    words, rows = _hashed_words(texts)
    # Behind the last word, words of no text: each run that reaches into them is left out.
    mixed = np.zeros(len(words), np.uint64)
    padded = np.r_[words, np.zeros(RUN - 1, np.uint64)]
    for offset in range(RUN):
        mixed = mixed * np.uint64(PRIME) + padded[offset : offset + len(words)]

    # A run must not reach from one text into the next.
    last = np.r_[rows, np.full(RUN - 1, -1)][RUN - 1 :]
    is_within_text = rows == last
    hashes = _mix(mixed[is_within_text])
    owners = rows[is_within_text]

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


def _hashed_words(texts: Sequence[str]) -> tuple[Array, Array]:
    """The hash of every word of a batch of texts, in order, with the number of its text: of the
    polynomial of its bytes, as a difference of two prefix sums, moved to the power 0.
    """
    encoded = [compared_text(text).encode("utf-8", "surrogatepass") for text in texts]
    content = np.frombuffer(b"\n".join(encoded) + b"\n", dtype=np.uint8)
    # The content ends with a line break, so each word that starts also ends.
    is_letter = np.r_[False, WORD_BYTES[content]]
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1])
    starts = edges[::2]
    ends = edges[1::2]

    length = 1 << len(content).bit_length()
    powers = _powers(PRIME, length)
    inverse = _powers(pow(PRIME, -1, 1 << 64), length)
    terms = (content.astype(np.uint64) + 1) * powers[: len(content)]
    sums = np.r_[np.zeros(1, np.uint64), np.cumsum(terms)]
    words = _mix((sums[ends] - sums[starts]) * inverse[starts])

    text_ends = np.cumsum([len(part) + 1 for part in encoded])
    rows = np.searchsorted(text_ends, starts, side="right").astype(np.int64)
    return words, rows


def _mix(values: Array) -> Array:
    """Spread differences over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _powers(base: int, length: int) -> Array:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(length, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)
