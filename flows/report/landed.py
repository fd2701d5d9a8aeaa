"""What experiments reached on the test set, while a sweep goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.report.figures import ed_recall_figure
from flows.report.names import verdict
from flows.report.typed_rows import typed_rows
from tasks.landing import some_results_wait
from tasks.runtime.errors import TriageError
from warehouse.connect import listed, warehouse_path

_known: dict[Path, dict[str, LandedResult]] = {}  # by warehouse and evaluation


@dataclass(frozen=True)
class LandedResult:
    """Columns of `evaluation_summary`: what a landed experiment reached on the test set."""

    evaluation_id: str
    ed_recall: float | None
    ed_recall_low: float | None
    ed_recall_high: float | None
    verdict: str
    ed_prevalence: float

    def __str__(self) -> str:
        recall = ed_recall_figure(self.ed_recall, self.ed_recall_low, self.ed_recall_high, digits=2)
        return f"ED recall {recall}  {verdict(self)}".replace("\n", " ")


def landed_results(evaluation_ids: Sequence[str]) -> list[LandedResult]:
    """The result on the test set; empty if the warehouse cannot be read at the moment.

    What had landed before the first question of this process is read at once, and each result once:
    opening the warehouse takes longer than reading it.
    """
    if some_results_wait():
        return []

    results = _known.setdefault(warehouse_path(), {})
    if missing := [id for id in evaluation_ids if id not in results]:
        which = f"AND evaluation_id IN {listed(missing)}" if results else ""
        with contextlib.suppress(TriageError):  # a sweep need not stop for figures
            view = f"evaluation_summary WHERE evaluation_set = 'test' {which}"
            results.update({row.evaluation_id: row for row in typed_rows(LandedResult, view)})

    return [results[id] for id in evaluation_ids if id in results]
