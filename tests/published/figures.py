"""The figures of the READMEs' tables, cell by cell, beside the rows of `warehouse/published`.

`tables.toml` says which row of a view a line of a table shows, and which column a cell.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from tests.place import ROOT
from warehouse.comparison.crossed import in_words

FOLDER = ROOT / "warehouse" / "published"
FIRST = ("smollm2-135m", "tuned")  # what a published study without a claim shows
TABLES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("tables.toml").read_text("utf-8"))["table"]
# The rows of a study, by the name of their file; `$study` is its name.
VIEWS = {
    "leaderboard": "FROM leaderboard_of(evaluations_of($study))",
    "quantization_comparison": "FROM quantization_comparison_of(evaluations_of($study))",
    "quantization_summary": "FROM quantization_summary_of(evaluations_of($study))",
    "gate_bounds": "FROM gate_bounds WHERE list_contains(evaluations_of($study), evaluation_id)",
    "variant": "FROM variant",
}
_WIDE = """
CREATE TABLE {name} AS PIVOT ({rows}) ON rule || '_' || metric
USING first(value) AS value, first(low) AS low, first(high) AS high
"""
# A row per model with columns such as argmax_accuracy_value, argmax_accuracy_low and argmax_accuracy_high.
WIDE = {
    "by_rule": """
SELECT recipe, seed, precision, rule, metric, value, low, high
FROM leaderboard JOIN metric USING (evaluation_id)
""",
    "beside_linear": """
SELECT recipe, precision, rule, metric, difference AS value, low, high FROM linear_comparison
UNION ALL
SELECT 'linear', NULL, rule, metric, linear_value, NULL, NULL FROM linear_comparison
""",
    "moved_adapters": """
SELECT adapter, precision, bytes_ratio, rule, metric, difference AS value, low, high FROM adapters
WHERE low IS NOT NULL  -- the ranking is that of the same weights
""",
    "decided_together": "SELECT pool, other, rule, metric, difference AS value, low, high FROM together",
}
SHOWN = {"stored_megabytes": "stored_bytes / 1e6"}  # what a README shows in another unit than the view
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class ReadmeFigure:
    """A cell of a README's table, and the numbers or the word that the published rows give."""

    where: str
    shown: str
    expected: str | None

    @property
    def agrees(self) -> bool:
        return self.shown == self.expected


def figures(root: Path = ROOT) -> Iterator[ReadmeFigure]:
    """Every figure of the tables that `tables.toml` names. Raises ValueError where a table, line or column is missing."""
    for entry in TABLES:
        with duckdb.connect(":memory:") as con:
            for path in (FOLDER / entry["study"]).glob("*.parquet"):
                con.execute(f"CREATE TABLE {path.stem} AS FROM read_parquet('{path}')")
            if entry["rows_of"] in WIDE:
                metrics = FOLDER / entry["study"] / "landing" / "**" / "metric.parquet"  # in a pack for each seed
                con.execute(f"CREATE VIEW metric AS FROM read_parquet('{metrics}')")
                con.execute(_WIDE.format(name=entry["rows_of"], rows=WIDE[entry["rows_of"]]))

            table = read_table(root / entry["file"], entry["first_column"], set(entry["columns"]))
            if different := sorted(set(entry["rows"]) ^ set(table)):
                raise ValueError(
                    f"{entry['file']}, table {entry['first_column']!r}: the line {different[0]!r} is not both there and "
                    "in tables.toml."
                )

            for line, condition in entry["rows"].items():
                for column, name in entry["columns"].items():
                    cell = table[line][column]
                    where = f"{entry['file']}, {line}, {column}"
                    yield ReadmeFigure(where, normal(cell), published(con, entry["rows_of"], condition, name, cell))


def read_table(path: Path, first: str, columns: set[str]) -> dict[str, dict[str, str]]:
    """Cells by line and column of the table whose head begins with `first` and has `columns`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        head = cells_of(line)
        if head[:1] == [first] and columns <= set(head):
            body = lines[place + 2 :]
            end = next((i for i, text in enumerate(body) if not text.startswith("|")), len(body))
            rows = [cells_of(text) for text in body[:end]]
            return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}

    raise ValueError(f"{path.name} has no table with the columns {first}, {', '.join(sorted(columns))}.")


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def normal(cell: str) -> str:
    """The numbers of a cell without decoration, or its words, e.g. `-0.278 -0.415 -0.150`."""
    return " ".join(numbers_of(cell)) or cell.strip("`")


def numbers_of(cell: str) -> list[str]:
    """None in words: `cannot conclude: 1 more seed`."""
    return NUMBER.findall(cell) if NUMBER.match(cell) else []


def published(con: duckdb.DuckDBPyConnection, view: str, condition: str, name: str, cell: str) -> str | None:
    """What the published rows give for a cell, in as many digits and numbers as it shows."""
    if name == "in_words":
        found = con.sql(f"FROM {view} WHERE {condition}").fetchdf().replace({float("nan"): None})
        return in_words(SimpleNamespace(**found.iloc[0])) if len(found) == 1 else None

    numbers = numbers_of(cell)
    base = name.removesuffix("_diff").removesuffix("_value")
    selected = name.split(", ")
    if len(selected) == 1:
        selected = [SHOWN.get(name, name), f"{base}_low", f"{base}_high"][: max(len(numbers), 1)]

    rows = con.execute(f"SELECT {', '.join(selected)} FROM {view} WHERE {condition}").fetchall()
    if len(rows) != 1:
        return None
    return " ".join(as_shown(value, number) for value, number in zip(rows[0], [*numbers, ""], strict=False))


def as_shown(value: object, number: str) -> str:
    """A value as the README writes numbers: its digits, and a sign where it has one."""
    if value is None:
        return ""
    if not isinstance(value, float | int):
        return str(value)
    digits = len(number.partition(".")[2])
    sign = "+" if number.startswith(("+", "-")) else ""
    return f"{value:{sign}.{digits}f}"
