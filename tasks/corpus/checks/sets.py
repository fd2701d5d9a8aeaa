"""Checks of groups and labels within sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS, Case
from tasks.corpus.checks.tally import NO_GROUP, Codes, Tally, codes
from tasks.corpus.checks.texts import SHOWN, SPLIT_TABLE
from tasks.corpus.compared_forms import compared_group
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.stored_facts import derive_again
from tasks.runtime.errors import Finding, Level
from tasks.spec import LABELS, Data, EvaluationSet

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
    findings = [_crossing_finding(rows, crossing, len(groups))]

    ungrouped = int((~has_group).sum())
    if ungrouped:
        remedy = "each counts as a group of its own"
        findings.append(Finding("rows without a group", "warning", str(ungrouped), remedy))

    return findings


def _crossing_finding(rows: Tally, crossing: NDArray[np.int64], total: int) -> Finding:
    name = "groups that cross sets"
    detail = f"{len(crossing)} of {total}"
    if not len(crossing):
        return Finding(name, "ok", detail)

    group_codes = codes(rows.group_codes)
    first = [int(np.flatnonzero(group_codes == group)[0]) for group in crossing[:SHOWN]]
    places = ", ".join(rows.place(row) for row in first)

    return Finding(name, "error", detail, f"keep a group's cases in one set; groups of {places}")


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

    by_set = {name: _ed_groups_of(cases) for name, cases in (split or {}).items()}
    by_set |= {name: count for name, count in counts.items() if name != "all" or not split}
    by_set = dict(sorted(by_set.items(), key=_is_further))
    few = [name for name, count in by_set.items() if count < FEWEST_ED_GROUPS]
    detail = ", ".join(f"{name} {count}" for name, count in by_set.items())
    if not few:
        return [Finding("groups with ED cases", "ok", detail)]

    remedy = (
        f"fewer than {FEWEST_ED_GROUPS} in {', '.join(few)}: ED recall there says little about new "
        "groups; add groups with ED cases"
    )
    return [Finding("groups with ED cases", "warning", detail, remedy)]


def _is_further(entry: tuple[str, int]) -> int:
    """Sorts the four sets before evaluation sets, in their usual order."""
    return SETS.index(entry[0]) if entry[0] in SETS else len(SETS)


def _ed_groups_of(cases: Sequence[Case]) -> int:
    groups = [case.group for case in cases if case.label == "ED"]
    names = {compared_group(group) for group in groups if group is not None}
    return len(names) + groups.count(None)


def missing_labels(labels: Mapping[str, Sequence[int]]) -> list[Finding]:
    """Sets that lack a label. `labels`: rows per label of each set, in the order of LABELS."""
    findings = []
    for name, counts in labels.items():
        missing = [label for label, count in zip(LABELS, counts, strict=True) if not count]
        if missing:
            level: Level = "error" if name == "train" else "warning"
            findings.append(
                Finding(
                    f"labels of {name}",
                    level,
                    f"no {' and no '.join(missing)}",
                    _consequence(name, "ED" in missing),
                )
            )

    return findings


def _consequence(name: str, lacks_ed: bool) -> str:
    """What follows where the set `name` lacks a label."""
    if name == "train":
        return "train needs every label"
    if name == "all":
        return "it can be an evaluation set, and cannot be trained on"
    if name == "valid":
        return "the checkpoint of a training is chosen without such cases"
    if name == "calibration":
        if lacks_ed:
            return "without ED no threshold can be chosen, so safety recipes cannot be judged"
        return "without every label the rule of least expected cost is not available"

    if lacks_ed:
        return "without ED there is no ED recall, so no gate can pass"
    return "its figures say nothing of such cases"


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
