"""Decisions of a model on the cases of a set, and what sets two models apart: differences paired by
case, with intervals over whole conditions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.judging.inputs import label_codes
from tasks.judging.intervals import clustered_bootstrap
from tasks.judging.point_metrics import Floats, confusion_cells, metric_values
from tasks.spec import LABELS


class ModelDifference(NamedTuple):
    """One model minus another, with the bounds of its 95 % interval where there is one."""

    point: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Decided:
    """The most probable label of each case of a set, by case id; all with the same labels and
    groups.
    """

    labels: dict[str, str]
    groups: dict[str, str | None]
    decisions: dict[str, str]

    def figures(self) -> dict[str, Any]:
        """The metrics by name."""
        return _figures(_tables(self))


@dataclass(frozen=True)
class CaseRow:
    """A row of `prediction`; `case_group` is None for a case without a group."""

    evaluation_id: str
    case_id: str
    case_group: str | None
    label: str
    argmax: str


def decided_of(cases: Iterable[CaseRow]) -> Decided:
    """The prediction rows of one evaluation by case."""
    cases = list(cases)
    return Decided(
        labels={case.case_id: case.label for case in cases},
        groups={case.case_id: case.case_group for case in cases},
        decisions={case.case_id: case.argmax for case in cases},
    )


def best_constant(decided: Decided) -> tuple[str, Decided]:
    """The one label whose constant answer has the highest macro-F1 on these cases, and its
    decisions.
    """
    constants = {
        label: Decided(decided.labels, decided.groups, dict.fromkeys(decided.labels, label))
        for label in LABELS
    }
    label = max(constants, key=lambda name: float(constants[name].figures()["macro_f1"]))
    return label, constants[label]


def difference(metric: str, model: Decided, baseline: Decided) -> ModelDifference:
    """Model minus baseline with a paired bootstrap interval that resamples whole conditions."""
    of_model = _tables(model)
    of_baseline = _tables(baseline, list(model.labels))

    def statistic(totals: Floats) -> Floats:
        of_model, of_baseline = (
            metric_values(part.reshape(-1, 3, 3))[metric] for part in (totals[:, :9], totals[:, 9:])
        )
        return of_model - of_baseline

    point = float(_figures(of_model)[metric] - _figures(of_baseline)[metric])
    groups = [model.groups[id] for id in model.labels]
    bounds = clustered_bootstrap(statistic, of_model, of_baseline, groups=groups, seed=0)
    return ModelDifference(point, *(bounds or (None, None)))


def _tables(decided: Decided, ids: list[str] | None = None) -> Floats:
    """Each case's own confusion table, shape (cases, 9)."""
    order = ids or list(decided.labels)
    truth = label_codes([decided.labels[id] for id in order])
    return confusion_cells(truth, label_codes([decided.decisions[id] for id in order]))


def _figures(tables: Floats) -> dict[str, Any]:
    return metric_values(tables.sum(0).reshape(3, 3))
