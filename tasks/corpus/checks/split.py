"""Checks of the sets that the project splits off, and of the recall that a test set can certify."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS, Case, text_digest
from tasks.corpus.checks.tally import Tally
from tasks.corpus.four_sets import check_filled, check_labels, split_off, split_shares
from tasks.corpus.splits import check_copies, quotas, split_cases
from tasks.runtime.errors import BadInput, Finding
from tasks.spec import LABELS, Data

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

    return Finding(name, "ok", _sizes(split))


def _sizes(split: Split) -> str:
    """How many cases each set gets, and how many of them are emergencies."""
    counts = {name: Counter(case.label for case in cases) for name, cases in split.items()}
    return ", ".join(f"{name} {n.total():,} ({n['ED']:,} ED)" for name, n in counts.items())


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
        test = _label_counts(split["test"]) if split else _estimated_test(labels["all"], data)
        about = "" if split else " (about)"
        ed_cases["all rows as an evaluation set"] = labels["all"][0]
        ed_cases[f"our test set{about}{_limit_note(limit, test)}"] = _ed_within(test, limit)

    for name, counts in labels.items():
        if name not in (*SETS, "all"):
            ed_cases[name] = counts[0]

    return [_recall_finding(name, count) for name, count in ed_cases.items()]


def _ed_within(labels: LabelCounts, limit: int | None) -> int:
    """ED cases among those that a limit leaves, which keeps the label shares."""
    if limit is None or sum(labels) <= limit:
        return labels[0]
    queues = {str(label): range(count) for label, count in zip(LABELS, labels, strict=True)}
    return quotas(queues, limit)["ED"]


def _limit_note(limit: int | None, labels: LabelCounts) -> str:
    return f" (limited to {limit})" if limit is not None and limit < sum(labels) else ""


def _estimated_test(labels: LabelCounts, data: Data) -> list[int]:
    share = split_shares(data)["test"]
    return [round(count * share) for count in labels]


def _label_counts(cases: Sequence[Case]) -> list[int]:
    counts = Counter(case.label for case in cases)
    return [counts[label] for label in LABELS]


def _recall_finding(name: str, ed_cases: int) -> Finding:
    name = f"ED recall that {name} can certify"
    if not ed_cases:
        return Finding(name, "warning", "none: no ED case", "add ED cases")

    bound = (
        math.floor(1000 * best_bound(ed_cases)) / 1000
    )  # rounded down: no more than is certified
    detail = f"at best {bound:.3f} ({ed_cases} ED cases)"
    if ed_cases >= FEWEST_ED_CASES:
        return Finding(name, "ok", detail)

    remedy = f"{FEWEST_ED_CASES} ED cases without a miss are the fewest that certify 0.95"
    return Finding(name, "warning", detail, remedy)
