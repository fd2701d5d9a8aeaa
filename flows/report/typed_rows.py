"""Rows of the warehouse as objects of a dataclass, without pandas."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from warehouse.connect import listed
from warehouse.query import query_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
TRAINED = ("standard", "safety")


def typed_rows(cls: type[Row], clauses: str, only: Collection[str] | None = None) -> list[Row]:
    """Rows of `FROM <clauses>`, e.g. "gate WHERE n > 10"; the fields of `cls` are the columns that
    are read.

    `only`: ids of evaluations; views show these, and no others. Raises BadInput where there is no
    warehouse yet.
    """
    columns = ", ".join(f'"{field.name}"' for field in fields(cls))
    return [cls(*row) for row in query_rows(f"SELECT {columns} FROM {clauses}", only=only).rows]


@dataclass(frozen=True)
class EvaluationRow:
    """A row of `leaderboard` or `evaluation_summary`: an evaluation under its primary rule.

    `precision` is None for a baseline without a language model; a figure
    is None where it has no value.
    """

    evaluation_id: str
    training_id: str
    cell_id: str
    base_model: str
    precision: str | None
    recipe: str
    recipe_kind: str
    seed: int
    random_weights: bool | None
    evaluation_set: str
    set_digest: str
    dataset_digest: str | None
    settings_digest: str | None
    cases: int
    ed_prevalence: float
    primary_rule: str
    target_ed_recall: float | None
    cost_matrix: str | None
    verdict: str
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    macro_f1: float | None
    ed_recall: float | None
    ed_recall_low: float | None
    ed_recall_high: float | None
    ed_precision: float | None
    ed_f2: float | None
    ed_f2_low: float | None
    ed_f2_high: float | None
    over_triage: float | None
    over_triage_low: float | None
    over_triage_high: float | None
    train_loss: float | None
    valid_loss: float | None
    test_loss: float | None
    perplexity: float | None
    train_seconds: float | None
    tokens_per_second: float | None
    weights_memory_bytes: int | None
    peak_memory_bytes: int | None
    compute_path: str | None
    stored_bytes: int | None
    finished_at: datetime | None

    @property
    def emergencies(self) -> int:
        """Number of emergencies among its cases."""
        return round(self.cases * self.ed_prevalence)

    @property
    def is_trained(self) -> bool:
        """Whether it is the model of a training: no baseline, and no adapter moved from another
        precision, which would count a training more than once.
        """
        return self.recipe_kind in TRAINED


def leaderboard_rows(only: Collection[str] | None = None) -> list[EvaluationRow]:
    """The latest evaluation of each experiment on the test set, or those of `only`, in the
    leaderboard's order.
    """
    return typed_rows(EvaluationRow, "leaderboard", only=only)


def further_rows(
    board: Collection[EvaluationRow], ids: Collection[str] | None = None
) -> list[EvaluationRow]:
    """The latest evaluation of each training of `board` on each further evaluation set, by set and
    time. `ids`: of these evaluations alone, which are those of a study.
    """
    clauses = (
        "evaluation_summary WHERE evaluation_set <> 'test' ORDER BY evaluation_set, created_at"
    )
    trainings = {row.training_id for row in board}
    rows = [
        row for row in typed_rows(EvaluationRow, clauses, only=ids) if row.training_id in trainings
    ]
    latest = {(row.evaluation_set, row.training_id): row for row in rows}

    return [row for row in rows if latest[row.evaluation_set, row.training_id] is row]


@dataclass(frozen=True)
class MetricRow:
    """A row of `metric`: one figure of one decision rule; `note` says why `value` is None."""

    evaluation_id: str
    rule: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    note: str | None


def metrics_named(names: Collection[str]) -> dict[tuple[str, str, str], MetricRow]:
    """Rows of `metric` with these names, by evaluation, rule and metric."""
    rows = typed_rows(MetricRow, f"metric WHERE metric IN {listed(names)}")
    return {(row.evaluation_id, row.rule, row.metric): row for row in rows}
