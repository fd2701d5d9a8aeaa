"""Nearly equal texts among many, by the Jaccard index of their runs of four words.

Runs become 64-bit hashes. Beyond MOST_RUNS only those whose hash ends in zeros are compared, ever
fewer (a modulo sketch: Broder, 1997), so that memory stays bounded and the index is an estimate.

Pairs are found by prefix filtering (Chaudhuri, Ganti and Kaushik, 2006; PPJoin: Xiao, Wang, Lin and
Yu, 2008). All runs have one order, rarest first. Two similar texts share one of the first few runs
of each, its prefix, so only texts that share a run of their prefixes are compared in full. Beyond
MAX_PAIRS texts that share a frequent run are only chained together, and of more candidates than
MAX_CANDIDATES those are compared that may be most alike.
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

# Pairs of texts that share a run of their prefixes, once for each such run: 20 ns each.
MAX_PAIRS = 500_000_000
MAX_CANDIDATES = 4_000_000  # candidates: a microsecond each
CLOSEST = 0.97  # the highest Jaccard index for which shorter prefixes are tried
# In a sample of the runs, one in more texts than this may be a stock phrase: it only chains.
COMMON = 50
# Runs in common from which a sample tells copies from texts that share a stock phrase alone.
SURE = 8
MAX_RETURNED = 100_000  # pairs, and those that connect further texts
BLOCK_SIZE = 2_000_000  # runs or pairs that are in memory at once
# Which bytes belong to words, shape (256,): letters, digits, the underscore, and all bytes of a
# character beyond ASCII, since `compared_text` has left none between words.
WORD_BYTES = np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])
SLACK = 1e-9  # above the rounding error of a share of runs

Array = NDArray[Any]
Matches = tuple[Array, Array]
"""Pairs of texts, as one number each (see `Texts.keys`), and their Jaccard index."""
SimilarTexts = list[tuple[int, int, float]]
"""Numbers of two texts and their Jaccard index, most alike first."""


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
        """The pairs with a Jaccard index from `threshold` up; if they are many, see `_few`.

        `sides`: with one code per text, shape (texts,), only pairs of different codes count.
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
        codes = np.arange(self.texts) if sides is None else np.asarray(sides)
        texts = Texts.of(hashes[is_first], rows[is_first], self.texts, codes)

        is_sample = self.every > 1
        most_holders = COMMON if is_sample else self.texts
        pairable = int(np.searchsorted(texts.holders, most_holders, side="right"))  # runs
        least = SURE if is_sample else 1

        matches: list[Matches] = []
        aim = threshold
        while aim == threshold or aim <= CLOSEST:
            prefixes = texts.prefixes(aim)
            # So many runs, rarest first, keep the pairs of texts with them in their prefixes to
            # MAX_PAIRS.
            holders = np.bincount(prefixes.indices, minlength=prefixes.shape[1])
            shared = np.cumsum(holders * (holders - 1) // 2)
            paired = min(pairable, int(np.searchsorted(shared, MAX_PAIRS, side="right")))
            candidates, is_complete = _every_two(texts, prefixes[:, :paired], aim)
            matches.append(texts.compare(candidates, threshold))
            if aim == threshold:
                rest = prefixes[:, paired:] if is_complete else prefixes
                for a, b in _chained(rest, texts.sides):
                    may_match = texts.bounds(a, b, texts.shared[a]) > threshold - SLACK
                    keys = np.unique(texts.keys(a, b)[may_match])
                    matches.append(texts.compare(keys, threshold, least))
            if paired == pairable:
                break
            # Nearer to 1 prefixes are shorter, so that more runs are within the budget.
            aim = (1 + aim) / 2

        keys, index = _joined(matches)
        keys, places = np.unique(keys, return_index=True)
        return _few(keys, np.round(index[places], 3), self.texts)


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
    def of(cls, hashes: Array, rows: Array, texts: int, sides: Array) -> Texts:
        """Leave out runs of one text or of one side alone: no pair that counts shares them.

        `hashes`, of runs of words, ascend, and `rows`, the text of each, ascend within a hash; no
        text has a hash twice.
        """
        from scipy.sparse import csr_array

        edges = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        holders = np.diff(np.r_[edges, len(hashes)])
        side = sides[rows]
        is_shared = np.minimum.reduceat(side, edges) != np.maximum.reduceat(side, edges)

        size = np.bincount(rows, minlength=texts)
        rows = rows[np.repeat(is_shared, holders)]
        holders = holders[is_shared]
        order = np.argsort(holders, kind="stable")  # equally rare ones: by hash
        column = np.empty(len(order), np.int32)
        column[order] = np.arange(len(order), dtype=np.int32)

        entries = (np.ones(len(rows), np.int32), (rows, np.repeat(column, holders)))
        incidence = csr_array(entries, shape=(texts, len(order)))
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

    def keys(self, a: Array, b: Array) -> Array:
        """One number per pair: the lower of its two times the count of texts, plus the higher."""
        return np.minimum(a, b).astype(np.int64) * len(self.size) + np.maximum(a, b)

    def bounds(self, a: Array, b: Array, most: Array) -> Array:
        """The highest Jaccard index of pairs with at most `most` runs in common; 0 on one side."""
        most = np.minimum(most, np.minimum(self.shared[a], self.shared[b]))
        index = most / (self.size[a] + self.size[b] - most)
        return index * (self.sides[a] != self.sides[b])

    def compare(self, keys: Array, threshold: float, least: int = 1) -> Matches:
        """The pairs that reach the threshold, with `least` runs in common."""
        a, b = np.divmod(keys, len(self.size))
        in_common = np.zeros(len(keys), np.int64)
        for part in _portions(self.shared[a] + self.shared[b]):
            both = self.incidence[a[part]].multiply(self.incidence[b[part]])
            in_common[part] = both.sum(axis=1)

        index = in_common / (self.size[a] + self.size[b] - in_common)
        is_match = (index >= threshold) & (in_common >= least)
        return keys[is_match], index[is_match]


def _every_two(texts: Texts, prefixes: csr_array, threshold: float) -> tuple[Array, bool]:
    """Keys of every two texts that share a run of their prefixes and may reach the threshold; those
    that may be most alike where there are more than MAX_CANDIDATES, and whether these are all.

    Of one of the two the prefix ends earlier in the order of runs. It shares with the other text
    what the prefixes have in common, and at most what comes after its own.
    """
    lengths = np.diff(prefixes.indptr)
    later = texts.shared - lengths
    end = np.full(len(lengths), -1)
    end[lengths > 0] = prefixes.indices[prefixes.indptr[1:][lengths > 0] - 1]
    by_run = prefixes.T.tocsr()

    above = threshold - SLACK
    found: list[Matches] = []
    is_complete = True
    portions = _portions(prefixes @ np.diff(by_run.indptr).astype(np.int64))
    for part in portions:
        # With the texts of this part and later ones only: earlier parts have met the others.
        met = (prefixes[part] @ by_run[:, part.start :]).tocoo()
        is_once = met.row < met.col
        a = met.row[is_once] + part.start
        b = met.col[is_once] + part.start
        most = met.data[is_once] + np.where(end[a] <= end[b], later[a], later[b])
        bounds = texts.bounds(a, b, most)
        is_above = bounds > above
        found.append((texts.keys(a, b)[is_above], bounds[is_above]))
        count = sum(len(keys) for keys, _ in found)
        if count > 2 * MAX_CANDIDATES or (count > MAX_CANDIDATES and part is portions[-1]):
            keys, bounds = _joined(found)
            best = np.argpartition(-bounds, MAX_CANDIDATES)[:MAX_CANDIDATES]
            found = [(keys[best], bounds[best])]
            above = float(bounds[best].min())
            is_complete = False

    return _joined(found)[0], is_complete


def _chained(prefixes: csr_array, sides: Array) -> Iterator[tuple[Array, Array]]:
    """Numbers of two texts: of the texts that have a run in their prefixes each with the one before
    it and with the first on another side. The cost grows with their number, not its square.
    """
    by_run = prefixes.tocsc()
    lengths = np.diff(by_run.indptr)
    ends = by_run.indptr[1:][lengths > 0]
    lengths = lengths[lengths > 0]
    for part in _portions(lengths):
        part_lengths = lengths[part]
        texts = by_run.indices[ends[part][0] - part_lengths[0] : ends[part][-1]]
        begin = np.cumsum(part_lengths) - part_lengths
        first = np.repeat(begin, part_lengths)
        place = np.arange(len(texts))

        is_same_run = first[1:] == first[:-1]
        yield texts[:-1][is_same_run], texts[1:][is_same_run]
        is_with_first = sides[texts] == sides[texts[first]]
        opposite_places = np.where(is_with_first, len(texts), place)
        opposite = np.repeat(np.minimum.reduceat(opposite_places, begin), part_lengths)
        has_opposite = opposite < len(texts)
        partner = np.where(is_with_first, opposite, first)
        yield texts[has_opposite], texts[partner[has_opposite]]


def _few(keys: Array, index: Array, texts: int) -> SimilarTexts:
    """The most similar pairs, MAX_RETURNED of them, and those of a spanning forest of all pairs: texts
    that pairs connect stay connected. `keys` ascend.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    order = np.argsort(-index, kind="stable")
    keys = keys[order]
    index = index[order]
    if len(keys) > MAX_RETURNED:
        # The lightest forest has the most similar pairs; a weight of 0 would be no edge to SciPy.
        entries = (2 - index, np.divmod(keys, texts))
        forest = minimum_spanning_tree(csr_array(entries, shape=(texts, texts))).tocoo()
        is_kept = np.isin(keys, forest.row.astype(np.int64) * texts + forest.col)
        is_kept[:MAX_RETURNED] = True
        keys = keys[is_kept]
        index = index[is_kept]

    a, b = np.divmod(keys, texts)
    return list(zip(a.tolist(), b.tolist(), index.tolist(), strict=True))


def _joined(parts: list[Matches]) -> Matches:
    keys = [np.zeros(0, np.int64), *(part[0] for part in parts)]
    index = [np.zeros(0), *(part[1] for part in parts)]
    return np.concatenate(keys), np.concatenate(index)


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
