"""Checks of rows with the same text, nearly the same text or the same id.

Texts must not cross sides. Each set that a model learns from is a side; test and evaluation sets
are one side together, since nothing is learned from either. A table that the project splits is one
side too: the split keeps copies within it together, but an evaluation set must be apart from it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS
from tasks.corpus.checks.tally import Codes, Tally, codes
from tasks.corpus.prompts import Prompt
from tasks.corpus.splits import COPY
from tasks.runtime.errors import Finding, Level

SIMILAR = (
    0.5  # Jaccard index from which two texts are nearly the same; from COPY on they are copies
)
SHOWN = 3  # places
SPLIT_TABLE = len(SETS)  # the side of a table that the project splits

RowPairs = tuple[NDArray[Any], NDArray[Any]]
"""Numbers of two rows each, as two arrays of equal length."""
SimilarRows = list[tuple[int, int, float]]
"""Numbers of two rows and the share of runs of words that they have in common, most alike first."""


def sides_of(rows: Tally) -> Codes:
    """The side of each row, shape (rows,)."""
    return np.array([_side(name) for name in rows.sets])[codes(rows.set_codes)]


def _side(name: str) -> int:
    if name == "all":
        return SPLIT_TABLE
    return SETS.index(name) if name in SETS else SETS.index("test")


def repeated_texts(rows: Tally, sides: Codes) -> list[Finding]:
    """Rows with the same text: repeats, contradictions, texts on two sides."""
    digests = codes(rows.digests)
    # Rows with the same text become neighbours, in the order of the input.
    order = np.argsort(digests, kind="stable")
    is_same = digests[order][1:] == digests[order][:-1]
    a = order[:-1][is_same]
    b = order[1:][is_same]

    set_codes = codes(rows.set_codes)
    is_leak = sides[a] != sides[b]
    # Nothing is learned from test and evaluation sets, so a text may have another label in each.
    is_scored_twice = ~is_leak & (set_codes[a] != set_codes[b])
    has_other_label = _differ(rows.label_codes, a, b)
    is_contradiction = has_other_label & ~is_scored_twice
    is_repeat = ~is_contradiction & ~is_leak & ~is_scored_twice
    is_in_two_files = is_repeat & _differ(rows.file_codes, a, b)
    is_in_one_file = is_repeat & ~is_in_two_files
    other_label = ", in some with another label" if has_other_label[is_scored_twice].any() else ""

    def finding(name: str, selected: NDArray[np.bool_], level: Level, remedy: str) -> Finding:
        return _pairs_finding(rows, name, (a[selected], b[selected]), level, remedy)

    deletion = "delete one of the two"
    return [
        finding("repeated rows", is_in_one_file, "warning", "kept once"),
        finding("same text in two files of one set", is_in_two_files, "error", deletion),
        finding("same text, other label", is_contradiction, "error", "correct one of the two"),
        finding("same text in two sets", is_leak, "error", deletion),
        finding(
            "same text in two scored sets",
            is_scored_twice,
            "warning",
            f"scored in each{other_label}",
        ),
    ]


def repeated_ids(rows: Tally, id_columns: Collection[str]) -> Finding:
    """Rows with the same id. `id_columns`: the sets whose id column the user names.

    Ids are compared within the dataset and within each evaluation set: two files may both count
    from 1. Where the user names no id column, rows with the same text are repeats, not an error.
    """
    set_codes = codes(rows.set_codes)
    is_dataset = [name in (*SETS, "all") for name in rows.sets]
    scope = np.array([0 if of else 1 + code for code, of in enumerate(is_dataset)])[set_codes]
    order = np.lexsort((codes(rows.digests), codes(rows.ids), scope))
    a = order[:-1]
    b = order[1:]

    is_strict = np.array([name in id_columns for name in rows.sets])[set_codes]
    is_same_id = ~_differ(rows.ids, a, b) & (scope[a] == scope[b])
    is_error = is_same_id & (_differ(rows.digests, a, b) | is_strict[a])
    name = "same id" if id_columns else "same id, other text"

    return _pairs_finding(rows, name, (a[is_error], b[is_error]), "error", "give each its own id")


def find_similar(rows: Tally, sides: Codes) -> SimilarRows:
    """Nearly equal texts on two sides, or within the table that the project splits."""
    # A table that is split has one side, and its own copies matter: compare all.
    pairs = rows.sketch.pairs(SIMILAR, None if rows.is_split_by_us else sides)
    digests = rows.digests

    return [
        (a, b, share)
        for a, b, share in pairs
        if digests[a] != digests[b] and (sides[a] != sides[b] or sides[a] == SPLIT_TABLE)
    ]


def near_copies(rows: Tally, sides: Codes, similar: SimilarRows) -> Finding:
    """Nearly equal texts: across sides they leak; the split keeps those of one table together."""
    every = rows.sketch.every
    basis = f" (from 1 in {every} runs of words)" if every > 1 else ""
    name = "nearly the same text"
    if not similar:
        return Finding(name, "ok", f"0 pairs{basis}")

    copies = [pair for pair in similar if pair[2] >= COPY]
    leaks = [(a, b, share) for a, b, share in copies if sides[a] != sides[b]]
    detail = f"{len(similar)} pairs, {len(copies)} of them copies{basis}"
    if leaks:
        remedy = f"delete one of the two; {_most_similar(rows, leaks)}"
        return Finding(f"{name} across sets", "error", detail, remedy)

    if not rows.is_split_by_us:
        name += " across sets"

    together = "copies are kept in one set; " if copies else ""

    return Finding(name, "warning", detail, together + _most_similar(rows, similar))


def _most_similar(rows: Tally, similar: SimilarRows) -> str:
    a, b, share = similar[0]
    return f"most alike: {rows.place(a)} and {rows.place(b)}, {share:.0%} of their runs of words"


def examples_in(rows: Tally, prompt: Prompt) -> Finding:
    """Rows that are an example in the prompt, or nearly one: the model would read their answer."""
    count = rows.sketch.texts
    rows.sketch.add([example.text for example in prompt.examples])
    sides = np.repeat([0, 1], [count, len(prompt.examples)])
    copies = rows.sketch.pairs(COPY, sides)
    if not copies:
        return Finding("examples of the prompt", "ok", "0")

    a, b, share = copies[0]
    label = prompt.examples[max(a, b) - count].label
    place = rows.place(min(a, b))
    remedy = f"leave them out, or set prompt.version = 1; {place} is the {label} one ({share:.0%})"

    return Finding("examples of the prompt", "error", str(len(copies)), remedy)


def _differ(column: array[int], a: Codes, b: Codes) -> NDArray[np.bool_]:
    """Whether the rows of each pair differ in a column."""
    values = codes(column)
    return np.asarray(values[a] != values[b])


def _pairs_finding(rows: Tally, name: str, pairs: RowPairs, level: Level, remedy: str) -> Finding:
    """How many pairs of rows there are, with the places of the first ones."""
    a, b = pairs
    if not len(a):
        return Finding(name, "ok", "0")

    in_order = zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True)
    first = sorted(in_order)[:SHOWN]
    places = "; ".join(f"{rows.place(i)} and {rows.place(j)}" for i, j in first)

    return Finding(name, level, str(len(a)), f"{remedy}: {places}")
