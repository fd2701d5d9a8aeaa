"""What is wrong with the rows of a dataset: repeated texts and ids, groups, labels, and the sets that
the project splits off.

Texts must not cross sides. Each set that a model learns from is a side; test and evaluation sets
are one side together, since nothing is learned from either. A table that the project splits is one
side too: the split keeps copies within it together, but an evaluation set must be apart from it.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS, Case, compared_group, text_digest
from tasks.corpus.checks.tally import NO_GROUP, Codes, Tally, codes
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
from tasks.corpus.vignettes.stored_facts import derive_again
from tasks.runtime.errors import BadInput, Finding, Level
from tasks.spec import LABELS, Data, EvaluationSet

SIMILAR = (
    0.5  # Jaccard index from which two texts are nearly the same; from COPY on they are copies
)
SHOWN = 3  # places
SPLIT_TABLE = len(SETS)  # the side of a table that the project splits

# What follows where a set lacks a label; of other sets, and where that is ED, see `missing_labels`.
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

RowPairs = tuple[NDArray[Any], NDArray[Any]]
"""Numbers of two rows each, as two arrays of equal length."""
SimilarRows = list[tuple[int, int, float]]
"""Numbers of two rows and the share of runs of words that they have in common, most alike first."""


def sides_of(rows: Tally) -> Codes:
    """The side of each row, shape (rows,)."""
    of_name = {name: code for code, name in enumerate((*SETS, "all"))}
    sides = [of_name.get(name, of_name["test"]) for name in rows.sets]
    return np.array(sides)[codes(rows.set_codes)]


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


FEWEST_ED_GROUPS = 10  # below it an interval that resamples groups says little
ED = LABELS.index("ED")


def crossing_groups(rows: Tally, sides: Codes) -> list[Finding]:
    """Groups with cases on two sides, and rows without a group. `sides`: of each row."""
    group_codes = codes(rows.group_codes)
    has_group = group_codes != NO_GROUP
    if not has_group.any():
        remedy = (
            "cases are taken for independent: name a group_column (--group-column) if some belong"
            " together"
        )
        return [Finding("groups", "warning", "none", remedy)]

    # One number per group and side.
    side_count = SPLIT_TABLE + 1
    group_sides = np.unique(group_codes[has_group] * side_count + sides[has_group])
    groups, counts = np.unique(group_sides // side_count, return_counts=True)
    crossing = groups[counts > 1]

    name = "groups that cross sets"
    detail = f"{len(crossing)} of {len(groups)}"
    findings = [Finding(name, "ok", detail)]
    if len(crossing):
        first = [int(np.flatnonzero(group_codes == group)[0]) for group in crossing[:SHOWN]]
        places = ", ".join(rows.place(row) for row in first)
        remedy = f"keep a group's cases in one set; groups of {places}"
        findings = [Finding(name, "error", detail, remedy)]

    ungrouped = int((~has_group).sum())
    if ungrouped:
        remedy = "each counts as a group of its own"
        findings.append(Finding("rows without a group", "warning", str(ungrouped), remedy))

    return findings


def ed_groups(rows: Tally, is_member: NDArray[np.bool_]) -> int:
    """Groups with an ED case among the rows; a case without a group counts as a group."""
    is_ed = is_member & (codes(rows.label_codes) == ED)
    groups, counts = np.unique(codes(rows.group_codes)[is_ed], return_counts=True)
    return int(np.where(groups == NO_GROUP, counts, 1).sum())


def groups_with_ed(
    counts: Mapping[str, int], rows: Tally, split: Mapping[str, Sequence[Case]] | None
) -> list[Finding]:
    """The number of groups with ED cases in each set; a set with too few can show little.

    `counts`: of each set as it is given; `split`: the project's own split, where it was tried.
    """
    if not rows.groups:
        return []

    by_set: dict[str, int] = {}
    for name, cases in (split or {}).items():
        groups = [case.group for case in cases if case.label == "ED"]
        names = {compared_group(group) for group in groups if group is not None}
        by_set[name] = len(names) + groups.count(None)

    by_set |= {name: count for name, count in counts.items() if name != "all" or not split}
    # The four sets before evaluation sets, in their usual order.
    order = {str(name): place for place, name in enumerate(SETS)}
    by_set = dict(sorted(by_set.items(), key=lambda entry: order.get(entry[0], len(SETS))))
    few = [name for name, count in by_set.items() if count < FEWEST_ED_GROUPS]
    detail = ", ".join(f"{name} {count}" for name, count in by_set.items())
    if not few:
        return [Finding("groups with ED cases", "ok", detail)]

    remedy = (
        f"fewer than {FEWEST_ED_GROUPS} in {', '.join(few)}: ED recall there says little about new "
        "groups; add groups with ED cases"
    )
    return [Finding("groups with ED cases", "warning", detail, remedy)]


def missing_labels(labels: Mapping[str, Sequence[int]]) -> list[Finding]:
    """Sets that lack a label. `labels`: rows per label of each set, in the order of LABELS."""
    findings = []
    for name, counts in labels.items():
        missing = [label for label, count in zip(LABELS, counts, strict=True) if not count]
        if missing:
            level: Level = "error" if name == "train" else "warning"
            consequence = CONSEQUENCES.get(name, "its figures say nothing of such cases")
            if "ED" in missing and name not in ("train", "all", "valid"):
                consequence = WITHOUT_ED.get(name, WITHOUT_ED["test"])
            detail = f"no {' and no '.join(missing)}"
            findings.append(Finding(f"labels of {name}", level, detail, consequence))

    return findings


def derived_labels(data: Data, evaluation_sets: Sequence[EvaluationSet]) -> Finding:
    """Whether the labels of the embedded cases follow from their stored facts."""
    embedded = [entry for entry in evaluation_sets if entry.source == "embedded"]
    whole = data.model_copy(update={"limits": {}})
    with TemporaryDirectory() as root:
        derived = derive_again(prepare_dataset(whole, Path(root), embedded))

    name = "labels derived again from the stored facts"
    detail = f"{derived.agree} of {derived.cases}"
    if derived.agree == derived.cases:
        return Finding(name, "ok", detail)

    remedy = f"correct the rules or the knowledge base; first: {derived.first}"
    return Finding(name, "error", detail, remedy)


FEWEST_ED_CASES = 72  # that certify a recall of 0.95 without a miss

Split = Mapping[str, Sequence[Case]]
LabelCounts = Sequence[int]
"""Cases per label, in the order of LABELS."""


def try_split(rows: Tally, data: Data) -> Split | None:
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


def split_finding(split: Split | None, data: Data) -> Finding:
    """Whether the split leaves a model something to learn from and to be judged by.

    It says what the preparation of the data would say. A table that lacks a label can only be an
    evaluation set, which is another finding; here it only has to fill the sets.
    """
    name = "our split"
    if split is None:
        remedy = "too many cases to try: `triage data card` splits them, and names what is wrong"
        return Finding(name, "warning", "not tried", remedy)

    labels = {case.label for cases in split.values() for case in cases}
    try:
        if labels == set(LABELS):
            check_copies(split)
            check_labels(split, data.source)
        else:
            check_filled(split, data.source)
    except BadInput as error:
        return Finding(name, "error", "cannot be trained on", str(error).removesuffix("."))

    counts = {name: Counter(case.label for case in cases) for name, cases in split.items()}
    sizes = [f"{name} {n.total():,} ({n['ED']:,} ED)" for name, n in counts.items()]
    return Finding(name, "ok", ", ".join(sizes))


def certifiable_recall(
    labels: Mapping[str, LabelCounts], split: Split | None, data: Data
) -> list[Finding]:
    """The recall that each scored set could certify at best: no miss among its ED cases.

    Where a grid limits its test set, what remains of it counts. `labels`: of each set as given,
    where repeated texts count once.
    """
    limit = data.limits.get("test")
    ed_cases: dict[str, int] = {}
    if "test" in labels:
        ed_cases[f"test{_limit_note(limit, labels['test'])}"] = _ed_within(labels["test"], limit)

    if "all" in labels:
        share = split_shares(data)["test"]
        test = [round(count * share) for count in labels["all"]]
        if split:
            counted = Counter(case.label for case in split["test"])
            test = [counted[label] for label in LABELS]

        about = "" if split else " (about)"
        ed_cases["all rows as an evaluation set"] = labels["all"][0]
        ed_cases[f"our test set{about}{_limit_note(limit, test)}"] = _ed_within(test, limit)

    ed_cases |= {name: counts[0] for name, counts in labels.items() if name not in (*SETS, "all")}

    findings = []
    for set_name, count in ed_cases.items():
        name = f"ED recall that {set_name} can certify"
        if not count:
            findings.append(Finding(name, "warning", "none: no ED case", "add ED cases"))
            continue

        # Rounded down: no more than is certified.
        detail = f"at best {math.floor(1000 * best_bound(count)) / 1000:.3f} ({count} ED cases)"
        remedy = f"{FEWEST_ED_CASES} ED cases without a miss are the fewest that certify 0.95"
        is_enough = count >= FEWEST_ED_CASES
        findings.append(
            Finding(name, "ok", detail) if is_enough else Finding(name, "warning", detail, remedy)
        )

    return findings


def _ed_within(labels: LabelCounts, limit: int | None) -> int:
    """ED cases among those that a limit leaves, which keeps the label shares."""
    if limit is None or sum(labels) <= limit:
        return labels[0]
    queues = {str(label): range(count) for label, count in zip(LABELS, labels, strict=True)}
    return quotas(queues, limit)["ED"]


def _limit_note(limit: int | None, labels: LabelCounts) -> str:
    return f" (limited to {limit})" if limit is not None and limit < sum(labels) else ""
