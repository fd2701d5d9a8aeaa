"""How far figures spread between seeds of one experiment."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.report.figures import figure, percent, rows_of
from flows.report.names import random_mark
from flows.report.prevalence import restated
from warehouse.query import query

SEEDS = "Spread between seeds of one experiment: mean, and below it the standard deviation"
JUDGED = ["primary_rule", "target_ed_recall", "cost_matrix"]
SAME = ["base_model", "bits", "recipe", "random_weights", "settings_digest", "set_digest", *JUDGED]


def seeds(board: pd.DataFrame, prevalence: float | None = None) -> pd.DataFrame:
    """Mean and standard deviation over seeds, where a grid has more than one; `prevalence` restates precision and F2."""
    found = _restated_of(board, prevalence)
    rows = [
        {
            "experiment": f"{r.base_model} {r.bits}bit\n{r.recipe}{random_mark(r)}", "seeds": r.seeds,
            "accuracy": _spread(r.accuracy_mean, r.accuracy_sd), "ED recall": _spread(r.ed_recall_mean, r.ed_recall_sd),
            "worst\nED recall": figure(r.ed_recall_worst), **found[_key(r)], "passes,\nunsafe": f"{r.passes_gates}, {r.unsafe}",
        }
        for r in _of(board, "seeds")
        if _key(r) in found
    ]  # fmt: skip
    pairs = [
        {
            "experiment": f"{r.base_model} 4 minus 8 bits\n{r.recipe}{random_mark(r)}", "seeds": r.seeds,
            "accuracy": _spread(r.accuracy_diff_mean, r.accuracy_diff_sd, True),
            "ED recall": _spread(r.ed_recall_diff_mean, r.ed_recall_diff_sd, True),
            "worst\nED recall": "", "ED precision": "", "ED F2": "", "passes,\nunsafe": "",
        }
        for r in _of(board, "seed_differences")
    ]  # fmt: skip
    return pd.DataFrame(rows + pairs)


def _restated_of(
    board: pd.DataFrame, prevalence: float | None
) -> dict[tuple[str, ...], dict[str, str]]:
    """ED precision and F2 over the seeds of each experiment, at the set's own prevalence or restated seed by seed."""
    made: dict[tuple[str, ...], list[tuple[Any, Any]]] = {}
    shares = {}
    for r in rows_of(board):
        own = r.ed_precision, r.ed_f2
        if prevalence is not None:
            own = restated(r.ed_recall, r.ed_precision, r.ed_prevalence, prevalence)
        made.setdefault(_key(r), []).append(own)
        shares[_key(r)] = (
            prevalence if prevalence is not None else r.ed_prevalence
        )  # of one set, so one for all seeds
    return {
        key: _over_seeds(pd.DataFrame(own, dtype=float), shares[key]) for key, own in made.items()
    }


def _over_seeds(own: pd.DataFrame, share: float) -> dict[str, str]:
    """Precision and F2, a row per seed. A mean over some of the seeds would flatter: n/a where one of them has none."""
    mean, sd = own.mean(skipna=False), own.std(skipna=False)
    return {
        "ED precision": f"{_spread(mean[0], sd[0])}\nof {percent(share)} ED",
        "ED F2": _spread(mean[1], sd[1]),
    }


def _key(r: Any) -> tuple[str, ...]:
    """The experiment of a row. `bits` are decimals where a baseline, which has none, stands in the same column."""
    values = (getattr(r, name) for name in SAME)
    return tuple(
        "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)
        for value in values
    )


def _of(board: pd.DataFrame, view: str) -> list[Any]:
    """Rows of a view of base models and sets that are those of the board."""
    frame = query(f"FROM {view}")
    own = frame.set_digest.isin(board.set_digest) & frame.base_model.isin(board.base_model)
    return rows_of(frame[own])


def _spread(mean: Any, sd: Any, sign: bool = False) -> str:
    return f"{figure(mean, sign=sign)}\nsd {figure(sd)}"
