"""Keeps `pair_metric` equal to what the prediction rows of all equal pairs say, the latest ones and those before."""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from tasks.runtime.errors import BadInput
from tasks.spec import LABELS
from warehouse.paired import Array, Comparison, Decided, compare, not_available

KEYS = ("base_model", "recipe", "seed", "evaluation_set", "evaluation_4bit", "evaluation_8bit")
_CODE = {label: code for code, label in enumerate(LABELS)}


def refresh(con: duckdb.DuckDBPyConnection, id: str | None = None) -> None:
    """Bring `pair_metric` up to date after training or evaluation `id` was loaded, or after the views, which may
    see other pairs now, were renewed (None). Inside the caller's transaction."""
    con.execute(
        """
        DELETE FROM pair_metric
        WHERE evaluation_4bit IN (SELECT evaluation_id FROM evaluation WHERE $id IN (evaluation_id, training_id))
           OR evaluation_8bit IN (SELECT evaluation_id FROM evaluation WHERE $id IN (evaluation_id, training_id))
           OR (evaluation_4bit, evaluation_8bit) NOT IN (SELECT (evaluation_4bit, evaluation_8bit) FROM equal_pair)
        """,
        {"id": id},
    )
    missing = con.execute(
        f"SELECT {', '.join(KEYS)} FROM equal_pair ANTI JOIN pair_metric USING (evaluation_4bit, evaluation_8bit)"
    ).fetchall()
    for pair in missing:
        _insert(con, dict(zip(KEYS, pair, strict=True)))


def _insert(con: duckdb.DuckDBPyConnection, pair: dict[str, Any]) -> None:
    cases, cost = _cases(con, pair), _cost_matrix(con, pair)
    if cases.empty:
        return  # the audit `pairs_agree` tells
    columns = [*KEYS, "rule", *(field.name for field in fields(Comparison))]
    rows = [
        [*pair.values(), rule, *astuple(figure)]
        for rule in ("primary", "argmax")
        for figure in _compared(cases, rule, cost)
    ]
    marks = ", ".join("?" * len(columns))
    con.executemany(f"INSERT INTO pair_metric ({', '.join(columns)}) VALUES ({marks})", rows)


def _cases(con: duckdb.DuckDBPyConnection, pair: dict[str, Any]) -> pd.DataFrame:
    """One row per case of the pair, in order of case_id, so that seeded resampling is repeatable."""
    return con.execute(
        """
        SELECT four.case_id, four.label, four.case_group,
               four.decision AS primary_4bit, eight.decision AS primary_8bit,
               four.argmax AS argmax_4bit, eight.argmax AS argmax_8bit
        FROM prediction AS four
        JOIN prediction AS eight USING (case_id)
        WHERE four.evaluation_id = ? AND eight.evaluation_id = ?
        ORDER BY case_id
        """,
        [pair["evaluation_4bit"], pair["evaluation_8bit"]],
    ).df()


def _compared(cases: pd.DataFrame, rule: str, cost: Array | None) -> list[Comparison]:
    if cases[[f"{rule}_4bit", f"{rule}_8bit"]].isna().any(axis=None):
        return not_available(len(cases), "the rule could not be applied on both sides")
    return compare(_decided(cases, rule), cost)


def _decided(cases: pd.DataFrame, rule: str) -> Decided:
    def codes(column: str) -> Any:
        return cases[column].map(_CODE).to_numpy(dtype=np.int64)

    grouped = bool(cases["case_group"].notna().any())
    unit = cases["case_group"].fillna("case " + cases["case_id"]) if grouped else cases["case_id"]
    units = pd.factorize(unit)[0].astype(np.int64)
    return Decided(codes("label"), codes(f"{rule}_4bit"), codes(f"{rule}_8bit"), units, grouped)


def _cost_matrix(con: duckdb.DuckDBPyConnection, pair: dict[str, Any]) -> Array | None:
    """The cost matrix (3, 3) that both evaluations name, or None where they name none or two."""
    ids = [pair["evaluation_4bit"], pair["evaluation_8bit"]]
    found = {
        text
        for (text,) in con.execute(
            "SELECT cost_matrix FROM evaluation WHERE evaluation_id IN (?, ?)", ids
        ).fetchall()
    }
    if len(found) != 1 or (text := found.pop()) is None:
        return None
    try:
        matrix = json.loads(text)
        return np.array(
            [[matrix[truth][choice] for choice in LABELS] for truth in LABELS], dtype=np.float64
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"Table evaluation: cost_matrix of {ids[0]} is not JSON of the form {{truth: {{decision: cost}}}}."
        ) from error
