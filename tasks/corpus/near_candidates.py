"""Which of many texts may be nearly equal, from the hashes of their runs of words, and how alike
those really are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A run of words in more texts than this may be a stock phrase: not every two of its holders are
# compared.
COMMON = 50
# Candidate pairs of runs with few holders; with more, the limit COMMON is lowered until they fit.
PAIRS = 4_000_000
COMPARED = 100_000  # candidates that are compared in full: those with most in common
# Runs in common from which a sample of the runs tells copies from texts that share a stock phrase
# alone.
SURE = 8
TOGETHER = 2_000_000  # runs of candidates that are compared at once

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Sides = NDArray[Any]
Pairs = Iterator[tuple[Rows, Rows]]
"""Numbers of two texts, as two arrays of equal length."""
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
    """What is known of each text before any two are compared.

    `size`: its runs; `shared`: its runs that another text has too. Shape (number,) each.
    """

    number: int
    size: Rows
    shared: Rows
    threshold: float
    sides: Sides | None

    def may_match(self, a: Rows, b: Rows, most: Rows) -> Mask:
        """Which pairs reach the threshold if they have `most` runs in common."""
        return most >= self.threshold * (self.size[a] + self.size[b] - most)

    def count(self, pairs: Iterable[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
        """Each pair that may match, as one number, and how often it came."""
        keys = [np.zeros(0, np.int64)]
        for first, second in pairs:
            a = np.minimum(first, second)
            b = np.maximum(first, second)
            is_candidate = self.may_match(a, b, np.minimum(self.shared[a], self.shared[b]))
            if self.sides is not None:
                is_candidate &= self.sides[a] != self.sides[b]
            keys.append(a[is_candidate] * self.number + b[is_candidate])

        return np.unique(np.concatenate(keys), return_counts=True)


def find_matches(runs: Runs, threshold: float, sides: Sides | None) -> SimilarTexts:
    """Pairs of texts with a Jaccard index of `threshold` or more; at most COMPARED.

    With `sides`, one code per text, only pairs of different codes count.
    """
    edges = np.flatnonzero(np.r_[True, runs.hashes[1:] != runs.hashes[:-1]])
    holders = np.diff(np.r_[edges, len(runs.hashes)])  # texts per hash
    limit = _stock_limit(holders)
    is_rare = (holders >= 2) & (holders <= limit)
    in_rare = np.repeat(is_rare, holders)
    in_stock = np.repeat(holders > limit, holders)

    stock_runs = np.bincount(runs.rows[in_stock], minlength=runs.texts)
    shared = stock_runs + np.bincount(runs.rows[in_rare], minlength=runs.texts)
    size = np.bincount(runs.rows, minlength=runs.texts)
    texts = Texts(runs.texts, size, shared, threshold, sides)

    rare_pairs, rare_counts = texts.count(_every_two(runs.rows[in_rare], holders[is_rare]))
    stock_pairs, stock_counts = _stock_pairs(runs, texts, holders, in_stock, stock_runs)
    # NumPy sorts when it counts, which is faster here than without.
    pairs, _ = np.unique(np.concatenate([rare_pairs, stock_pairs]), return_counts=True)
    a = pairs // runs.texts
    b = pairs % runs.texts
    in_common = _spread(rare_pairs, rare_counts, pairs)

    # As if all stock phrases of one text were in the other.
    is_candidate = texts.may_match(a, b, in_common + np.minimum(stock_runs[a], stock_runs[b]))
    in_common = (in_common + _spread(stock_pairs, stock_counts, pairs))[is_candidate]
    a = a[is_candidate]
    b = b[is_candidate]

    estimate = in_common / (size[a] + size[b] - in_common)
    nearest = np.argsort(-estimate, kind="stable")[:COMPARED]
    return _compare(runs, a[nearest], b[nearest], threshold)


def _stock_pairs(
    runs: Runs, texts: Texts, holders: Rows, in_stock: Mask, stock_runs: Rows
) -> tuple[Rows, Rows]:
    """Pairs of texts that share stock phrases, and how many; see `_chained`.

    Most texts with a stock phrase share too little else to be a copy, or too little for a sample to
    say so.
    """
    fits = (texts.shared >= texts.threshold * texts.size) & (
        stock_runs >= (SURE if runs.is_sample else 1)
    )
    is_kept = fits[runs.rows] & in_stock
    kept_holders = np.bincount(np.repeat(np.arange(len(holders)), holders)[is_kept])
    chained = _chained(runs.rows[is_kept], kept_holders[kept_holders >= 1], texts.sides)
    pairs, counts = texts.count(chained)

    # Two texts that have several stock phrases and meet in one alone meet by chance.
    fewer = np.minimum(stock_runs[pairs // runs.texts], stock_runs[pairs % runs.texts])
    is_met = counts >= np.minimum(2, fewer)
    return pairs[is_met], counts[is_met]


def _stock_limit(holders: Rows) -> int:
    """The longest list of holders whose pairs, with those of shorter lists, fit into memory."""
    counts = np.bincount(np.minimum(holders, COMMON + 1), minlength=COMMON + 2)[: COMMON + 1]
    sizes = np.arange(COMMON + 1)
    total = np.cumsum(counts * sizes * (sizes - 1) // 2)
    return max(2, int(np.searchsorted(total, PAIRS, side="right")) - 1)


def _every_two(holders: Rows, lengths: Rows) -> Pairs:
    """Every two holders of a run.

    `holders`: those of the first run, of the second and so on; `lengths`: how many each has.
    """
    run = np.repeat(np.arange(len(lengths)), lengths)
    for step in range(1, int(lengths.max(initial=0))):
        is_same_run = run[:-step] == run[step:]
        yield holders[:-step][is_same_run], holders[step:][is_same_run]


def _chained(holders: Rows, lengths: Rows, sides: Sides | None) -> Pairs:
    """Each holder of a run with the one before it and with the first, on another side if any.

    So a sentence that many texts share chains them together, at a cost that grows with their number
    and not its square. For the arguments see `_every_two`.
    """
    ends = np.cumsum(lengths)
    for part in _portions(lengths):
        part_lengths = lengths[part]
        texts = holders[ends[part][0] - part_lengths[0] : ends[part][-1]]
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


def _spread(keys: Rows, counts: Rows, all_keys: Rows) -> Rows:
    """The counts of `keys` in the order of `all_keys`, which ascend and hold them; else 0."""
    spread = np.zeros(len(all_keys), np.int64)
    spread[np.searchsorted(all_keys, keys)] = counts
    return spread


def _compare(runs: Runs, a: Rows, b: Rows, threshold: float) -> SimilarTexts:
    """The pairs whose Jaccard index, from all their runs, reaches the threshold."""
    order = np.argsort(runs.rows, kind="stable")
    hashes = runs.hashes[order]  # by text
    texts = int(max(a.max(initial=0), b.max(initial=0))) + 1
    sizes = np.bincount(runs.rows, minlength=texts)
    starts = np.cumsum(sizes) - sizes

    similar: SimilarTexts = []
    for part in _portions(sizes[a] + sizes[b]):
        left = a[part]
        right = b[part]
        in_common = _in_common(hashes, starts, sizes, left, right)
        index = in_common / (sizes[left] + sizes[right] - in_common)
        similar_pairs = np.flatnonzero(index >= threshold)
        similar += zip(
            left[similar_pairs].tolist(),
            right[similar_pairs].tolist(),
            np.round(index[similar_pairs], 3).tolist(),
            strict=True,
        )

    return sorted(similar, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _portions(runs: Rows) -> list[slice]:
    """Slices of pairs with about TOGETHER runs each. `runs`: of both texts of each pair."""
    marks = np.arange(TOGETHER, int(runs.sum()) + TOGETHER, TOGETHER)
    ends = np.searchsorted(np.cumsum(runs), marks, side="left") + 1
    edges = sorted({0, *np.minimum(ends, len(runs)).tolist()})
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def _in_common(hashes: Hashes, starts: Rows, sizes: Rows, left: Rows, right: Rows) -> Rows:
    """How many runs the two texts of each pair have in common.

    `hashes` of a text begin at its `starts` and differ from each other.
    """
    texts = np.r_[left, right]
    counts = sizes[texts]
    pair = np.repeat(np.r_[np.arange(len(left)), np.arange(len(right))], counts)
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    run = hashes[np.repeat(starts[texts], counts) + offset]

    order = np.lexsort((run, pair))
    run = run[order]
    pair = pair[order]
    is_common = (run[1:] == run[:-1]) & (pair[1:] == pair[:-1])

    return np.bincount(pair[1:][is_common], minlength=len(left))
