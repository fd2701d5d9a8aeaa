"""The comparison as people read it: figures with their intervals, words where the data cannot tell."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.display import clock
from warehouse.query import query

RANDOM = " (random weights)"
NOT_A_DEVICE = "Research software, not a medical device; synthetic cases are no evidence about patients."


def leaderboard(cells: list[str] | None = None) -> pd.DataFrame:
    """One row per experiment, best first; `cells` keeps only those cell ids. The interval is a cell's second line."""
    frame = query("SELECT * FROM leaderboard")
    frame = frame[frame.cell_id.isin(cells)] if cells is not None else frame
    rows = [
        {
            "experiment": f"{r.base_model} {r.bits}bit\n{r.recipe} s{r.seed}{RANDOM if r.random_weights else ''}",
            "accuracy": figure(r.accuracy, r.accuracy_low, r.accuracy_high),
            "ED recall": figure(r.ed_recall, r.ed_recall_low, r.ed_recall_high),
            "ED F2": figure(r.ed_f2, r.ed_f2_low, r.ed_f2_high),
            "over-triage": figure(r.over_triage, r.over_triage_low, r.over_triage_high),
            "test loss": figure(r.test_loss), "gates": r.verdict, "trained in": clock(r.train_seconds),
        }
        for r in _records(frame)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def quantization(cells: list[str] | None = None) -> pd.DataFrame:
    """One row per pair of a 4-bit and an 8-bit experiment; every difference is 4 bits minus 8 bits."""
    frame = query("SELECT * FROM quantization_comparison")
    rows = [
        {
            "pair": f"{r.base_model}\n{r.recipe} s{r.seed}{RANDOM if r.random_weights else ''}",
            "MB": both(r.stored_bytes_4bit / 1e6, r.stored_bytes_8bit / 1e6, 1),
            "accuracy": both(r.accuracy_4bit, r.accuracy_8bit),
            "difference": figure(r.accuracy_diff, r.accuracy_low, r.accuracy_high, sign=True),
            "within 2 %?": words(r.accuracy_verdict), "ED recall": both(r.ed_recall_4bit, r.ed_recall_8bit),
            "ED difference": figure(r.ed_recall_diff, r.ed_recall_low, r.ed_recall_high, sign=True),
            "ED within 2 %?": words(r.ed_recall_verdict), "test loss": both(r.loss_4bit, r.loss_8bit),
            "memory, time": _resources(r),
        }
        for r in _records(frame)
        if cells is None or f"{r.base_model}-4bit-{r.recipe}-s{r.seed}" in cells
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _records(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples())


def figure(value: Any, low: Any = None, high: Any = None, digits: int = 3, sign: bool = False) -> str:
    """A figure with its 95 % interval, e.g. `0.912` and below it `0.871 to 0.944`; `n/a` where there is none."""
    if value is None or pd.isna(value):
        return "n/a"
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return text
    return f"{text}\n{low:{plus}.{digits}f} to {high:{plus}.{digits}f}"


def both(four: Any, eight: Any, digits: int = 3) -> str:
    """The 4-bit and the 8-bit figure."""
    return f"{figure(four, digits=digits)}\n{figure(eight, digits=digits)}"


def words(verdict: Any) -> str:
    return "cannot conclude" if verdict is None or pd.isna(verdict) else str(verdict)


def _resources(r: Any) -> str:
    if r.resources == "not measurable on this backend":
        return str(r.resources)
    lines = [f"{getattr(r, f'peak_memory_bytes_{bits}') / 1e6:.0f} MB" for bits in ("4bit", "8bit")]
    if not pd.isna(r.train_seconds_4bit):
        lines = [
            f"{line}, {getattr(r, f'train_seconds_{bits}'):.0f} s"
            for line, bits in zip(lines, ("4bit", "8bit"), strict=True)
        ]
    return "\n".join(lines)
