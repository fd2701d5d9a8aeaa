"""What experiments reached on the test set, while a sweep goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.figures import figure
from flows.report.names import verdict
from flows.report.typed_rows import typed_rows
from tasks.landing import some_results_wait
from tasks.runtime.errors import TriageError
from warehouse.connect import listed


@dataclass(frozen=True)
class LandedResult:
    """Columns of `evaluation_summary`: what a landed experiment reached on the test set."""

    ed_recall: float | None
    ed_recall_low: float | None
    ed_recall_high: float | None
    verdict: str
    ed_prevalence: float

    def __str__(self) -> str:
        recall = figure(self.ed_recall, self.ed_recall_low, self.ed_recall_high, digits=2)
        return f"ED recall {recall}  {verdict(self)}".replace("\n", " ")


def landed_results(evaluation_ids: Sequence[str]) -> list[LandedResult]:
    """The result on the test set; empty if the warehouse cannot be read at the moment."""
    if some_results_wait():
        return []
    ids = listed(evaluation_ids)
    try:
        return typed_rows(
            LandedResult,
            f"evaluation_summary WHERE evaluation_set = 'test' AND evaluation_id IN {ids}",
        )
    except TriageError:  # to lack figures for a while is no reason to stop a sweep
        return []
