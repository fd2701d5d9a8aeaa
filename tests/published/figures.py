"""The figures of the READMEs' tables, cell by cell, beside the rows of `warehouse/published`.

`tables.toml` says which row of a view a line of a table shows, and which column a cell. After rows were published again,
`uv run python -m tests.published.figures` writes their figures into the tables, in the digits that each cell has.
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
import typer

from tasks.runtime.errors import BadInput
from tests.bench.common import run
from tests.place import ROOT
from warehouse.comparison.crossed import in_words

FOLDER = ROOT / "warehouse" / "published"
FIRST = ("smollm2-135m", "tuned")  # what a published study without a claim shows


def has_rows(study: Path) -> bool:
    """A study that is sealed has no rows but its packs."""
    return any(study.glob("*.parquet"))


TABLES: list[dict[str, Any]] = [
    entry
    for entry in tomllib.loads(Path(__file__).with_name("tables.toml").read_text("utf-8"))["table"]
    if has_rows(FOLDER / entry["study"])
]
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
    "decided_together": "SELECT precision, pool, other, rule, metric, difference AS value, low, high FROM together",
    "familiar_minus_new": "SELECT model, minus, rule, metric, difference AS value, low, high FROM familiar",
}
SHOWN = {"stored_megabytes": "stored_bytes / 1e6"}  # what a README shows in another unit than the view
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class ReadmeFigure:
    """A cell of a README's table, and the numbers or the word that the published rows give."""

    file: str
    number: int  # of the line in the file, from 0
    line: str
    column: str
    place: int  # of the cell in its line
    cell: str
    expected: str | None

    @property
    def where(self) -> str:
        return f"{self.file}, {self.line}, {self.column}"

    @property
    def agrees(self) -> bool:
        return normal(self.cell) == self.expected

    def published_cell(self) -> str:
        """The cell with the published figures in place of its own, e.g. `+0.001 [-0.040, +0.042]`."""
        if self.expected is None:
            raise BadInput(f"{self.where}: not one row of the published ones is meant.")
        numbers = self.expected.split()
        if len(numbers) != len(numbers_of(self.cell)):
            return self.expected
        return NUMBER.sub(lambda _: numbers.pop(0), self.cell)


def figures(root: Path = ROOT) -> Iterator[ReadmeFigure]:
    """Every figure of the tables that `tables.toml` names. Raises BadInput where a table, line or column is missing."""
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
                raise BadInput(
                    f"{entry['file']}, table {entry['first_column']!r}: the line {different[0]!r} is not both there and "
                    "in tables.toml."
                )

            for line, condition in entry["rows"].items():
                for column, name in entry["columns"].items():
                    number, cells = table[line]
                    expected = published(con, entry["rows_of"], condition, name, cells[column])
                    place = list(cells).index(column) + 1
                    yield ReadmeFigure(entry["file"], number, line, column, place, cells[column], expected)


def write_figures(root: Path = ROOT) -> list[str]:
    """Write the published figures into the cells of the READMEs that show others; return where.

    Raises BadInput where a table, a line or a column is missing, or a published row.
    """
    different = [figure for figure in figures(root) if not figure.agrees]
    for figure in different:
        path = root / figure.file
        lines = path.read_text(encoding="utf-8").split("\n")
        cells = cells_of(lines[figure.number])
        cells[figure.place] = figure.published_cell()
        lines[figure.number] = f"| {' | '.join(cells)} |"
        path.write_text("\n".join(lines), encoding="utf-8")
    return [figure.where for figure in different]


def read_table(path: Path, first: str, columns: set[str]) -> dict[str, tuple[int, dict[str, str]]]:
    """The number of each line in the file and its cells by column, of the table whose head begins with `first` and has
    `columns`.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        head = cells_of(line)
        if head[:1] == [first] and columns <= set(head):
            body = lines[place + 2 :]
            end = next((i for i, text in enumerate(body) if not text.startswith("|")), len(body))
            rows = [(place + 2 + i, cells_of(text)) for i, text in enumerate(body[:end])]
            return {row[0]: (number, dict(zip(head[1:], row[1:], strict=True))) for number, row in rows}

    raise BadInput(f"{path.name} has no table with the columns {first}, {', '.join(sorted(columns))}.")


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


def write() -> None:
    """Write the published figures into the tables of the READMEs."""
    for where in write_figures():
        typer.echo(f"Written: {where}")


if __name__ == "__main__":
    run(write)
