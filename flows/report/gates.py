"""The gates of every experiment at a glance, and what training and scoring took; `triage gates`
shows one in full.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.report.figures import clock, counted, figure, gate_figure, is_number, megabytes, why_not
from flows.report.names import listed_name, on_cases, verdict
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, further_rows, typed_rows

GATES = (
    "Gates of the primary rule, on each evaluation set: state, count or value, "
    "and the 95 % bound that PASS needs; adjusted: the bound that holds for all models looked at "
    "on these cases"
)
STANDARD = (
    "Training, and what it took (validation: the recipe's own objective; MB of MLX on its machine; "
    "n/a: not trained, or no language model)"
)
FALSE_NEGATIVES = "ed_false_negative_rate"  # the gate that holds below its threshold; 1 - recall
OF_GATE = ("value", "bound", "adjusted", "by")  # columns beside the state
NAMES = {"ed_recall": "ED recall", "ed_f2": "ED F2", FALSE_NEGATIVES: "ED false negatives"}


@dataclass(frozen=True)
class GateRow:
    """A row of `gate`: one gate of one evaluation."""

    evaluation_id: str
    gate: str
    state: str
    threshold: float
    value: float | None
    bound: float | None
    successes: int | None
    n: int | None
    method: str | None
    note: str | None


@dataclass(frozen=True)
class LookRow:
    """A row of `gate_bounds`: how many models were looked at, and the bound that allows for them."""

    evaluation_id: str
    gate: str
    threshold: float
    models: int
    bound_adjusted: float | None


def looks() -> dict[tuple[str, str], LookRow]:
    """The looks behind each gate of a trained model, by evaluation and gate."""
    return {(row.evaluation_id, row.gate): row for row in typed_rows(LookRow, "gate_bounds")}


def adjusted(look: LookRow | None) -> str:
    """`0.844 for 60 models`; empty where no model was trained, so that none was picked."""
    if look is None:
        return ""
    bound = gate_figure(look.bound_adjusted, look.threshold)
    return f"{bound} for {counted(look.models, 'model')}"


def gates(board: list[EvaluationRow], ids: Collection[str] | None = None) -> ReportTable:
    """One row per evaluation of the experiments of `board`, the test set first: verdict and the
    three gates. `ids`: the evaluations of the study.
    """
    rows = typed_rows(GateRow, "gate")
    gate_rows = {(row.evaluation_id, row.gate): row for row in rows}
    limits = {row.gate: row.threshold for row in rows}
    looked = looks()
    records = [
        _gates_record(evaluation, gate_rows, limits, looked)
        for evaluation in [*board, *further_rows(board, ids)]
    ]

    return ReportTable.of(GATES, records, "distance_to_gates")


def _gates_record(
    evaluation: EvaluationRow,
    gate_rows: dict[tuple[str, str], GateRow],
    limits: dict[str, float],
    looked: dict[tuple[str, str], LookRow],
) -> dict[str, str]:
    rule = evaluation.primary_rule.replace("_", " ")
    record = {
        "experiment": on_cases(evaluation),
        "verdict": verdict(evaluation).replace("\n", " "),
        "by": rule,
    }
    for gate, words in NAMES.items():
        sign = "<=" if gate == FALSE_NEGATIVES else ">="
        key = (evaluation.evaluation_id, gate)
        cells = _gate(gate_rows.get(key), looked.get(key))
        titles = (f"{words}\n{sign} {limits.get(gate, 0):g}", *(f"{words}\n{of}" for of in OF_GATE))
        record |= dict(zip(titles, cells, strict=True))

    return record


def _gate(row: GateRow | None, look: LookRow | None) -> tuple[str, str, str, str, str]:
    """State, value, bound, the bound for all models and how bounds are computed."""
    if row is None:
        return "n/a: not judged", "n/a", "n/a", "n/a", "n/a"
    if row.state == "NOT AVAILABLE":
        return f"{row.state}: {why_not(row.note)}", "n/a", "n/a", "n/a", "n/a"

    counts = "" if row.successes is None else f"{row.successes} of {row.n} = "
    value = f"{counts}{gate_figure(row.value, row.threshold)}"
    return (
        row.state,
        value,
        gate_figure(row.bound, row.threshold),
        _adjusted(look),
        _method(row),
    )


def _adjusted(look: LookRow | None) -> str:
    return adjusted(look) if look and is_number(look.bound_adjusted) else "n/a"


def _method(row: GateRow) -> str:
    """How the bound is computed."""
    if row.method is None or row.method == "none":
        return "n/a"
    return row.method.removesuffix(" 95 %")


def standard(board: list[EvaluationRow]) -> ReportTable:
    """Per experiment: losses, time, speed and memory of its training."""
    return ReportTable.of(STANDARD, [_standard_record(row) for row in board], "training_cost")


def _standard_record(row: EvaluationRow) -> dict[str, str]:
    return {
        "experiment": listed_name(row),
        "train\nloss": figure(row.train_loss),
        "valid.\nloss": figure(row.valid_loss),
        "trained\nin": clock(row.train_seconds) if is_number(row.train_seconds) else "n/a",
        "tokens/s": figure(row.tokens_per_second, digits=0),
        "weights\nMB": megabytes(row.weights_memory_bytes),
        "peak\nMB": megabytes(row.peak_memory_bytes),
        "arithmetic": row.compute_path.replace("_", " ") if row.compute_path else "n/a",
    }
