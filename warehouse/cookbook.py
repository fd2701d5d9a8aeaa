"""The cookbook: named questions, one SQL file of `queries/` each, with parameters and defaults.

A file begins with one line of explanation, and a line for each parameter:

    -- Which adapters pass the gates at 8 bits and not at 4?
    -- $base_model TEXT = NULL: only this base model
    -- $precision TEXT = 4bit of leaderboard: a value that stands in this view
    -- 0 rows: why there may be none
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.runtime.errors import BadInput
from warehouse.query import query_rows
from warehouse.schema import SqlFile, sql_files

Value = str | int | float | datetime | None
_PARAMETER = re.compile(r"-- \$(\w+) (\w+) = (.+?)(?: of (\w+))?: (.+)")
_NO_ROWS = "-- 0 rows: "


def _utc(text: str) -> datetime:
    """The time of a text in UTC without zone, as columns have it; one without zone is in UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


_FORMS: dict[str, tuple[Callable[[str], Value], str]] = {
    "TEXT": (str, "text"),
    "INTEGER": (int, "a whole number"),
    "DOUBLE": (float, "a number"),
    "TIMESTAMP": (_utc, "a date or time such as 2026-01-31"),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a named query: a type of _FORMS, its default as text, and its meaning.

    `view`: has a column of its name, in which its values stand.
    """

    name: str
    type: str
    default: str
    view: str | None
    meaning: str

    def value(self, text: str) -> Value:
        """The value that a text stands for; NULL is none. Raises BadInput."""
        if text.upper() == "NULL":
            return None

        read, form = _FORMS[self.type]
        try:
            return read(text)
        except ValueError as error:
            raise BadInput(
                f"--param {self.name}={text}: {self.name} is {form}, or NULL."
            ) from error

    def __str__(self) -> str:
        return f"--param {self.name}={self.default}  {self.meaning}"


@dataclass(frozen=True)
class NamedQuery:
    """A question with a name, a line of explanation, and the SQL that answers it.

    `no_rows`: why there may be none.
    """

    name: str
    explanation: str
    parameters: tuple[Parameter, ...]
    sql: str
    no_rows: str | None = None

    def check_values(self, values: Mapping[str, object]) -> None:
        """Raise BadInput, with the values that there are, for one that stands in no row of its view."""
        for parameter in self.parameters:
            name = parameter.name
            value = values[name]
            if parameter.view is None or value is None:
                continue
            sql = (
                f"SELECT DISTINCT {name} FROM {parameter.view} WHERE {name} IS NOT NULL ORDER BY 1"
            )
            known_values = [str(row[0]) for row in query_rows(sql).rows]
            if str(value) not in known_values:
                raise BadInput(
                    f"--param {name}={value}: the warehouse has no {name} {str(value)!r}; it has "
                    f"{', '.join(known_values) or 'none yet'}."
                )

    def values(self, assigned: Mapping[str, str]) -> dict[str, object]:
        """The value of every parameter: as assigned, else its default. Raises BadInput."""
        names = [parameter.name for parameter in self.parameters]
        for name in assigned:
            if name not in names:
                has = f"it has {', '.join(names) or 'none'}"
                raise BadInput(f"The query {self.name} has no parameter {name!r}; {has}.")
        return {
            parameter.name: parameter.value(assigned.get(parameter.name, parameter.default))
            for parameter in self.parameters
        }


def cookbook() -> list[NamedQuery]:
    """Every named query, by name."""
    return [_read(file) for file in sql_files("queries")]


def named_query(name: str) -> NamedQuery:
    """The query with this name. Raises BadInput with the nearest ones."""
    by_name = {query.name: query for query in cookbook()}
    plain = name.lower().replace("-", "_")
    if plain in by_name:
        return by_name[plain]

    near = difflib.get_close_matches(plain, by_name, n=2, cutoff=0.5)
    offered = f"did you mean {' or '.join(near)}? " if near else ""
    raise BadInput(
        f"There is no query named {name!r}; {offered}triage sql --list has all of them, and "
        f'triage sql "FROM {name}" shows a table or view.'
    )


def is_name(text: str) -> bool:
    """Whether a text is one word, which is no statement."""
    return re.fullmatch(r"[A-Za-z_][\w-]*", text) is not None


def assignments(texts: list[str]) -> dict[str, str]:
    """Values by name, from texts such as `bits=4`. Raises BadInput."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().removeprefix("$")
        if not equals or not name.isidentifier():
            raise BadInput(f"--param {text}: give a name and a value, e.g. --param bits=4.")
        if name in values:
            raise BadInput(f"--param {name} is given twice; give it one value.")
        values[name] = value

    return values


def typed_value(text: str) -> Value:
    """What a text stands for where no type is declared: NULL, a number, or the text."""
    if text.upper() == "NULL":
        return None
    for read in (int, float):
        with contextlib.suppress(ValueError):
            return read(text)
    return text


def _read(file: SqlFile) -> NamedQuery:
    explanation, *lines = (line for line in file.text.splitlines() if line.startswith("--"))
    matches = [_PARAMETER.fullmatch(line) for line in lines]
    parameters = tuple(Parameter(*match.groups()) for match in matches if match)
    no_rows = [line.removeprefix(_NO_ROWS) for line in lines if line.startswith(_NO_ROWS)]
    return NamedQuery(file.name, explanation.removeprefix("-- "), parameters, file.text, *no_rows)
