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
    # With line breaks, since a statement may end in a comment.
    sql = f"SELECT {columns} FROM (\n{statement}\n) AS named"
    return [cls(*row) for row in query_rows(sql, stored_query.values(values), only=only).rows]


class OfEvaluation(Protocol):
    """A row that says which evaluation it is of."""

    @property
    def evaluation_id(self) -> str: ...


Evaluated = TypeVar("Evaluated", bound=OfEvaluation)


def by_evaluation(rows: Collection[Evaluated]) -> dict[str, list[Evaluated]]:
    """The rows of each evaluation, in their order, by its id."""
    groups: dict[str, list[Evaluated]] = {}
    for row in rows:
        groups.setdefault(row.evaluation_id, []).append(row)
    return groups
