"""Which of many texts are nearly equal, from the hashes of their runs of words.

An exact join by prefix filtering (Chaudhuri, Ganti and Kaushik, 2006: "A primitive operator for
similarity joins in data cleaning"; Xiao, Wang, Lin and Yu, 2008: PPJoin). All runs have one order,
rarest first. Two texts that are similar share one of the first few runs of each, its prefix, so
only texts that share a run of their prefixes are candidates; these are compared in full.

Time and memory are bounded. Texts beyond MAX_PAIRS that share a frequent run are only chained together,
and of more candidates than MAX_CANDIDATES those are compared that may be most alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

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
SLACK = 1e-9  # above the rounding error of a share of runs

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Indices = NDArray[np.float64]
"""Jaccard indices."""
Sides = NDArray[Any]
Pairs = Iterator[tuple[Rows, Rows]]
"""Numbers of two texts, as two arrays of equal length."""
Matches = tuple[Rows, Indices]
"""Pairs of texts, as one number each (see `Texts.keys`), and their Jaccard index."""
SimilarTexts = list[tuple[int, int, float]]
"""Numbers of two texts and their Jaccard index, most alike first."""


@dataclass(frozen=True)
class Runs:
    """The hashed runs of words of `texts` texts.

    `hashes` ascend, and `rows`, the text of each, ascend within a hash; no text has a hash twice.
    `is_sample`: they are not all runs of the texts.
    """

    hashes: Hashes
    rows: Rows
    texts: int
    is_sample: bool


@dataclass(frozen=True)
class Texts:
    """The texts to compare.

    `incidence`: 1 where a text has a run that another one may share, shape (texts, runs); the runs
    stand rarest first, also within a row. `holders`: the texts of each run. `size`, `shared`: all
    runs of each text, and those in `incidence`, shape (texts,) each.
    """

    incidence: csr_array
    holders: Rows
    size: Rows
    shared: Rows
    sides: Sides | None

    @classmethod
    def of(cls, runs: Runs, sides: Sides | None) -> Texts:
        """Leave out runs of one text or of one side alone: no pair that counts shares them."""
        from scipy.sparse import csr_array

        edges = np.flatnonzero(np.r_[True, runs.hashes[1:] != runs.hashes[:-1]])
        holders = np.diff(np.r_[edges, len(runs.hashes)])
        is_shared = holders >= 2
        if sides is not None:
            side = sides[runs.rows]
            is_shared &= np.minimum.reduceat(side, edges) != np.maximum.reduceat(side, edges)

        rows = runs.rows[np.repeat(is_shared, holders)]
        holders = holders[is_shared]
        order = np.argsort(holders, kind="stable")  # equally rare ones: by hash
        column = np.empty(len(order), np.int32)
        column[order] = np.arange(len(order), dtype=np.int32)

        entries = (np.ones(len(rows), np.int32), (rows, np.repeat(column, holders)))
        incidence = csr_array(entries, shape=(runs.texts, len(order)))
        incidence.sort_indices()
        size = np.bincount(runs.rows, minlength=runs.texts)

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

    def keys(self, a: Rows, b: Rows) -> Rows:
        """One number per pair: the lower of its two times the count of texts, plus the higher."""
        return np.minimum(a, b).astype(np.int64) * len(self.size) + np.maximum(a, b)

    def bounds(self, a: Rows, b: Rows, most: Rows) -> Indices:
        """The highest Jaccard index of pairs with at most `most` runs in common; 0 on one side."""
        most = np.minimum(most, np.minimum(self.shared[a], self.shared[b]))
        index = most / (self.size[a] + self.size[b] - most)
        return index if self.sides is None else index * (self.sides[a] != self.sides[b])

    def compare(self, keys: Rows, threshold: float, least: int = 1) -> Matches:
        """The pairs that reach the threshold, with `least` runs in common."""
        a, b = np.divmod(keys, len(self.size))
        in_common = np.zeros(len(keys), np.int64)
        for part in _portions(self.shared[a] + self.shared[b]):
            both = self.incidence[a[part]].multiply(self.incidence[b[part]])
            in_common[part] = both.sum(axis=1)

        index = in_common / (self.size[a] + self.size[b] - in_common)
        is_match = (index >= threshold) & (in_common >= least)
        return keys[is_match], index[is_match]


@dataclass
class Candidates:
    """Pairs of texts, each added once, and bounds of their Jaccard index: all that are higher than
    `above`, a bound that rises where these are more than MAX_CANDIDATES.
    """

    above: float
    is_complete: bool = True
    parts: list[Matches] = field(default_factory=list)

    def add(self, keys: Rows, bounds: Indices) -> None:
        """Add those that may be alike enough."""
        is_above = bounds > self.above
        self.parts.append((keys[is_above], bounds[is_above]))
        if sum(len(part[0]) for part in self.parts) > 2 * MAX_CANDIDATES:
            self.keys()

    def keys(self) -> Rows:
        """Those that may be most alike, at most MAX_CANDIDATES; others are dropped."""
        keys, bounds = _joined(self.parts)
        if len(keys) > MAX_CANDIDATES:
            best = np.argpartition(-bounds, MAX_CANDIDATES)[:MAX_CANDIDATES]
            keys = keys[best]
            bounds = bounds[best]
            self.above = float(bounds.min())
            self.is_complete = False

        self.parts = [(keys, bounds)]
        return keys


def find_matches(runs: Runs, threshold: float, sides: Sides | None) -> SimilarTexts:
    """Pairs of texts with a Jaccard index of `threshold` or more; if they are many, see `_few`.

    With `sides`, one code per text, only pairs of different codes count.
    """
    texts = Texts.of(runs, sides)
    most_holders = COMMON if runs.is_sample else runs.texts
    pairable = int(np.searchsorted(texts.holders, most_holders, side="right"))  # runs
    least = SURE if runs.is_sample else 1

    matches: list[Matches] = []
    for aim in _aims(threshold):
        prefixes = texts.prefixes(aim)
        paired = min(pairable, _within_budget(prefixes))
        candidates = _every_two(texts, prefixes[:, :paired], aim)
        matches.append(texts.compare(candidates.keys(), threshold))
        if aim == threshold:
            rest = prefixes[:, paired:] if candidates.is_complete else prefixes
            matches += _chained_matches(texts, rest, threshold, least)
        if paired == pairable:
            break

    keys, index = _joined(matches)
    keys, places = np.unique(keys, return_index=True)
    return _few(keys, np.round(index[places], 3), runs.texts)


def _aims(threshold: float) -> Iterator[float]:
    """The threshold, then indices ever nearer to 1: their prefixes are shorter, so that more runs
    are within the budget.
    """
    yield threshold
    while (threshold := (1 + threshold) / 2) <= CLOSEST:
        yield threshold


def _within_budget(prefixes: csr_array) -> int:
    """How many runs, rarest first, keep the pairs of texts with them in their prefixes to MAX_PAIRS."""
    holders = np.bincount(prefixes.indices, minlength=prefixes.shape[1])
    pairs = np.cumsum(holders * (holders - 1) // 2)
    return int(np.searchsorted(pairs, MAX_PAIRS, side="right"))


def _every_two(texts: Texts, prefixes: csr_array, threshold: float) -> Candidates:
    """Every two texts that share a run of their prefixes and may reach the threshold.

    Of one of the two the prefix ends earlier in the order of runs. It shares with the other text
    what the prefixes have in common, and at most what comes after its own.
    """
    lengths = np.diff(prefixes.indptr)
    later = texts.shared - lengths
    end = np.full(len(lengths), -1)
    end[lengths > 0] = prefixes.indices[prefixes.indptr[1:][lengths > 0] - 1]
    by_run = prefixes.T.tocsr()

    candidates = Candidates(threshold - SLACK)
    for part in _portions(prefixes @ np.diff(by_run.indptr).astype(np.int64)):
        # With the texts of this part and later ones only: earlier parts have met the others.
        met = (prefixes[part] @ by_run[:, part.start :]).tocoo()
        is_once = met.row < met.col
        a = met.row[is_once] + part.start
        b = met.col[is_once] + part.start
        most = met.data[is_once] + np.where(end[a] <= end[b], later[a], later[b])
        candidates.add(texts.keys(a, b), texts.bounds(a, b, most))

    return candidates


def _chained_matches(
    texts: Texts, prefixes: csr_array, threshold: float, least: int
) -> Iterator[Matches]:
    """The pairs of `_chained` that reach the threshold, with `least` runs in common."""
    for a, b in _chained(prefixes, texts.sides):
        may_match = texts.bounds(a, b, texts.shared[a]) > threshold - SLACK
        keys = np.unique(texts.keys(a, b)[may_match])
        yield texts.compare(keys, threshold, least)


def _chained(prefixes: csr_array, sides: Sides | None) -> Pairs:
    """Of the texts that have a run in their prefixes each with the one before it and with the
    first, on another side if any.

    So a sentence that many texts share chains them together, at a cost that grows with their number
    and not its square.
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
        if sides is None:
            yield texts[first[place > first]], texts[place > first]
            continue

        is_with_first = sides[texts] == sides[texts[first]]
        opposite_places = np.where(is_with_first, len(texts), place)
        opposite = np.repeat(np.minimum.reduceat(opposite_places, begin), part_lengths)
        has_opposite = opposite < len(texts)
        partner = np.where(is_with_first, opposite, first)
        yield texts[has_opposite], texts[partner[has_opposite]]


def _few(keys: Rows, index: Indices, texts: int) -> SimilarTexts:
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


def _portions(work: Rows) -> list[slice]:
    """Slices of entries with about BLOCK_SIZE runs or pairs. `work`: how many each entry has."""
    marks = np.arange(BLOCK_SIZE, int(work.sum()) + BLOCK_SIZE, BLOCK_SIZE)
    ends = np.searchsorted(np.cumsum(work), marks, side="left") + 1
    edges = sorted({0, *np.minimum(ends, len(work)).tolist()})
    return [slice(low, high) for low, high in itertools.pairwise(edges)]
