"""What is in a data set, and what is wrong with it.

Sets that a model learns from stand on sides of their own; test and evaluation sets share one, since neither is learned.
A table that we split is on a side of its own: within it copies are kept together, but an evaluation set must be apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS, Case, text_digest
from tasks.corpus.lengths import Lengths
from tasks.corpus.prepare import check_filled, check_labels, prepare_dataset, split_off
from tasks.corpus.splits import COPY, SHARES, check_copies, quotas, split_cases
from tasks.corpus.tally import NO_GROUP, Tally, tally
from tasks.corpus.vignettes.stored_facts import derive_again
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, EvaluationSet

ALIKE = 0.5  # Jaccard index from which two texts are shown as nearly the same; from COPY on they are copies
FEWEST = 72  # ED cases that certify a recall of 0.95 without a miss
SHOWN = 3  # places
Verdict = Literal["ok", "note", "FAILS"]
Split = dict[str, list[Case]]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `remedy` says where to look and what to do; it never holds a patient's words."""

    what: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class SetLine:
    """One set: rows, rows per label in the order of LABELS, names of its groups, median words."""

    name: str
    rows: int
    labels: tuple[int, ...]
    groups: list[str]
    words: float


@dataclass(frozen=True)
class Report:
    """What `triage data check` shows."""

    sets: list[SetLine]
    findings: list[Finding]
    lengths: list[Lengths]
    alike: list[
        tuple[str, str, float]
    ]  # places of two nearly equal texts, and the share of runs of words in common

    @property
    def fails(self) -> bool:
        return any(finding.verdict == "FAILS" for finding in self.findings)


def check_data(
    data: Data, evaluation_sets: Iterable[EvaluationSet], tokenizers: Mapping[str, Path]
) -> Report:
    """Read all rows and judge them. Raises BadInput for what cannot be read.

    `tokenizers`: tokenizer.json files by the name to show.
    """
    wanted = tuple(evaluation_sets)
    rows = tally(data, wanted)
    lines = _set_lines(rows)
    sides = np.array([_side(name) for name in rows.sets])[_ints(rows.set_codes)]
    alike = _alike(rows, sides)
    copies = _copies(rows, sides, alike)
    findings = [*_texts(rows, sides), _ids(rows), copies, *_groups(rows, sides), *_labels(lines)]
    if data.source == "embedded":
        findings.append(_derived(data, wanted))
    ours = not {*SETS} <= {*rows.sets}
    split = _split(rows, data) if ours and rows.cases else None
    if ours:
        findings.append(_our_split(split, data))
    places = [(rows.place(a), rows.place(b), index) for a, b, index in alike]
    return Report(
        lines,
        [*findings, *_certifiable(lines, split, data)],
        rows.sample.lengths(tokenizers),
        places,
    )


def _side(name: str) -> int:
    if name == "all":
        return len(SETS)
    return SETS.index(name) if name in SETS else SETS.index("test")


def _ints(column: Any) -> Any:
    """A column as an array, without a copy."""
    return np.frombuffer(column, dtype=column.typecode)


def _set_lines(rows: Tally) -> list[SetLine]:
    lines, names = [], list(rows.groups)
    for code, name in enumerate(rows.sets):
        own = _ints(rows.set_codes) == code
        groups = sorted(
            names[group] for group in np.unique(_ints(rows.group_codes)[own]) if group != NO_GROUP
        )
        counts = np.bincount(_ints(rows.label_codes)[own], minlength=len(LABELS))
        words = float(np.median(_ints(rows.words)[own]))
        lines.append(SetLine(name, int(own.sum()), tuple(counts.tolist()), groups, words))
    return lines


def _texts(rows: Tally, sides: Any) -> list[Finding]:
    """Rows with the same text: repeats, contradictions, texts on two sides."""
    order = np.argsort(_ints(rows.digests), kind="stable")
    same = _ints(rows.digests)[order][1:] == _ints(rows.digests)[order][:-1]
    a, b = order[:-1][same], order[1:][same]
    labels, sets, files = _ints(rows.label_codes), _ints(rows.set_codes), _ints(rows.file_codes)
    apart, other = sides[a] != sides[b], labels[a] != labels[b]
    # Test and evaluation sets: nothing is learned from them, so each may have its own label.
    scored = ~apart & (sets[a] != sets[b])
    wrong = other & ~scored
    parts = ~wrong & ~apart & ~scored & (files[a] != files[b])
    repeats = ~wrong & ~apart & ~scored & ~parts
    return [
        _pairs("repeated rows", a[repeats], b[repeats], rows, "note", "kept once"),
        _pairs("same text in two files of one set", a[parts], b[parts], rows, "FAILS", "delete one of the two"),
        _pairs("same text, other label", a[wrong], b[wrong], rows, "FAILS", "correct one of the two"),
        _pairs("same text in two sets", a[apart], b[apart], rows, "FAILS", "delete one of the two"),
        _pairs(
            "same text in two scored sets", a[scored], b[scored], rows, "note",
            f"scored in each{', in some with another label' if other[scored].any() else ''}",
        ),
    ]  # fmt: skip


def _ids(rows: Tally) -> Finding:
    """Ids are compared within the dataset, and within each evaluation set: two files may both count from 1."""
    own = np.array([0 if name in (*SETS, "all") else 1 + n for n, name in enumerate(rows.sets)])[
        _ints(rows.set_codes)
    ]
    order = np.lexsort((_ints(rows.digests), _ints(rows.ids), own))
    ids, digests, own = _ints(rows.ids)[order], _ints(rows.digests)[order], own[order]
    same = (ids[1:] == ids[:-1]) & (own[1:] == own[:-1]) & (digests[1:] != digests[:-1])
    return _pairs(
        "same id, other text",
        order[:-1][same],
        order[1:][same],
        rows,
        "FAILS",
        "give each its own id",
    )


def _alike(rows: Tally, sides: Any) -> list[tuple[int, int, float]]:
    """Nearly equal texts on two sides, or within the table that we split, the most alike first."""
    found = rows.sketch.pairs(ALIKE, None if "all" in rows.sets else sides)
    digests, table = rows.digests, _side("all")
    return [
        (a, b, index)
        for a, b, index in found
        if digests[a] != digests[b] and (sides[a] != sides[b] or sides[a] == table)
    ]


def _copies(rows: Tally, sides: Any, alike: list[tuple[int, int, float]]) -> Finding:
    """Nearly equal texts: across sides they leak; within one table our split keeps them together."""
    ours, every = "all" in rows.sets, rows.sketch.every
    how = f" (from 1 in {every} runs of words)" if every > 1 else ""
    if not alike:
        return Finding("nearly the same text", f"0 pairs{how}")
    close = sum(index >= COPY for *_, index in alike)
    leaks = [pair for pair in alike if pair[2] >= COPY and sides[pair[0]] != sides[pair[1]]]
    a, b, index = (leaks or alike)[0]
    places = f"most alike: {rows.place(a)} and {rows.place(b)}, {index:.0%} of their runs of words"
    found = f"{len(alike)} pairs, {close} of them copies{how}"
    if leaks:
        return Finding(
            "nearly the same text across sets", found, "FAILS", f"delete one of the two; {places}"
        )
    kept = "copies are kept in one set; " if close else ""
    return Finding(
        f"nearly the same text{'' if ours else ' across sets'}", found, "note", kept + places
    )


def _groups(rows: Tally, sides: Any) -> list[Finding]:
    codes = _ints(rows.group_codes)
    grouped = codes != NO_GROUP
    if not grouped.any():
        return [
            Finding(
                "groups",
                "none",
                "note",
                "cases are taken for independent: name a group_column if some belong together",
            )
        ]
    pairs = np.unique(
        codes[grouped] * (len(SETS) + 1) + sides[grouped]
    )  # one number per group and side
    groups, counts = np.unique(pairs // (len(SETS) + 1), return_counts=True)
    crossing = groups[counts > 1]
    first = [rows.place(int(np.flatnonzero(codes == group)[0])) for group in crossing[:SHOWN]]
    found = [
        Finding(
            "groups that cross sets", f"{len(crossing)} of {len(groups)}", "FAILS" if len(crossing) else "ok",
            f"keep a group's cases in one set; groups of {', '.join(first)}" if first else "",
        )
    ]  # fmt: skip
    if not grouped.all():
        found.append(
            Finding(
                "rows without a group",
                str(int((~grouped).sum())),
                "note",
                "each counts as a group of its own",
            )
        )
    return found


def _labels(lines: Sequence[SetLine]) -> list[Finding]:
    findings = []
    for line in lines:
        missing = [label for label, count in zip(LABELS, line.labels, strict=True) if not count]
        if missing:
            verdict: Verdict = "FAILS" if line.name == "train" else "note"
            found, means = (
                f"no {' and no '.join(missing)}",
                _without("ED" not in missing, line.name),
            )
            findings.append(Finding(f"labels of {line.name}", found, verdict, means))
    return findings


def _without(has_ed: bool, name: str) -> str:
    """What follows where a set lacks a label. `has_ed`: it is not that one."""
    if name == "train":
        return "train needs every label"
    if name == "all":
        return "it can be an evaluation set, and cannot be trained on"
    if name == "valid":
        return "the checkpoint of a training is chosen without such cases"
    if name == "calibration":
        rule = "without every label the rule of least expected cost is not available"
        return (
            rule
            if has_ed
            else "without ED no threshold can be chosen, so safety recipes cannot be judged"
        )
    return (
        "its figures say nothing of such cases"
        if has_ed
        else "without ED there is no ED recall, so no gate can pass"
    )


def _derived(data: Data, evaluation_sets: tuple[EvaluationSet, ...]) -> Finding:
    """Labels of the embedded cases, worked out again from the facts that are stored beside them."""
    with TemporaryDirectory() as root:
        own = tuple(wanted for wanted in evaluation_sets if wanted.source == "embedded")
        found = derive_again(
            prepare_dataset(data.model_copy(update={"limits": {}}), Path(root), own)
        )
    what, counts = "labels derived again from the stored facts", f"{found.agree} of {found.cases}"
    if found.agree == found.cases:
        return Finding(what, counts)
    return Finding(
        what, counts, "FAILS", f"mend the rules or the knowledge base; first: {found.first}"
    )


def _certifiable(found: Sequence[SetLine], ours: Split | None, data: Data) -> list[Finding]:
    """The recall that a set could certify at best: no miss among its ED cases, exact 95 % interval.

    Where a grid limits its test set, what counts is what is left of it. `ours`: our split, where it was tried.
    """
    lines = {line.name: line.labels for line in found}
    limit = data.limits.get("test")
    counted = {name: labels[0] for name, labels in lines.items() if name not in (*SETS, "all")}
    if "all" in lines:
        split = _counts(ours["test"]) if ours else _about(lines["all"])
        own = f"our test set{'' if ours else ' (about)'}{_limited(limit, split)}"
        counted = {
            "all rows as an evaluation set": lines["all"][0],
            own: _kept(split, limit),
            **counted,
        }
    if "test" in lines:
        counted = {f"test{_limited(limit, lines['test'])}": _kept(lines["test"], limit), **counted}
    return [_bound(name, ed) for name, ed in counted.items()]


def _kept(labels: Sequence[int], limit: int | None) -> int:
    """ED cases among those that a limit leaves, label shares kept. `labels`: rows per label in the order of LABELS."""
    if limit is None or sum(labels) <= limit:
        return labels[0]
    return quotas(
        {label: range(count) for label, count in zip(LABELS, labels, strict=True)}, limit
    )["ED"]


def _limited(limit: int | None, labels: Sequence[int]) -> str:
    return f" (limited to {limit})" if limit is not None and limit < sum(labels) else ""


def _about(labels: Sequence[int]) -> list[int]:
    return [round(count * SHARES["test"]) for count in labels]


def _counts(cases: Sequence[Case]) -> list[int]:
    counts = Counter(case.label for case in cases)
    return [counts[label] for label in LABELS]


def _split(rows: Tally, data: Data) -> Split:
    """The sets into which we split the table, or what is given as train; repeated texts counted once."""
    unique: dict[str, Case] = {}
    for case in rows.cases or []:
        unique.setdefault(text_digest(case.text), case)
    if "all" in rows.sets:
        return split_cases(list(unique.values()), data.seed)
    return split_off(list(unique.values()), data.seed, rows.sets)


def _our_split(sets: Split | None, data: Data) -> Finding:
    """Whether our split leaves a model something to learn from and to be judged by, as when the data is made.

    A table without one of the labels can only be an evaluation set, which `_labels` says; it must fill the sets alone.
    `sets`: None where there are too many cases to try it.
    """
    if sets is None:
        many = "too many cases for a check: `triage data card` makes it, and says what is wrong with it"
        return Finding("our split", "not tried", "note", many)
    whole = {case.label for cases in sets.values() for case in cases} == set(LABELS)
    try:
        if whole:
            check_copies(sets)
        (check_labels if whole else check_filled)(sets, data.source)
    except BadInput as error:
        return Finding("our split", "cannot be trained on", "FAILS", str(error).removesuffix("."))
    return Finding("our split", "every set has cases")


def _bound(name: str, ed: int) -> Finding:
    what = f"ED recall that {name} can certify"
    if not ed:
        return Finding(what, "none: no ED case", "note", "add ED cases")
    few = ed < FEWEST
    remedy = f"{FEWEST} ED cases without a miss are the fewest that certify 0.95" if few else ""
    return Finding(
        what,
        f"at best {math.floor(1000 * best_bound(ed)) / 1000:.3f} ({ed} ED cases)",
        "note" if few else "ok",
        remedy,
    )


def _pairs(what: str, a: Any, b: Any, rows: Tally, verdict: Verdict, remedy: str) -> Finding:
    if not len(a):
        return Finding(what, "0")
    first = sorted(zip(a.tolist(), b.tolist(), strict=True))[:SHOWN]
    shown = "; ".join(f"{rows.place(i)} and {rows.place(j)}" for i, j in first)
    return Finding(what, str(len(a)), verdict, f"{remedy}: {shown}")
