"""Precision and F2 restated at another share of emergencies."""

from __future__ import annotations

from typing import NamedTuple

from flows.report.figures import figure, is_number, percent
from flows.report.typed_rows import EvaluationRow
from tasks.runtime.errors import BadInput

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
