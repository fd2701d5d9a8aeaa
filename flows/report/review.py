"""The review flag of Monte Carlo dropout, as a table."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from flows.report.figures import figure, rows_of, stacked, with_interval
from flows.report.names import experiment_name
from warehouse.query import query

REVIEW = "The review flag of Monte Carlo dropout against scores of one pass at equal load; errors of the primary rule"


WITHOUT_DROPOUT = ("baseline",)


def review(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment that was trained: what each score flags at the load of the vote entropy's flag, or why none does."""
    flags = query("FROM review_flag ORDER BY score DESC")
    passes: dict[Any, Any] = {
        e.evaluation_id: e
        for e in rows_of(
            query("SELECT evaluation_id, mc_status, mc_reason, mc_passes, cases FROM evaluation")
        )
    }
    rows = []
    for r in rows_of(board[~board.recipe_kind.isin(WITHOUT_DROPOUT)]):
        own: list[Any] = rows_of(flags[flags.evaluation_id == r.evaluation_id])
        e = passes[r.evaluation_id]
        on = (
            f"{own[0].cases} of {e.cases} cases\n{int(e.mc_passes)} passes"
            if own
            else f"{e.cases} cases"
        )
        records = [_flag(f) for f in own] or [_no_flag(e)]
        rows.append(stacked({"experiment": f"{experiment_name(r)}\n{on}"}, records))
    return pd.DataFrame(rows)


def _flag(f: Any) -> dict[str, str]:
    better = "" if pd.isna(f.verdict) else str(f.verdict).replace("_", " ")
    difference = with_interval(f.aurc_difference, f.difference_low, f.difference_high, sign=True)
    return {
        "score": str(f.score).replace("_", " "), "load": figure(f.load), "AURC": figure(f.aurc),
        "error\nkept": figure(f.error_kept) if not pd.isna(f.error_kept) else "n/a: none kept",
        "missed ED\nflagged": "no misses" if not f.missed_ed else f"{figure(f.missed_ed_flagged, digits=2)} of {f.missed_ed}",
        "AURC minus\nthat of votes": "" if f.score == "vote_entropy" else difference, "which\nis better": better,
    }  # fmt: skip


def _no_flag(e: Any) -> dict[str, str]:
    """Without dropout there is no flag, and without the primary rule's decisions nothing to judge it by."""
    known = e.mc_status == "available"
    reason = "the primary rule gave no decision to judge the flag by" if known else e.mc_reason
    names = (
        "score",
        "load",
        "AURC",
        "error\nkept",
        "missed ED\nflagged",
        "AURC minus\nthat of votes",
        "which\nis better",
    )
    said = "not available" if pd.isna(reason) else f"not available: {reason}"
    return dict.fromkeys(names, "n/a") | {"score": textwrap.fill(said, 19)}
