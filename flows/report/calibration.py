"""Calibration and conformal sets of every evaluation set, as tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.report.figures import figure, percent, rows_of, stacked, why_not, with_interval
from flows.report.names import experiment_name
from warehouse.query import query

CALIBRATION = (
    "Can the probabilities be trusted? Likelihood and calibration on the test set; brackets: 95 %"
)


SETS = "Conformal sets (at most so many emergencies missed on average), and answers as the model writes them"


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
