"""The gates of every experiment at a glance, and what training and scoring took; `triage gates` has one in full."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.report.figures import clock, figure, rows_of, stacked, why_not
from flows.report.names import experiment_name, on_cases, verdict
from warehouse.query import query

GATES = "Gates of the primary rule, on each evaluation set: state, count or value, and the 95 % bound that PASS needs"
STANDARD = (
    "Training, test loss and what it took (validation: the recipe's own objective; MB of MLX on its machine; n/a: not "
    "trained, or no language model)"
)
NAMES = {"ed_recall": "ED recall", "ed_f2": "ED F2", "ed_false_negative_rate": "ED false negatives"}


def gates(board: pd.DataFrame) -> pd.DataFrame:
    """One row per evaluation of the experiments of `board`, the test set first: verdict and the three gates."""
    found = query("FROM gate")
    known = {(g.evaluation_id, g.gate): g for g in rows_of(found)}
    limits = {g.gate: g.threshold for g in rows_of(found)}
    rows = []
    for r in rows_of(evaluations(board)):
        record = {"verdict": f"{verdict(r)}\nby {r.primary_rule.replace('_', ' ')}"}
        for gate, words in NAMES.items():
            sign = "<=" if gate == "ed_false_negative_rate" else ">="
            record[f"{words} {sign} {limits.get(gate, 0):g}"] = _gate(
                known.get((r.evaluation_id, gate))
            )
        rows.append(stacked({"experiment": on_cases(r)}, [record]))
    return pd.DataFrame(rows)


def evaluations(board: pd.DataFrame) -> pd.DataFrame:
    """The evaluations of `board`, then the latest of the same trainings on each further evaluation set."""
    others = query(
        "SELECT * FROM evaluation_summary WHERE evaluation_set <> 'test' ORDER BY evaluation_set, created_at"
    )
    others = others[others.training_id.isin(set(board.training_id))]
    others = others.drop_duplicates(["evaluation_set", "training_id"], keep="last")
    return pd.concat([board, others[board.columns]]) if len(others) else board


def _gate(g: Any) -> str:
    if g is None:
        return "n/a: not judged"
    if g.state == "NOT AVAILABLE":
        return f"{g.state}\n{why_not(g.note)}"
    counts = "" if pd.isna(g.successes) else f"{int(g.successes)} of {int(g.n)} = "
    bound = "no bound" if pd.isna(g.bound) else f"bound {figure(g.bound)}"
    same = g.method == "none" or g.gate == "ed_false_negative_rate"  # 1 - recall: the same evidence
    method = "" if same else f"\n{g.method.removesuffix(' 95 %')}"
    return f"{g.state}\n{counts}{figure(g.value)}\n{bound}{method}"


def standard(board: pd.DataFrame) -> pd.DataFrame:
    """Per experiment of `board`: losses, perplexity, accuracy of argmax, time, speed and memory of its training."""
    return pd.DataFrame([_standard(r) for r in rows_of(board)])


def _standard(r: Any) -> dict[str, str]:
    record = {
        "train\nloss": figure(r.train_loss), "valid.\nloss": figure(r.valid_loss),
        "test loss,\nperplexity": f"{figure(r.test_loss)}\n{figure(r.perplexity, digits=2)}",
        "accuracy": figure(r.accuracy), "trained\nin": "n/a" if pd.isna(r.train_seconds) else clock(r.train_seconds),
        "tokens/s": figure(r.tokens_per_second, digits=0), "weights\nMB": _megabytes(r.weights_memory_bytes),
        "peak\nMB": _megabytes(r.peak_memory_bytes), "arithmetic": _words(r.compute_path),
    }  # fmt: skip
    return stacked({"experiment": experiment_name(r)}, [record], widest=11)


def _megabytes(count: Any) -> str:
    return "n/a" if pd.isna(count) else f"{count / 1e6:.0f}"


def _words(path: Any) -> str:
    return "n/a" if pd.isna(path) else str(path).replace("_", " ")
