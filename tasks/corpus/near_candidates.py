"""Which of many texts may be nearly equal, from the hashes of their runs of words, and how alike those really are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMMON = 50  # a run of words in more texts than this may be a stock phrase: not every two of its holders are compared
PAIRS = 4_000_000  # candidate pairs of runs with few holders; with more, `COMMON` is lowered until they fit
COMPARED = 100_000  # candidates that are compared in full: those with most in common
SURE = 8  # runs in common from which a sample of the runs tells copies from texts that share a stock phrase alone
TOGETHER = 2_000_000  # runs that are looked at at once

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pairs = Iterator[tuple[Rows, Rows]]  # numbers of two texts, as two arrays of equal length


@dataclass(frozen=True)
class Texts:
    """What is known of each text before any two are compared. `joint`: its runs that another text has too."""

    number: int
    size: Rows
    joint: Rows
    threshold: float
    sides: Any

    def able(self, a: Rows, b: Rows, most: Rows) -> NDArray[np.bool_]:
        """Which pairs reach the threshold if they have `most` runs in common."""
        return most >= self.threshold * (self.size[a] + self.size[b] - most)

    def counted(self, pairs: Iterable[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
        """Each pair that may count, as one number, and how often it came."""
        keys = [np.zeros(0, np.int64)]
        for one, other in pairs:
            a, b = np.minimum(one, other), np.maximum(one, other)
            kept = self.able(a, b, np.minimum(self.joint[a], self.joint[b]))
            if self.sides is not None:
                kept &= self.sides[a] != self.sides[b]
            keys.append(a[kept] * self.number + b[kept])
        return np.unique(np.concatenate(keys), return_counts=True)


def matches(
    hashes: Hashes, rows: Rows, number: int, threshold: float, sides: Any, sampled: bool
) -> list[tuple[int, int, float]]:
    """Numbers of two texts of `number` and their Jaccard index, from `threshold` up; at most COMPARED.

    `hashes` ascend, and `rows`, the text of each, ascend within a hash; no text has a hash twice. `sampled`: they are
    not all runs of the texts.
    """
    edges = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
    lengths = np.diff(np.r_[edges, len(hashes)])
    limit = _stock_limit(lengths)
    rare, stock = (lengths >= 2) & (lengths <= limit), lengths > limit
    in_rare, in_stock = np.repeat(rare, lengths), np.repeat(stock, lengths)
    common = np.bincount(rows[in_stock], minlength=number)
    joint = common + np.bincount(rows[in_rare], minlength=number)
    texts = Texts(number, np.bincount(rows, minlength=number), joint, threshold, sides)
    few, few_shared = texts.counted(_every_two(rows[in_rare], lengths[rare]))
    # Most texts with a stock phrase have too much of their own to be a copy, or too little that a sample could tell.
    fit = (joint >= threshold * texts.size) & (common >= (SURE if sampled else 1))
    kept = fit[rows] & in_stock
    held = np.bincount(np.repeat(np.arange(len(lengths)), lengths)[kept])
    many, many_shared = texts.counted(_some_of_many(rows[kept], held[held >= 1], sides))
    met = many_shared >= np.minimum(
        2, np.minimum(common[many // number], common[many % number])
    )  # else by chance
    many, many_shared = many[met], many_shared[met]
    pair, _ = np.unique(
        np.concatenate([few, many]), return_counts=True
    )  # with counts it sorts, which is faster here
    a, b = pair // number, pair % number
    shared = _spread(few, few_shared, pair)
    # As if all stock phrases of one text were in the other.
    able = texts.able(a, b, shared + np.minimum(common[a], common[b]))
    a, b, shared = a[able], b[able], (shared + _spread(many, many_shared, pair))[able]
    alike = shared / (texts.size[a] + texts.size[b] - shared)
    chosen = np.argsort(-alike, kind="stable")[:COMPARED]
    return _exact(hashes, rows, a[chosen], b[chosen], threshold)


def _stock_limit(lengths: NDArray[np.int64]) -> int:
    """The longest list of holders whose pairs still fit into memory together with all shorter ones'."""
    counts = np.bincount(np.minimum(lengths, COMMON + 1), minlength=COMMON + 2)[: COMMON + 1]
    sizes = np.arange(COMMON + 1)
    total = np.cumsum(counts * sizes * (sizes - 1) // 2)
    return max(2, int(np.searchsorted(total, PAIRS, side="right")) - 1)


def _every_two(holders: Rows, lengths: Rows) -> Pairs:
    """Every two holders of a run. `holders`: those of the first run, of the second and so on; `lengths`: how many."""
    run = np.repeat(np.arange(len(lengths)), lengths)
    for step in range(1, int(lengths.max(initial=0))):
        same = run[:-step] == run[step:]
        yield holders[:-step][same], holders[step:][same]


def _some_of_many(holders: Rows, lengths: Rows, sides: Any) -> Pairs:
    """Each holder of a run with the one before it and with the first, on another side where there are sides.

    So a sentence that many texts share chains them together, at a cost that grows with their number and not its square.
    """
    ends = np.cumsum(lengths)
    for part in _portions(lengths):
        own = lengths[part]
        texts = holders[ends[part][0] - own[0] : ends[part][-1]]
        begin = np.cumsum(own) - own
        first, place = np.repeat(begin, own), np.arange(len(texts))
        same = first[1:] == first[:-1]
        yield texts[:-1][same], texts[1:][same]
        if sides is None:
            yield texts[first[place > first]], texts[place > first]
            continue
        with_first = sides[texts] == sides[texts[first]]
        opposite = np.repeat(
            np.minimum.reduceat(np.where(with_first, len(texts), place), begin), own
        )
        crossing = opposite < len(texts)
        partner = np.where(with_first, opposite, first)
        yield texts[crossing], texts[partner[crossing]]


def _spread(keys: Rows, counts: Rows, wanted: Rows) -> Rows:
    """The counts at the places that `keys`, all of them among `wanted`, have there; else 0."""
    found = np.zeros(len(wanted), np.int64)
    found[np.searchsorted(wanted, keys)] = counts
    return found


def _exact(
    hashes: Hashes, rows: Rows, a: Rows, b: Rows, threshold: float
) -> list[tuple[int, int, float]]:
    order = np.argsort(rows, kind="stable")
    hashes = hashes[order]  # by text
    sizes = np.bincount(rows, minlength=int(max(a.max(initial=0), b.max(initial=0))) + 1)
    starts = np.cumsum(sizes) - sizes
    found: list[tuple[int, int, float]] = []
    for part in _portions(sizes[a] + sizes[b]):
        left, right = a[part], b[part]
        shared = _shared(hashes, starts, sizes, left, right)
        index = shared / (sizes[left] + sizes[right] - shared)
        chosen = np.flatnonzero(index >= threshold)
        found += zip(
            left[chosen].tolist(),
            right[chosen].tolist(),
            np.round(index[chosen], 3).tolist(),
            strict=True,
        )
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _portions(runs: NDArray[np.int64]) -> list[slice]:
    """Slices of the pairs with about TOGETHER runs each. `runs`: those of both texts of each pair."""
    ends = (
        np.searchsorted(
            np.cumsum(runs), np.arange(TOGETHER, int(runs.sum()) + TOGETHER, TOGETHER), side="left"
        )
        + 1
    )
    edges = sorted({0, *np.minimum(ends, len(runs)).tolist()})
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def _shared(
    hashes: Hashes, starts: Rows, sizes: Rows, left: Rows, right: Rows
) -> NDArray[np.int64]:
    """How many runs the two texts of each pair have in common. A text's own hashes differ from each other."""
    texts = np.r_[left, right]
    counts = sizes[texts]
    pair = np.repeat(np.r_[np.arange(len(left)), np.arange(len(right))], counts)
    place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    run = hashes[np.repeat(starts[texts], counts) + place]
    order = np.lexsort((run, pair))
    run, pair = run[order], pair[order]
    both = (run[1:] == run[:-1]) & (pair[1:] == pair[:-1])
    return np.bincount(pair[1:][both], minlength=len(left))
