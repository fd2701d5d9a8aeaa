"""What is in a dataset, and what is wrong with it: all checks, in the order of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS
from tasks.corpus.checks.findings import (
    certifiable_recall,
    crossing_groups,
    derived_labels,
    ed_groups,
    examples_in,
    find_similar,
    groups_with_ed,
    missing_labels,
    near_copies,
    repeated_ids,
    repeated_texts,
    sides_of,
    split_finding,
    try_split,
)
from tasks.corpus.checks.tally import NO_GROUP, Lengths, Tally, codes, tally
from tasks.corpus.prompts import Prompt
from tasks.runtime.errors import Finding
from tasks.spec import LABELS, Data, EvaluationSet


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
class SimilarPlaces:
    """The places of two nearly equal texts, and their share of common runs of words."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class CorpusReport:
    """What `triage data check` shows."""

    sets: list[SetLine]
    findings: list[Finding]
    lengths: list[Lengths]
    similar: list[SimilarPlaces]

    @property
    def errors(self) -> int:
        """The number of failed checks."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def fails(self) -> bool:
        return self.errors > 0


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
    sides = sides_of(rows)
    similar = find_similar(rows, sides)
    split = try_split(rows, data)
    id_columns = {entry.name for entry in evaluation_sets if entry.id_column}
    if data.id_column:
        id_columns |= {*SETS, "all"}

    findings = repeated_texts(rows, sides)
    findings.append(repeated_ids(rows, id_columns))
    findings.append(near_copies(rows, sides, similar))
    findings += crossing_groups(rows, sides)
    findings += groups_with_ed({line.name: line.ed_groups for line in lines}, rows, split)
    findings += missing_labels({line.name: line.labels for line in lines})
    if data.source == "embedded":
        findings.append(derived_labels(data, evaluation_sets))
    if not rows.has_all_sets:
        findings.append(split_finding(split, data))
    findings += certifiable_recall({line.name: line.cases for line in lines}, split, data)
    if prompt is not None and prompt.examples:
        findings.append(examples_in(rows, prompt))

    return CorpusReport(
        lines,
        findings,
        rows.sample.lengths(tokenizers),
        [SimilarPlaces(rows.place(a), rows.place(b), share) for a, b, share in similar],
    )


def _set_lines(rows: Tally) -> list[SetLine]:
    lines = []
    for code, name in enumerate(rows.sets):
        is_member = codes(rows.set_codes) == code
        groups = np.unique(codes(rows.group_codes)[is_member])
        # The members without those that repeat the text of an earlier one.
        members = np.flatnonzero(is_member)
        _, first = np.unique(codes(rows.digests)[members], return_index=True)
        is_case = np.zeros_like(is_member)
        is_case[members[first]] = True
        lines.append(
            SetLine(
                name,
                rows=int(is_member.sum()),
                labels=_label_counts(rows, is_member),
                cases=_label_counts(rows, is_case),
                groups=sorted(rows.group_names[group] for group in groups if group != NO_GROUP),
                ed_groups=ed_groups(rows, is_case),
                words=float(np.median(codes(rows.words)[is_member])),
            )
        )

    return lines


def _label_counts(rows: Tally, is_counted: NDArray[np.bool_]) -> tuple[int, ...]:
    """Rows per label, in the order of LABELS."""
    label_codes = codes(rows.label_codes)[is_counted]
    return tuple(np.bincount(label_codes, minlength=len(LABELS)).tolist())
