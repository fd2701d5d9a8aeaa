"""The test set of a study before anything is prepared: how many cases
of which label in which group.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.corpus.case import Case, from_json
from tasks.corpus.splits import limited
from tasks.corpus.vignettes.generator import planned_labels
from tasks.judging.paired_cells import PlannedSet
from tasks.spec import LABELS, Data, Grid


def planned_set(grid: Grid, cases: Path | None = None) -> PlannedSet | None:
    """The grid's test set; None where its source does not answer. `cases`: see plan.planned_cases."""
    if cases is not None:
        with (cases / "test.jsonl").open(encoding="utf-8") as lines:
            return _counted([from_json(line) for line in lines])
    return _counted(_embedded_cases(grid.data)) if grid.data.source == "embedded" else None


def _embedded_cases(data: Data) -> list[Case]:
    """Cases without their texts. Within limits the cases of each label are exact, and which groups
    they are of nearly so.
    """
    labels = planned_labels("test", data.seed, data.shares, data.sizes)
    cases = [
        Case(f"test-{number}", f"test-{number}", label, problem)
        for number, (problem, label) in enumerate(labels)
    ]
    return limited(cases, data.limits.get("test", len(cases)), data.seed)


def _counted(cases: list[Case]) -> PlannedSet:
    truth = np.array([LABELS.index(case.label) for case in cases], dtype=np.int64)
    return PlannedSet.of(truth, [case.group for case in cases], [case.case_id for case in cases])
