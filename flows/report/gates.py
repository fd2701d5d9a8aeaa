"""Gates of every experiment, the review flag, and precision at another share of emergencies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from flows.report.figures import (
    clock,
    counted,
    figure,
    gate_figure,
    is_number,
    listed_name,
    megabytes,
    on_cases,
    percent,
    stacked,
    verdict,
    why_not,
)
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, further_rows, rows_of
from tasks.runtime.errors import BadInput

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


def looks() -> dict[tuple[str, str], Row]:
    """The looks behind each gate of a trained model, by evaluation and gate."""
    return {(row.evaluation_id, row.gate): row for row in rows_of("gate_bounds")}


def adjusted(look: Row | None) -> str:
    """`0.844 for 60 models`; empty where no model was trained, so that none was picked."""
    if look is None:
        return ""
    bound = gate_figure(look.bound_adjusted, look.threshold)
    return f"{bound} for {counted(look.models, 'model')}"


def gates(board: list[EvaluationRow], ids: Collection[str] | None = None) -> ReportTable:
    """One row per evaluation of the experiments of `board`, the test set first: verdict and the
    three gates. `ids`: the evaluations of the study.
    """
    rows = rows_of("gate")
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
    gate_rows: dict[tuple[str, str], Row],
    limits: dict[str, float],
    looked: dict[tuple[str, str], Row],
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


def _gate(row: Row | None, look: Row | None) -> tuple[str, str, str, str, str]:
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


def _adjusted(look: Row | None) -> str:
    return adjusted(look) if look and is_number(look.bound_adjusted) else "n/a"


def _method(row: Row) -> str:
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


NOT_RESTATED = "; --prevalence does not apply"


class Restated(NamedTuple):
    """ED precision and F2; None where a set or a rule gives no such figure."""

    precision: float | None
    f2: float | None


def restated_note(prevalence: float | None) -> str:
    """What the title of a table adds whose precision and F2 are restated."""
    if prevalence is None:
        return ""
    return f"; precision and F2 restated at {percent(prevalence)} ED"


def not_restated_note(prevalence: float | None) -> str:
    """What the title of a table adds that another prevalence does not change."""
    return "" if prevalence is None else NOT_RESTATED


def at_prevalence(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    """The cells `ED F2` and `ED precision`, with their prevalence: the set's own, or restated."""
    if prevalence is None:
        f2 = figure(row.ed_f2, row.ed_f2_low, row.ed_f2_high, below=True)
        return {"ED F2": f2, "ED precision": _precision(row.ed_precision, row.ed_prevalence)}
    other = figures_at(row, prevalence)
    return {"ED F2": figure(other.f2), "ED precision": _precision(other.precision, prevalence)}


def _precision(precision: float | None, prevalence: float) -> str:
    return f"{figure(precision)}\nof {percent(prevalence)} ED"


def figures_at(row: EvaluationRow, prevalence: float | None) -> Restated:
    """ED precision and F2 of a row: those of its set, or restated at another prevalence."""
    if prevalence is None:
        return Restated(row.ed_precision, row.ed_f2)
    return restated(row.ed_recall, row.ed_precision, row.ed_prevalence, prevalence)


def check_prevalence(prevalence: float | None) -> None:
    """Raise BadInput for a `--prevalence` that is no share."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadInput(f"--prevalence must be between 0 and 1, e.g. 0.1 (got {prevalence:g}).")


def restated(
    recall: float | None, precision: float | None, prevalence: float, other: float
) -> Restated:
    """ED precision and F2 at the prevalence `other`, with the same recall and rate of false alarms
    (Bayes).

    None where they are not available: no emergency or nothing else in the set; precision where
    nothing is decided ED.
    """
    if not is_number(recall) or not 0 < prevalence < 1:
        return Restated(None, None)
    if not is_number(precision):  # nothing is decided ED
        return Restated(None, 0.0)
    if not precision:  # only wrongly: no hit at any prevalence
        return Restated(0.0, 0.0)

    # False alarms per case that is no emergency.
    alarms = prevalence * recall * (1 - precision) / precision / (1 - prevalence)
    hits = other * recall
    false = (1 - other) * alarms
    return Restated(hits / (hits + false), 5 * hits / (4 * other + hits + false))


REVIEW = (
    "The review flag of Monte Carlo dropout against scores of one pass at equal load; "
    "errors of the primary rule"
)
COLUMNS = (
    "score",
    "load",
    "AURC",
    "error\nkept",
    "missed ED\nflagged",
    "AURC minus\nthat of votes",
    "which\nis better",
)


def review(board: Collection[EvaluationRow]) -> ReportTable:
    """Per experiment that was trained: what each score flags, or why none does."""
    flags: dict[str, list[Row]] = defaultdict(list)
    for flag in rows_of("review_flag ORDER BY score DESC"):
        flags[flag.evaluation_id].append(flag)

    dropout = {row.evaluation_id: row for row in rows_of("evaluation")}
    records = [
        _record(row, flags[row.evaluation_id], dropout[row.evaluation_id])
        for row in board
        if row.recipe_kind != "baseline"
    ]
    return ReportTable.of(REVIEW, records, "review_load")


def _record(row: EvaluationRow, flags: list[Row], dropout: Row) -> dict[str, str]:
    basis = f"{dropout.cases} cases"
    if flags:
        basis = f"{flags[0].cases} of {dropout.cases} cases, {dropout.mc_passes} passes"
    records = [_flag(flag) for flag in flags] or [_no_flag(dropout)]
    return stacked({"experiment": f"{listed_name(row)}\n{basis}"}, records)


def _flag(flag: Row) -> dict[str, str]:
    difference = figure(flag.aurc_difference, flag.difference_low, flag.difference_high, sign=True)
    cells = (
        flag.score.replace("_", " "),
        figure(flag.load),
        figure(flag.aurc),
        figure(flag.error_kept) if is_number(flag.error_kept) else "n/a: none kept",
        _missed(flag),
        "" if flag.score == "vote_entropy" else difference,
        (flag.verdict or "").replace("_", " "),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _missed(flag: Row) -> str:
    if not flag.missed_ed:
        return "no misses"
    return f"{figure(flag.missed_ed_flagged, digits=2)} of {flag.missed_ed}"


def _no_flag(dropout: Row) -> dict[str, str]:
    """Without dropout there is no flag, and without the primary rule's decisions nothing to judge
    it by.
    """
    reason = dropout.mc_reason
    if dropout.mc_status == "available":
        reason = "the primary rule gave no decision to judge the flag by"
    sentence = f"not available: {reason}" if reason else "not available"
    return dict.fromkeys(COLUMNS, "n/a") | {"score": "", "load": sentence}
