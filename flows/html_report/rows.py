"""Rows of named queries, narrowed to the evaluations of a report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Protocol, TypeVar

from warehouse.cookbook import named_query
from warehouse.query import query_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def named_rows(cls: type[Row], name: str, only: Collection[str], **values: str) -> list[Row]:
    """What `triage sql NAME` answers about these evaluations; the fields of `cls` are the columns
    that are read, `values` those of the query's parameters.
    """
    stored_query = named_query(name)
    columns = ", ".join(f'"{field.name}"' for field in fields(cls))
    statement = stored_query.sql.rstrip().removesuffix(";")
    sql = f"SELECT {columns} FROM (\n{statement}\n) AS named"
    return [cls(*row) for row in query_rows(sql, stored_query.values(values), only=only).rows]


Key = tuple[str, str | None, str, int]


class OfExperiment(Protocol):
    """A row that says which experiment it is of."""

    @property
    def base_model(self) -> str: ...
    @property
    def precision(self) -> str | None: ...
    @property
    def recipe(self) -> str: ...
    @property
    def seed(self) -> int: ...


Named = TypeVar("Named", bound=OfExperiment)


def experiment_key(row: OfExperiment) -> Key:
    """Tells the experiments of one test set apart, in the rows of every named query."""
    return row.base_model, row.precision, row.recipe, row.seed


def by_experiment(rows: Collection[Named]) -> dict[Key, list[Named]]:
    """The rows of each experiment, in their order."""
    groups: dict[Key, list[Named]] = {}
    for row in rows:
        groups.setdefault(experiment_key(row), []).append(row)
    return groups
