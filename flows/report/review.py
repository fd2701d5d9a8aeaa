"""The review flag of Monte Carlo dropout, as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import figure, is_number, stacked
from flows.report.names import listed_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, typed_rows

REVIEW = (
    "The review flag of Monte Carlo dropout against scores of one pass at equal load; "
    "errors of the primary rule"
)
COLUMNS = (
    "score",
    "load",
    "AURC",
    "error\nkept",
    "missed ED\nflagged",
    "AURC minus\nthat of votes",
    "which\nis better",
)


@dataclass(frozen=True)
class FlagRow:
    """A row of `review_flag`: what one score flags at the load of the vote entropy's flag."""

    evaluation_id: str
    score: str
    cases: int
    load: float
    aurc: float
    error_kept: float | None
    missed_ed: int
    missed_ed_flagged: float | None
    aurc_difference: float | None
    difference_low: float | None
    difference_high: float | None
    verdict: str | None


@dataclass(frozen=True)
class DropoutRow:
    """Columns of `evaluation`: whether there were dropout passes, or why not."""

    evaluation_id: str
    mc_status: str | None
    mc_reason: str | None
    mc_passes: int | None
    cases: int


def review(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment that was trained: what each score flags, or why none does."""
    flags: dict[str, list[FlagRow]] = defaultdict(list)
    for flag in typed_rows(FlagRow, "review_flag ORDER BY score DESC"):
        flags[flag.evaluation_id].append(flag)

    dropout = {row.evaluation_id: row for row in typed_rows(DropoutRow, "evaluation")}
    records = [
        _record(row, flags[row.evaluation_id], dropout[row.evaluation_id])
        for row in board
        if row.recipe_kind != "baseline"
    ]
    return ReportTable.of(REVIEW, records, "review_load")


def _record(row: EvaluationRow, flags: list[FlagRow], dropout: DropoutRow) -> dict[str, str]:
    basis = f"{dropout.cases} cases"
    if flags:
        basis = f"{flags[0].cases} of {dropout.cases} cases, {dropout.mc_passes} passes"
    records = [_flag(flag) for flag in flags] or [_no_flag(dropout)]
    return stacked({"experiment": f"{listed_name(row)}\n{basis}"}, records)


def _flag(flag: FlagRow) -> dict[str, str]:
    difference = figure(flag.aurc_difference, flag.difference_low, flag.difference_high, sign=True)
    cells = (
        flag.score.replace("_", " "),
        figure(flag.load),
        figure(flag.aurc),
        figure(flag.error_kept) if is_number(flag.error_kept) else "n/a: none kept",
        _missed(flag),
        "" if flag.score == "vote_entropy" else difference,
        (flag.verdict or "").replace("_", " "),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _missed(flag: FlagRow) -> str:
    if not flag.missed_ed:
        return "no misses"
    return f"{figure(flag.missed_ed_flagged, digits=2)} of {flag.missed_ed}"


def _no_flag(dropout: DropoutRow) -> dict[str, str]:
    """Without dropout there is no flag, and without the primary rule's decisions nothing to judge
    it by.
    """
    reason = dropout.mc_reason
    if dropout.mc_status == "available":
        reason = "the primary rule gave no decision to judge the flag by"
    sentence = f"not available: {reason}" if reason else "not available"
    return dict.fromkeys(COLUMNS, "n/a") | {"score": "", "load": sentence}
