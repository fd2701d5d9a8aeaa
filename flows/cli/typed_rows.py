"""Rows of the warehouse as objects of a dataclass, without pandas."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from warehouse.query import query_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def typed_rows(cls: type[Row], clauses: str) -> list[Row]:
    """Rows of `FROM <clauses>`, e.g. "gate WHERE n > 10"; the fields of `cls` are the columns that are read.

    Raises BadInput where there is no warehouse yet.
    """
    columns = ", ".join(field.name for field in fields(cls))
    return [cls(*row) for row in query_rows(f"SELECT {columns} FROM {clauses}").rows]


def quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
