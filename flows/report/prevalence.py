"""Precision and F2 restated at another share of emergencies."""

from __future__ import annotations

from typing import Any

from flows.report.figures import figure, is_missing, percent
from tasks.runtime.errors import BadInput


def at_prevalence(r: Any, prevalence: float | None) -> dict[str, str]:
    """F2 and precision of a row of evaluation_summary with their prevalence: the set's own, or restated."""
    precision, f2 = r.ed_precision, figure(r.ed_f2, r.ed_f2_low, r.ed_f2_high)
    if prevalence is not None:
        precision, value = restated(r.ed_recall, r.ed_precision, r.ed_prevalence, prevalence)
        f2 = figure(value)
    share = percent(prevalence if prevalence is not None else r.ed_prevalence)
    return {"ED F2": f2, "ED precision": f"{figure(precision)}\nof {share} ED"}


def check_prevalence(prevalence: float | None) -> None:
    """Raise BadInput for a `--prevalence` that is not between 0 and 1."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise BadInput(f"--prevalence must be between 0 and 1, e.g. 0.1 (got {prevalence:g}).")


def restated(
    recall: Any, precision: Any, prevalence: float, other: float
) -> tuple[float | None, float | None]:
    """ED precision and F2 at another prevalence, recall and the rate of false alarms unchanged (Bayes).

    None where they are not available: no emergency or nothing else in the set; precision where nothing is decided ED.
    """
    if is_missing(recall) or not 0 < prevalence < 1:
        return None, None
    if (
        is_missing(precision) or not precision
    ):  # nothing decided ED, or only wrongly: no hit at any prevalence
        return (None if is_missing(precision) else 0.0), 0.0
    alarms = (
        prevalence * recall * (1 - precision) / precision / (1 - prevalence)
    )  # per case that is no emergency
    hits, false = other * recall, (1 - other) * alarms
    return hits / (hits + false), 5 * hits / (4 * other + hits + false)
