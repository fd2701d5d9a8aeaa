"""Scored sets as they lie in a scores folder: lines without patient text, and the rules chosen before the test set's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.judging.choose_rules import RECORD, RuleRecord, ScoredCases
from tasks.judging.further_rows import probability_table
from tasks.runtime.store import read_lines, verify

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Scored:
    """Lines of scores of both sets, the rules, and what the manifest of their folder says.

    `test`: the judged set, whatever its name; `passes`: case ids and (T, N, 3).
    """

    calibration: Rows
    test: Rows
    rules: RuleRecord
    manifest: dict[str, Any]
    passes: tuple[list[str], Any] | None = None
    answers: Rows | None = None


def read_scores(folder: Path) -> Scored:
    """The content of a sealed scores folder."""
    manifest, passes, answers = verify(folder, deep=True), None, None
    if (folder / "passes.npy").is_file():
        ids = json.loads((folder / "passes.json").read_text())
        passes = (ids, np.load(folder / "passes.npy", allow_pickle=False))
    if (folder / "answers.jsonl").is_file():
        answers = read_lines(folder / "answers.jsonl")
    rules = RuleRecord.from_json((folder / RECORD).read_text())
    calibration, test = (read_lines(folder / f"{name}.jsonl") for name in ("calibration", "test"))
    return Scored(calibration, test, rules, manifest, passes, answers)


def scored_cases(rows: Rows, evaluation_set: str = "test") -> ScoredCases:
    """An external set's ids are told apart by its name from those of the dataset: both may count from 1."""
    source = "" if evaluation_set == "test" else f"{evaluation_set} "
    p, ids = probability_table(rows), [f"{source}{r['case_id']}" for r in rows]
    return ScoredCases(ids, p, [r["label"] for r in rows], [r["case_digest"] for r in rows])
