"""The comparison as people read it: figures with their intervals, words where the data cannot tell."""

from __future__ import annotations

from typing import Any

import pandas as pd

from warehouse.query import query


def leaderboard(cells: list[str] | None = None) -> pd.DataFrame:
    """One row per experiment, best first; `cells` keeps only those cell ids."""
    frame = query("SELECT * FROM leaderboard")
    frame = frame[frame.cell_id.isin(cells)] if cells is not None else frame
    rows = [
        {
            "model": f"{r.base_model}{' (random weights)' if r.random_weights else ''}", "bits": r.bits,
            "recipe": r.recipe, "seed": r.seed, "accuracy": figure(r.accuracy, r.accuracy_low, r.accuracy_high),
            "ED recall": figure(r.ed_recall, r.ed_recall_low, r.ed_recall_high),
            "ED F2": figure(r.ed_f2, r.ed_f2_low, r.ed_f2_high), "over-triage": figure(r.over_triage),
            "test loss": figure(r.loss), "gates": r.verdict, "seconds": figure(r.train_seconds, digits=0),
        }
        for r in frame.itertuples()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def quantization(cells: list[str] | None = None) -> pd.DataFrame:
    """One row per pair of a 4-bit and an 8-bit experiment; every difference is 4 bits minus 8 bits."""
    frame = query("SELECT * FROM quantization_comparison")
    rows = []
    for r in frame.itertuples():
        if cells is not None and f"{r.base_model}-4bit-{r.recipe}-s{r.seed}" not in cells:
            continue
        rows.append(
            {
                "model": r.base_model, "recipe": r.recipe, "seed": r.seed,
                "MB 4 / 8 bit": f"{r.stored_bytes_4bit / 1e6:.1f} / {r.stored_bytes_8bit / 1e6:.1f}",
                "accuracy 4 / 8": f"{r.accuracy_4bit:.3f} / {r.accuracy_8bit:.3f}",
                "difference": figure(r.accuracy_diff, r.accuracy_low, r.accuracy_high, sign=True),
                "accuracy at 2 %": words(r.accuracy_verdict),
                "ED recall 4 / 8": f"{figure(r.ed_recall_4bit)} / {figure(r.ed_recall_8bit)}",
                "ED difference": figure(r.ed_recall_diff, r.ed_recall_low, r.ed_recall_high, sign=True),
                "ED recall at 2 %": words(r.ed_recall_verdict),
                "loss 4 / 8": f"{r.loss_4bit:.3f} / {r.loss_8bit:.3f}", "memory, time": _resources(r),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def figure(value: Any, low: Any = None, high: Any = None, digits: int = 3, sign: bool = False) -> str:
    """A figure with its 95 % interval, e.g. `0.912 [0.871, 0.944]`; `n/a` where there is none."""
    if value is None or pd.isna(value):
        return "n/a"
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return text
    return f"{text} [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"


def words(verdict: Any) -> str:
    return "cannot conclude" if verdict is None or pd.isna(verdict) else str(verdict)


def _resources(r: Any) -> str:
    if r.resources == "not measurable on this backend":
        return str(r.resources)
    peak = f"{r.peak_memory_bytes_4bit / 1e6:.0f} / {r.peak_memory_bytes_8bit / 1e6:.0f} MB"
    if pd.isna(r.train_seconds_4bit):
        return peak
    return f"{peak}, {r.train_seconds_4bit:.0f} / {r.train_seconds_8bit:.0f} s"
