"""What is in a data set, and what is wrong with its rows: repeated texts and ids, groups, labels, and
the sets that the project splits off.

Texts must not cross sides. Each set that a model learns from is a side; test and evaluation sets
are one side together, since nothing is learned from either. A table that the project splits is one
side too: the split keeps copies within it together, but an evaluation set must be apart from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS, Case, compared_group, text_digest
from tasks.corpus.near_copies import SimilarTexts
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import Prompt
from tasks.corpus.splits import (
    COPY,
    check_copies,
    check_filled,
    check_labels,
    quotas,
    split_cases,
    split_off,
    split_shares,
)
from tasks.corpus.tally import NO_GROUP, SPLIT_TABLE, Codes, Lengths, Tally, tally
from tasks.corpus.vignettes.sets import derive_again
from tasks.runtime.errors import BadInput, Finding, Level
from tasks.spec import LABELS, Data, EvaluationSet

SIMILAR = 0.5  # Jaccard index from which texts are nearly the same; from COPY on they are copies
SHOWN = 3  # places
FEWEST_ED_GROUPS = 10  # below it an interval that resamples groups says little
FEWEST_ED_CASES = 72  # that certify a recall of 0.95 without a miss
ED = LABELS.index("ED")

# What follows where a set lacks a label; of other sets, and where that is ED, see `_missing_labels`.
CONSEQUENCES = {
    "train": "train needs every label",
    "all": "it can be an evaluation set, and cannot be trained on",
    "valid": "the checkpoint of a training is chosen without such cases",
    "calibration": "without every label the rule of least expected cost is not available",
}
WITHOUT_ED = {
    "calibration": "without ED no threshold can be chosen, so safety recipes cannot be judged",
    "test": "without ED there is no ED recall, so no gate can pass",
}

Split = Mapping[str, Sequence[Case]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class SetLine:
    """One set: rows, rows per label in the order of LABELS, names of its groups, median words.

    `cases`: like `labels`, where rows with one text count once, as they do once the data is made.
    `ed_groups`: groups with an ED case, where a case without a group counts as one.
    """

    name: str
    rows: int
    labels: tuple[int, ...]
    cases: tuple[int, ...]
    groups: list[str]
    ed_groups: int
    words: float


@dataclass(frozen=True)
class CorpusReport:
    """What `triage data check` shows.

    `similar`: places of two nearly equal texts, and their share of common runs of words.
    """

    sets: list[SetLine]
    findings: list[Finding]
    lengths: list[Lengths]
    similar: list[tuple[str, str, float]]

    @property
    def errors(self) -> int:
        """The number of failed checks."""
        return sum(finding.level == "error" for finding in self.findings)


def check_data(
    data: Data,
    evaluation_sets: Iterable[EvaluationSet],
    tokenizers: Mapping[str, Path],
    prompt: Prompt | None = None,
) -> CorpusReport:
    """Read all rows and judge them. Raises BadInput for what cannot be read.

    `tokenizers`: tokenizer.json files by the name to show; `prompt`: the grid's.
    """
    evaluation_sets = tuple(evaluation_sets)
    rows = tally(data, evaluation_sets)
    lines = _set_lines(rows)
    similar = _similar(rows)
    split = _try_split(rows, data)
    id_columns = {entry.name for entry in evaluation_sets if entry.id_column}
    if data.id_column:
        id_columns |= {*SETS, "all"}

    findings = _repeated_texts(rows)
    findings.append(_repeated_ids(rows, id_columns))
    findings.append(_near_copies(rows, similar))
    familiar = {entry.name for entry in evaluation_sets if entry.is_familiar}
    findings += _crossing_groups(rows, familiar)
    if rows.groups:
        findings.append(_groups_with_ed(lines, split))
    findings += _missing_labels(lines)
    if data.source == "embedded":
        findings.append(_derived_labels(data, evaluation_sets))
    if not rows.has_all_sets:
        findings.append(_split_finding(split, data))
    findings += _certifiable_recall(lines, split, data)
    if prompt is not None and prompt.examples:
        findings.append(_examples_in(rows, prompt))

    return CorpusReport(
        lines,
        findings,
        rows.sample.lengths(tokenizers),
        [(rows.place(a), rows.place(b), share) for a, b, share in similar],
    )


def _set_lines(rows: Tally) -> list[SetLine]:
    lines = []
    labels = rows.column("label")
    groups = rows.column("group")
    for code, name in enumerate(rows.sets):
        members = np.flatnonzero(rows.column("set") == code)
        # Those that do not repeat the text of an earlier one.
        _, first = np.unique(rows.column("text")[members], return_index=True)
        cases = members[first]
        ed_groups, counts = np.unique(groups[cases[labels[cases] == ED]], return_counts=True)
        names = np.unique(groups[members])
        lines.append(
            SetLine(
                name,
                rows=len(members),
                labels=tuple(np.bincount(labels[members], minlength=len(LABELS)).tolist()),
                cases=tuple(np.bincount(labels[cases], minlength=len(LABELS)).tolist()),
                groups=sorted(rows.group_names[group] for group in names if group != NO_GROUP),
                ed_groups=int(np.where(ed_groups == NO_GROUP, counts, 1).sum()),
                words=float(np.median(rows.column("words")[members])),
            )
        )

    return lines


def _repeated_texts(rows: Tally) -> list[Finding]:
    """Rows with the same text: repeats, contradictions, texts on two sides."""
    # Rows with the same text become neighbours, in the order of the input.
    texts = rows.column("text")
    order = np.argsort(texts, kind="stable")
    is_same = texts[order[:-1]] == texts[order[1:]]
    a = order[:-1][is_same]
    b = order[1:][is_same]

    def differ(column: Codes) -> Flags:
        return np.asarray(column[a] != column[b])

    is_leak = differ(rows.sides)
    # Nothing is learned from test and evaluation sets, so a text may have another label in each.
    is_scored_twice = ~is_leak & differ(rows.column("set"))
    has_other_label = differ(rows.column("label"))
    is_contradiction = has_other_label & ~is_scored_twice
    is_repeat = ~is_contradiction & ~is_leak & ~is_scored_twice
    is_in_two_files = is_repeat & differ(rows.column("file"))
    other_label = ", in some with another label" if has_other_label[is_scored_twice].any() else ""

    deletion = "delete one of the two"
    kinds: list[tuple[str, Flags, Level, str]] = [
        ("repeated rows", is_repeat & ~is_in_two_files, "warning", "kept once"),
        ("same text in two files of one set", is_in_two_files, "error", deletion),
        ("same text, other label", is_contradiction, "error", "correct one of the two"),
        ("same text in two sets", is_leak, "error", deletion),
        (
            "same text in two scored sets",
            is_scored_twice,
            "warning",
            f"scored in each{other_label}",
        ),
    ]
    return [
        _pairs_finding(rows, name, a[selected], b[selected], level, remedy)
        for name, selected, level, remedy in kinds
    ]


def _repeated_ids(rows: Tally, id_columns: Collection[str]) -> Finding:
    """Rows with the same id. `id_columns`: the sets whose id column the user names.

    Ids are compared within the data set and within each evaluation set: two files may both count
    from 1. Where the user names no id column, rows with the same text are repeats, not an error.
    """
    scopes = [0 if name in (*SETS, "all") else 1 + code for code, name in enumerate(rows.sets)]
    scope = np.array(scopes)[rows.column("set")]
    is_strict = np.array([name in id_columns for name in rows.sets])[rows.column("set")]
    ids = rows.column("id")
    texts = rows.column("text")
    order = np.lexsort((texts, ids, scope))
    a = order[:-1]
    b = order[1:]

    is_same_id = (ids[a] == ids[b]) & (scope[a] == scope[b])
    is_error = is_same_id & ((texts[a] != texts[b]) | is_strict[a])
    name = "same id" if id_columns else "same id, other text"
    return _pairs_finding(rows, name, a[is_error], b[is_error], "error", "give each its own id")


def _pairs_finding(
    rows: Tally, name: str, a: Codes, b: Codes, level: Level, remedy: str
) -> Finding:
    """How many pairs of rows there are, with the places of the first ones."""
    if not len(a):
        return Finding(name, "ok", "0")

    in_order = zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True)
    first = sorted(in_order)[:SHOWN]
    places = "; ".join(f"{rows.place(i)} and {rows.place(j)}" for i, j in first)

    return Finding(name, level, str(len(a)), f"{remedy}: {places}")


def _similar(rows: Tally) -> SimilarTexts:
    """Nearly equal texts on two sides, or within the table that the project splits."""
    sides = rows.sides
    # A table that is split has one side, and its own copies matter: compare all.
    pairs = rows.sketch.pairs(SIMILAR, None if rows.is_split_by_us else sides)
    texts = rows.column("text")
    return [
        (a, b, share)
        for a, b, share in pairs
        if texts[a] != texts[b] and (sides[a] != sides[b] or sides[a] == SPLIT_TABLE)
    ]


def _near_copies(rows: Tally, similar: SimilarTexts) -> Finding:
    """Nearly equal texts: across sides they leak; the split keeps those of one table together."""
    every = rows.sketch.every
    basis = f" (from 1 in {every} runs of words)" if every > 1 else ""
    name = "nearly the same text"
    if not similar:
        return Finding(name, "ok", f"0 pairs{basis}")

    copies = [pair for pair in similar if pair[2] >= COPY]
    leaks = [pair for pair in copies if rows.sides[pair[0]] != rows.sides[pair[1]]]
    a, b, share = (leaks or similar)[0]
    alike = f"most alike: {rows.place(a)} and {rows.place(b)}, {share:.0%} of their runs of words"
    detail = f"{len(similar)} pairs, {len(copies)} of them copies{basis}"
    if leaks:
        return Finding(f"{name} across sets", "error", detail, f"delete one of the two; {alike}")

    if not rows.is_split_by_us:
        name += " across sets"
    together = "copies are kept in one set; " if copies else ""
    return Finding(name, "warning", detail, together + alike)


def _examples_in(rows: Tally, prompt: Prompt) -> Finding:
    """Rows that are an example in the prompt, or nearly one: the model would read their answer."""
    name = "examples of the prompt"
    count = rows.sketch.texts
    rows.sketch.add([example.text for example in prompt.examples])
    sides = np.repeat([0, 1], [count, len(prompt.examples)])
    copies = rows.sketch.pairs(COPY, sides)
    if not copies:
        return Finding(name, "ok", "0")

    a, b, share = copies[0]
    label = prompt.examples[max(a, b) - count].label
    place = rows.place(min(a, b))
    remedy = f"leave them out, or set prompt.version = 1; {place} is the {label} one ({share:.0%})"

    return Finding(name, "error", str(len(copies)), remedy)


def _crossing_groups(rows: Tally, familiar: Collection[str]) -> list[Finding]:
    """Groups with cases on two sides, and rows without a group.

    `familiar`: sets that are about the groups of train.
    """
    groups_of_rows = rows.column("group")
    has_group = groups_of_rows != NO_GROUP
    if not has_group.any():
        remedy = (
            "cases are taken for independent: name a group_column (--group-column) if some belong"
            " together"
        )
        return [Finding("groups", "warning", "none", remedy)]

    is_new = np.array([name not in familiar for name in rows.sets])[rows.column("set")]
    pairs = np.unique(np.c_[groups_of_rows, rows.sides][has_group & is_new], axis=0)
    groups, counts = np.unique(pairs[:, 0], return_counts=True)
    crossing = groups[counts > 1]

    name = "groups that cross sets"
    detail = f"{len(crossing)} of {len(groups)}"
    findings = [Finding(name, "ok", detail)]
    if len(crossing):
        first = [int(np.flatnonzero(groups_of_rows == group)[0]) for group in crossing[:SHOWN]]
        places = ", ".join(rows.place(row) for row in first)
        remedy = f"keep a group's cases in one set; groups of {places}"
        findings = [Finding(name, "error", detail, remedy)]

    ungrouped = int((~has_group).sum())
    if ungrouped:
        remedy = "each counts as a group of its own"
        findings.append(Finding("rows without a group", "warning", str(ungrouped), remedy))

    return findings


def _groups_with_ed(lines: Sequence[SetLine], split: Split | None) -> Finding:
    """The number of groups with ED cases in each set; a set with too few can show little.

    `split`: the project's own split, where it was tried.
    """
    by_set: dict[str, int] = {}
    for name, cases in (split or {}).items():
        groups = [case.group for case in cases if case.label == "ED"]
        names = {compared_group(group) for group in groups if group is not None}
        by_set[name] = len(names) + groups.count(None)

    by_set |= {line.name: line.ed_groups for line in lines if line.name != "all" or not split}
    # The four sets before evaluation sets, in their usual order.
    by_set = {name: by_set[name] for name in dict.fromkeys((*SETS, *by_set)) if name in by_set}
    detail = ", ".join(f"{name} {count}" for name, count in by_set.items())
    few = [name for name, count in by_set.items() if count < FEWEST_ED_GROUPS]
    if not few:
        return Finding("groups with ED cases", "ok", detail)

    remedy = (
        f"fewer than {FEWEST_ED_GROUPS} in {', '.join(few)}: ED recall there says little about new "
        "groups; add groups with ED cases"
    )
    return Finding("groups with ED cases", "warning", detail, remedy)


def _missing_labels(lines: Sequence[SetLine]) -> list[Finding]:
    """Sets that lack a label."""
    findings = []
    for line in lines:
        missing = [label for label, count in zip(LABELS, line.labels, strict=True) if not count]
        if missing:
            level: Level = "error" if line.name == "train" else "warning"
            consequence = CONSEQUENCES.get(line.name, "its figures say nothing of such cases")
            if "ED" in missing and line.name not in ("train", "all", "valid"):
                consequence = WITHOUT_ED.get(line.name, WITHOUT_ED["test"])
            detail = f"no {' and no '.join(missing)}"
            findings.append(Finding(f"labels of {line.name}", level, detail, consequence))

    return findings


def _derived_labels(data: Data, evaluation_sets: Sequence[EvaluationSet]) -> Finding:
    """Whether the labels of the embedded cases follow from their stored facts."""
    embedded = [entry for entry in evaluation_sets if entry.source == "embedded"]
    whole = data.model_copy(update={"limits": {}})
    with TemporaryDirectory() as root:
        count, wrong = derive_again(prepare_dataset(whole, Path(root), embedded))

    name = "labels derived again from the stored facts"
    detail = f"{count - len(wrong)} of {count}"
    if not wrong:
        return Finding(name, "ok", detail)
    remedy = f"correct the rules or the knowledge base; first: {wrong[0]}"
    return Finding(name, "error", detail, remedy)


def _try_split(rows: Tally, data: Data) -> Split | None:
    """The sets into which the project splits the table, or what is given as train.

    Repeated texts count once. None where all sets are given, or with too many cases to try.
    """
    if rows.has_all_sets or not rows.cases:
        return None

    unique: dict[str, Case] = {}
    for case in rows.cases:
        unique.setdefault(text_digest(case.text), case)

    if rows.is_split_by_us:
        return split_cases(list(unique.values()), data.seed, split_shares(data))
    return split_off(list(unique.values()), data, rows.sets)


def _split_finding(split: Split | None, data: Data) -> Finding:
    """Whether the split leaves a model something to learn from and to be judged by.

    It says what the preparation of the data would say. A table that lacks a label can only be an
    evaluation set, which is another finding; here it only has to fill the sets.
    """
    name = "our split"
    if split is None:
        remedy = "too many cases to try: `triage data card` splits them, and names what is wrong"
        return Finding(name, "warning", "not tried", remedy)

    counts = {name: Counter(case.label for case in cases) for name, cases in split.items()}
    try:
        if all(any(count[label] for count in counts.values()) for label in LABELS):
            check_copies(split)
            check_labels(split, data.source)
        else:
            check_filled(split, data.source)
    except BadInput as error:
        return Finding(name, "error", "cannot be trained on", str(error).removesuffix("."))

    sizes = [f"{name} {n.total():,} ({n['ED']:,} ED)" for name, n in counts.items()]
    return Finding(name, "ok", ", ".join(sizes))


def _certifiable_recall(lines: Sequence[SetLine], split: Split | None, data: Data) -> list[Finding]:
    """The recall that each scored set could certify at best: no miss among its ED cases.

    Where a grid limits its test set, what remains of it counts. Repeated texts count once.
    """
    labels = {line.name: line.cases for line in lines}
    ed_cases: dict[str, int] = {}
    if "test" in labels:
        count, note = _ed_within(labels["test"], data)
        ed_cases[f"test{note}"] = count

    if "all" in labels:
        about = "" if split else " (about)"
        test = [round(count * split_shares(data)["test"]) for count in labels["all"]]
        if split:
            counted = Counter(case.label for case in split["test"])
            test = [counted[label] for label in LABELS]
        count, note = _ed_within(test, data)
        ed_cases["all rows as an evaluation set"] = labels["all"][ED]
        ed_cases[f"our test set{about}{note}"] = count

    ed_cases |= {name: counts[ED] for name, counts in labels.items() if name not in (*SETS, "all")}

    findings = []
    for set_name, count in ed_cases.items():
        name = f"ED recall that {set_name} can certify"
        if not count:
            findings.append(Finding(name, "warning", "none: no ED case", "add ED cases"))
            continue

        # Rounded down: no more than is certified.
        detail = f"at best {math.floor(1000 * best_bound(count)) / 1000:.3f} ({count} ED cases)"
        finding = Finding(name, "ok", detail)
        if count < FEWEST_ED_CASES:
            remedy = f"{FEWEST_ED_CASES} ED cases without a miss are the fewest that certify 0.95"
            finding = Finding(name, "warning", detail, remedy)
        findings.append(finding)

    return findings


def _ed_within(labels: Sequence[int], data: Data) -> tuple[int, str]:
    """ED cases among those that the limit of the test set leaves, which keeps the label shares; and
    what to say of the limit.
    """
    limit = data.limits.get("test")
    if limit is None or sum(labels) <= limit:
        return labels[ED], ""
    counts = dict(zip(map(str, LABELS), labels, strict=True))
    return quotas(counts, limit)["ED"], f" (limited to {limit})"
