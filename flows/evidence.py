"""The tables behind the comparison, in the order in which a safety reviewer asks for them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from typing import Any

import pandas as pd

from flows.by_source import SOURCES, by_source
from flows.cells import stacked, why_not, with_interval
from flows.gate_tables import GATES, STANDARD, gates, standard
from flows.precision_tables import FIDELITY, FLIPS, fidelity, flips
from flows.rule_tables import CHOICES, CONFUSION, choices, confusion, rules
from flows.seed_tables import SEEDS, seeds
from flows.tables import experiment_name, figure, percent, rows_of
from warehouse.query import query

REVIEW = "The review flag of Monte Carlo dropout against scores of one pass at equal load; errors of the primary rule"
CALIBRATION = "Can the probabilities be trusted? Likelihood and calibration on the test set; brackets: 95 %"
SETS = "Conformal sets (at most so many emergencies missed on average), and answers as the model writes them"
WITHOUT_DROPOUT = ("baseline",)
OWN_SHARE = "; --prevalence does not apply"


def evidence(only: Collection[str] | None = None, prevalence: float | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Titles and tables, those without rows left out. `only`: ids of evaluations, instead of the latest.

    `prevalence` restates precision and F2 where a table has them; the titles of the others say that it does not apply.
    """
    board = query("SELECT * FROM leaderboard", only=only)
    own, restated = (
        ("", "") if prevalence is None else (OWN_SHARE, f"; precision and F2 restated at {prevalence:.1%} ED")
    )
    made = [
        (GATES + own, gates(board)),
        *rules(board, prevalence),
        (CHOICES + own, choices(board)),
        (CONFUSION + own, confusion(board)),
        (SOURCES + restated, by_source(board, prevalence)),
        (SEEDS + restated, seeds(board, prevalence)),
        (STANDARD + own, standard(board)),
        (CALIBRATION + own, calibration(board)),
        (SETS + own, sets_and_answers(board)),
        (REVIEW + own, review(board)),
        (FLIPS + own, flips(board)),
        (FIDELITY + own, fidelity(board)),
    ]
    return [(title, frame) for title, frame in made if len(frame)]


def calibration(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment with likelihoods or learned scores: likelihood, Brier scores, ECE."""
    found = _argmax_metrics("brier", "ed_brier", "ece", "ed_ece")
    rows = []
    for r in _scored(board):
        record = {
            "NLL\nperplexity": f"{figure(r.test_loss)}\n{figure(r.perplexity, digits=2)}",
            "Brier": _metric(found, r, "brier"), "Brier of ED": _metric(found, r, "ed_brier"),
            "ECE": _metric(found, r, "ece"), "ECE of ED": _metric(found, r, "ed_ece"),
        }  # fmt: skip
        rows.append(stacked({"experiment": experiment_name(r)}, [record]))
    return pd.DataFrame(rows)


def sets_and_answers(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment with likelihoods or learned scores: its conformal sets, and whether it writes one label."""
    found = _argmax_metrics("format_compliance", "generation_agreement")
    conformal: dict[Any, Any] = {c.evaluation_id: c for c in rows_of(query("FROM conformal"))}
    rows = []
    for r in _scored(board):
        record = _conformal(conformal.get(r.evaluation_id)) | {
            "writes one label": _metric(found, r, "format_compliance", counted=True),
            "writes what it scores": _metric(found, r, "generation_agreement", counted=True),
        }
        rows.append(stacked({"experiment": experiment_name(r)}, [record], widest=26))
    return pd.DataFrame(rows)


def _scored(board: pd.DataFrame) -> list[Any]:
    """Rows of all but the constant answers, which have no scores."""
    return rows_of(board[~board.recipe.isin(("always_gp", "always_ed"))])


def _argmax_metrics(*names: str) -> dict[tuple[str, str], Any]:
    listed = ", ".join(f"'{name}'" for name in names)
    rows = query(f"SELECT * FROM metric WHERE rule = 'argmax' AND metric IN ({listed})")
    return {(m.evaluation_id, m.metric): m for m in rows_of(rows)}


def _metric(found: dict[tuple[str, str], Any], r: Any, name: str, counted: bool = False) -> str:
    m = found.get((r.evaluation_id, name))
    if m is None:
        return "n/a: not measured"
    if pd.isna(m.value):
        return why_not(m.note)
    return with_interval(m.value, m.low, m.high) + (f"\nof {m.n} cases" if counted else "")


def _conformal(c: Any) -> dict[str, str]:
    if c is None:
        return dict.fromkeys(("ED missed", "abstains", "mind"), "n/a")
    missed = why_not(c.note)
    if not pd.isna(c.ed_missed):
        share = with_interval(c.ed_miss_rate, c.miss_low, c.miss_high)
        missed = f"{int(c.ed_missed)} of {int(c.ed_cases)}: {share}"
    return {
        "ED missed": f"{missed}\n(aim: {percent(c.miss_rate)} at most)",
        "abstains": with_interval(c.abstain_rate, c.abstain_low, c.abstain_high),
        "mind": "" if pd.isna(c.note) else str(c.note),
    }  # fmt: skip


def review(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment that was trained: what each score flags at the load of the vote entropy's flag, or why none does."""
    flags = query("FROM review_flag ORDER BY score DESC")
    passes: dict[Any, Any] = {
        e.evaluation_id: e
        for e in rows_of(query("SELECT evaluation_id, mc_status, mc_reason, mc_passes, cases FROM evaluation"))
    }
    rows = []
    for r in rows_of(board[~board.recipe_kind.isin(WITHOUT_DROPOUT)]):
        own: list[Any] = rows_of(flags[flags.evaluation_id == r.evaluation_id])
        e = passes[r.evaluation_id]
        on = f"{own[0].cases} of {e.cases} cases\n{int(e.mc_passes)} passes" if own else f"{e.cases} cases"
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
