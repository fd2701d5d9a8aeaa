"""Seeded studies of a pair that is not measured yet, and how often each verdict is given on them.

The studies come from a pair in the warehouse, or from assumed behaviour, and are judged by the
functions that give a finished pair its verdict.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from tasks.corpus.case import Case, from_json
from tasks.corpus.splits import limited
from tasks.corpus.vignettes.generator import planned_labels
from tasks.judging.point_metrics import Floats, Ints, accuracy, macro_f1, recall
from tasks.judging.study_draws import (
    CELLS,
    Behaviour,
    PlannedSet,
    difference_of,
    differences_of,
    draw_studies,
    shift_to,
    shifted,
)
from tasks.spec import LABELS, Grid
from warehouse.comparison.verdicts import VerdictShares, verdict_shares

SEED = 42
STUDIES = 1000
SEARCHED = 400  # of them, to find a difference or a size
FEWEST = 100
GROUPS_OF_ALL = 250_000  # of all studies together: with many groups fewer are drawn
RESAMPLES = 500  # of each study; a finished pair gets more, which changes few verdicts
LABELS_OF = {"accuracy": (0, 1, 2), "ed_recall": (0,), "macro_f1": (0, 1, 2)}


def planned_set(grid: Grid, cases: Path | None = None) -> PlannedSet | None:
    """How many test cases of which label a grid has in which group; None where its source does not
    answer. `cases`: see plan.planned_cases.

    Embedded cases are counted without their texts: within limits those of each label are exact, and
    which groups they are of nearly so.
    """
    data = grid.data
    if cases is not None:
        with (cases / "test.jsonl").open(encoding="utf-8") as lines:
            test = [from_json(line) for line in lines]
    elif data.source == "embedded":
        labels = planned_labels("test", data.seed, data.shares, data.sizes)
        test = [
            Case(f"test-{number}", f"test-{number}", label, problem)
            for number, (problem, label) in enumerate(labels)
        ]
        test = limited(test, data.limits.get("test", len(test)), data.seed)
    else:
        return None

    truth = np.array([LABELS.index(case.label) for case in test], dtype=np.int64)
    return PlannedSet.of(truth, [case.group for case in test], [case.case_id for case in test])


def ed_recall(tables: Floats) -> Floats:
    """Recall of ED of confusion tables (..., 3, 3)."""
    return np.asarray(recall(tables)[..., 0])


VALUES = {"accuracy": accuracy, "ed_recall": ed_recall, "macro_f1": macro_f1}


class Studies:
    """Studies of a planned set, and of sets of other sizes, in which two models behave in one way.

    The same draws serve every metric and true difference. `planned.with_cases(1.5)` is another set
    at every call, so sizes come from `with_cases` and `with_groups` of this class.
    """

    def __init__(self, behaviour: Behaviour, planned: PlannedSet) -> None:
        self.behaviour = behaviour
        self.planned = planned
        self.with_cases = cache(planned.with_cases)
        self.with_groups = cache(planned.with_groups)
        self._drawn = lru_cache(maxsize=4)(self._draw)

    def measured(self, metric: str) -> float | None:
        """The difference that the pair in the warehouse shows, None without a pair."""
        if self.behaviour.stored is None:
            return None
        return difference_of(self.behaviour.cells(self.planned), VALUES[metric])

    def shares(
        self,
        metric: str,
        difference: float | None,
        planned: PlannedSet | None = None,
        most: int | None = None,
    ) -> VerdictShares | None:
        """How often each verdict is given at a true difference, None: at the measured one.

        `most`: studies, at most, for a search. None where decisions cannot differ as much.
        """
        planned = planned or self.planned
        kernel: Floats | None = np.eye(CELLS)
        if difference is not None:
            cells = self.behaviour.cells(planned)
            kernel = shift_to(difference, cells, VALUES[metric], LABELS_OF[metric])
        if kernel is None:
            return None
        # Another stream than that of the draws, and the same one for every difference.
        studies = shifted(self._drawn(planned)[:most], kernel, np.random.default_rng(SEED + 1))
        return verdict_shares(metric, studies, planned.grouped, RESAMPLES)

    def spread(self, metric: str, planned: PlannedSet | None = None) -> float:
        """Standard deviation, over studies, of the difference that is seen."""
        totals = self._drawn(planned or self.planned).sum(axis=1).astype(np.float64)
        return float(np.nanstd(differences_of(totals, VALUES[metric])))

    def _draw(self, planned: PlannedSet) -> Ints:
        count = STUDIES
        if planned.groups is not None:
            count = max(FEWEST, min(STUDIES, GROUPS_OF_ALL // planned.groups))
        return draw_studies(self.behaviour, planned, count, SEED)
