"""Pairs of a 4-bit and an 8-bit experiment, as a table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from flows.report.figures import figure, rows_of
from flows.report.names import random_mark
from warehouse.query import query


def quantization(only: Collection[str] | None = None) -> pd.DataFrame:
    """One row per pair of a 4-bit and an 8-bit experiment; every difference is 4 bits minus 8 bits."""
    rows = [
        {
            "pair": _pair(r),
            "MB": both(r.stored_bytes_4bit / 1e6, r.stored_bytes_8bit / 1e6, 1),
            "accuracy": both(r.accuracy_4bit, r.accuracy_8bit),
            "difference": figure(r.accuracy_diff, r.accuracy_low, r.accuracy_high, sign=True),
            "within 2 %?": words(r.accuracy_verdict), "ED recall": both(r.ed_recall_4bit, r.ed_recall_8bit),
            "ED difference": figure(r.ed_recall_diff, r.ed_recall_low, r.ed_recall_high, sign=True),
            "ED within 2 %?": words(r.ed_recall_verdict), "test loss": both(r.loss_4bit, r.loss_8bit),
            "memory, time": _resources(r),
        }
        for r in rows_of(query("SELECT * FROM quantization_comparison", only=only))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _pair(r: Any) -> str:
    return f"{r.base_model}\n{r.recipe} s{r.seed}{random_mark(r)}"


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
