"""Rows of the warehouse as objects, without pandas."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from types import SimpleNamespace
from typing import Any, TypeVar

from warehouse.connect import listed
from warehouse.query import Rows, query_rows

TRAINED = ("standard", "safety")
Kind = TypeVar("Kind")


class Row(SimpleNamespace):
    """A row of a table, a view or a query: its columns as attributes; None where there is no
    figure. In `leaderboard` and `evaluation_summary` it is an evaluation under its primary rule,
    whose `precision` is None for a baseline without a language model.
    """

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


def rows_of(clauses: str, only: Collection[str] | None = None) -> list[Row]:
    """Rows of `FROM <clauses>`, e.g. "gate WHERE n > 10".

    `only`: ids of evaluations; views show these, and no others. Raises BadInput where there is no
    warehouse yet.
    """
    return as_rows(query_rows(f"SELECT * FROM {clauses}", only=only))


def as_rows(result: Rows) -> list[Row]:
    """What a query answers."""
    return [Row(**dict(zip(result.columns, row, strict=True))) for row in result.rows]


def grouped(rows: Iterable[Kind], key: Callable[[Kind], Any]) -> dict[Any, list[Kind]]:
    """The rows of each key, in their order."""
    groups: dict[Any, list[Kind]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


Board = Collection[Row]  # evaluations in the leaderboard's order
Ids = Collection[str] | None  # of the evaluations that views show; None: of all


def leaderboard_rows(only: Ids = None) -> list[Row]:
    """The latest evaluation of each experiment on the test set, or those of `only`, in the
    leaderboard's order.
    """
    return rows_of("leaderboard", only)


def further_rows(board: Board, ids: Ids = None) -> list[Row]:
    """The latest evaluation of each training of `board` on each further evaluation set, by set and
    time. `ids`: of these evaluations alone, which are those of a study.
    """
    trainings = listed({row.training_id for row in board})
    clauses = (
        f"evaluation_summary WHERE evaluation_set <> 'test' AND training_id IN {trainings} "
        "QUALIFY row_number() OVER (PARTITION BY evaluation_set, training_id "
        "ORDER BY created_at DESC) = 1 ORDER BY evaluation_set, created_at, evaluation_id"
    )
    return rows_of(clauses, ids)


def metrics_named(names: Collection[str]) -> dict[tuple[str, str, str], Row]:
    """Rows of `metric` with these names, by evaluation, rule and metric."""
    rows = rows_of(f"metric WHERE metric IN {listed(names)}")
    return {(row.evaluation_id, row.rule, row.metric): row for row in rows}
