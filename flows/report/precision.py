"""What a change of precision does: decisions that flip after training, and divergence before any training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flows.report.figures import figure, rows_of
from flows.report.names import random_mark
from warehouse.query import query

FLIPS = "Decisions that flip with the precision (primary rule); harmless: from one wrong decision to another that costs no more"
FIDELITY = (
    "What quantisation alone changes, before any training: KL divergence to the reference, in nats"
)
KL = {
    "mean": "kl_mean",
    "median": "kl_median",
    "95 %": "kl_p95",
    "99 %": "kl_p99",
    "99.9 %": "kl_p999",
    "max": "kl_max",
}


def flips(board: pd.DataFrame) -> pd.DataFrame:
    """Per pair of evaluations of `board`: decisions lost and gained, their cost, and how many the review flag caught."""
    random = dict(zip(board.evaluation_id, board.random_weights, strict=True))
    found = query("FROM flips")
    found = found[
        found.evaluation_before.isin(set(random)) & found.evaluation_after.isin(set(random))
    ]
    found = found.assign(random_weights=found.evaluation_after.map(random))
    rows = [
        {
            "pair": f"{r.base_model}\n{r.recipe} s{r.seed}{random_mark(r)}\n{r.change}", "flips": f"{r.flips} of {r.cases}",
            "right to\nwrong": r.correct_to_wrong, "wrong to\nright": r.wrong_to_correct,
            "ED lost": f"{r.ed_lost} of {r.ed_cases}", "ED gained": r.ed_gained, "harmless": figure(r.harmless, digits=0),
            "cost": figure(r.flip_cost, digits=0, sign=True), "flagged": _flagged(r),
        }
        for r in rows_of(found)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _flagged(r: Any) -> str:
    if not r.dropout_cases:
        return "no dropout"
    return f"{r.flips_flagged} of {r.flips_flagged + r.flips_not_flagged}\n(of {r.dropout_cases} cases)"


def fidelity(board: pd.DataFrame) -> pd.DataFrame:
    """Per variant and distribution the latest measurement on the datasets of `board`; random weights hide no real ones."""
    frame = query(
        "SELECT f.* FROM fidelity AS f LEFT JOIN landed AS l ON l.id = f.fidelity_id "
        "ORDER BY base_model, bits, distribution DESC, coalesce(f.created_at, l.loaded_at), f.fidelity_id"
    )
    frame = frame[
        frame.base_model.isin(board.base_model) & frame.dataset_digest.isin(board.dataset_digest)
    ]
    same = ["base_model", "bits", "distribution", "dataset_digest", "random_weights"]
    frame = frame.drop_duplicates(same, keep="last")
    several = frame.dataset_digest.nunique() > 1
    rows = [
        {
            "variant": f"{r.base_model} {r.bits}bit{random_mark(r)}\nagainst {r.reference_precision}",
            "KL over": f"{r.distribution}\n{r.cases} of {r.set_cases} cases{_dataset(r) if several else ''}",
            **{name: figure(getattr(r, column), digits=5) for name, column in KL.items()},
            "same\ntop": figure(r.same_top1), "perplexity\nratio": figure(r.perplexity_ratio, digits=4),
        }
        for r in rows_of(frame)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _dataset(r: Any) -> str:
    return f"\nof dataset {str(r.dataset_digest)[:6]}"
