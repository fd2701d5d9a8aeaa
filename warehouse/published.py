"""The rows behind the READMEs' tables, committed as Parquet: a folder
of `published/` for each study.

`python -m warehouse.published NAME` publishes those of the study NAME of the present warehouse
again. A study that takes days has its landing folders beside them (`published_landing.py`).
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.comparison import refresh_pools
from warehouse.connect import reading, writing
from warehouse.migrate import migrate
from warehouse.published_landing import publish_landing
from warehouse.published_precisions import publish_precisions

FOLDER = Path(__file__).with_name("published")
STUDIES = ("demo", "study", "study_gemma")
# Behind figures of the READMEs, too. Their processors are gone, so they cannot be published again.
FOLDERS = (*STUDIES, "first_run", "demo_first")
LANDED = ("study", "study_gemma")  # whose landing folders are published, too
ROOT = Path(__file__).parents[1]
# The rows of a study, by the name of their file; `$study` is its name.
VIEWS = {
    "leaderboard": "FROM leaderboard_of(evaluations_of($study))",
    "quantization_comparison": "FROM quantization_comparison_of(evaluations_of($study))",
    "quantization_summary": "FROM quantization_summary_of(evaluations_of($study))",
    "gate_bounds": "FROM gate_bounds WHERE list_contains(evaluations_of($study), evaluation_id)",
    "variant": "FROM variant",
}
MOST_BYTES = {
    "demo": 500_000,
    "study": 3_000_000,
    "study_gemma": 1_200_000,
    "first_run": 100_000,
    "demo_first": 100_000,
}
# What a README shows in another unit than the view.
_SHOWN = {"stored_megabytes": "stored_bytes / 1e6"}
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class ReadmeFigure:
    """A cell of a README's table, and the numbers or the word that the published rows give."""

    where: str
    shown: str
    expected: str | None

    @property
    def agrees(self) -> bool:
        return self.shown == self.expected


def publish(study: str, folder: Path, database: Path | None = None) -> None:
    """Write the rows of a study into `folder` as Parquet, replacing what was published before, but
    for other precisions (`published_precisions.py`).

    Figures of pools are made first: a sweep that was interrupted leaves them to the next one.

    Raises BadInput where the warehouse has no evaluation of that study.
    """
    with writing(database) as con:
        migrate(con)
        refresh_pools.refresh(con)

    with reading(database) as con:
        of_study = {"study": study}
        if con.execute("SELECT evaluations_of($study)", of_study).fetchall() == [([],)]:
            raise BadInput(
                f"The warehouse has no evaluation of the study {study}: run `triage sweep {study}` "
                "first."
            )

        folder.mkdir(parents=True, exist_ok=True)
        for view, rows in VIEWS.items():
            selected = con.sql(rows, params=of_study if "$study" in rows else None)
            selected.write_parquet(str(folder / f"{view}.parquet"), compression="zstd")
        publish_precisions(con, study, folder)


def figures(folder: Path = FOLDER, root: Path = ROOT) -> list[ReadmeFigure]:
    """Every figure of the READMEs' tables that `claims.toml` names, beside the published one.

    Raises BadInput where a table, a line or a column is not there.
    """
    content = tomllib.loads((files("warehouse") / "claims.toml").read_text(encoding="utf-8"))
    return [
        figure
        for name in FOLDERS
        for figure in _of_study(
            folder / name, [entry for entry in content["readme"] if entry["study"] == name], root
        )
    ]


def _of_study(folder: Path, entries: list[dict[str, object]], root: Path) -> list[ReadmeFigure]:
    with duckdb.connect(":memory:") as con:
        for path in sorted(folder.glob("*.parquet")):
            con.execute(f"CREATE TABLE {path.stem} AS FROM read_parquet(?)", [str(path)])
        return [figure for entry in entries for figure in _of_table(con, entry, root)]


def _of_table(
    con: duckdb.DuckDBPyConnection, entry: dict[str, object], root: Path
) -> list[ReadmeFigure]:
    rows = entry["rows"]
    columns = entry["columns"]
    assert isinstance(rows, dict) and isinstance(columns, dict)
    file = str(entry["file"])
    first = str(entry["first_column"])

    table = read_table(root / file, first, set(columns))
    if different := sorted(set(rows) ^ set(table)):
        raise BadInput(
            f"{file}, table {first!r}: the line {different[0]!r} is not both there and in "
            "claims.toml."
        )

    return [
        ReadmeFigure(
            f"{file}, {line}, {column}",
            normal(table[line][column]),
            _expected_cell(con, str(entry["rows_of"]), condition, name, table[line][column]),
        )
        for line, condition in rows.items()
        for column, name in columns.items()
    ]


def read_table(path: Path, first: str, columns: set[str]) -> dict[str, dict[str, str]]:
    """Cells by line and column of the table whose head begins with `first` and has `columns`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        head = _cells(line)
        if head[:1] == [first] and columns <= set(head):
            body = lines[place + 2 :]
            end = next((i for i, text in enumerate(body) if not text.startswith("|")), len(body))
            cells = [_cells(text) for text in body[:end]]
            return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in cells}

    raise BadInput(
        f"{path.name} has no table with the columns {first}, {', '.join(sorted(columns))}."
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def normal(cell: str) -> str:
    """The numbers of a cell without decoration, then its word, e.g.
    `-0.278 -0.415 -0.150 inferior`.
    """
    numbers = _NUMBER.findall(cell)
    word = re.search(r"`([^`]+)`", cell)
    if not numbers:
        return cell.strip("`")
    return " ".join([*numbers, *([word[1]] if word else [])])


def _expected_cell(
    con: duckdb.DuckDBPyConnection, view: str, condition: str, name: str, cell: str
) -> str | None:
    """What the published rows give for a cell, in as many digits and numbers as it shows."""
    numbers = _NUMBER.findall(cell)
    if not numbers:
        rows = con.execute(
            f"SELECT {_SHOWN.get(name, name)} FROM {view} WHERE {condition}"
        ).fetchall()
        if len(rows) != 1:
            return None
        return "" if rows[0][0] is None else str(rows[0][0])

    base = name.removesuffix("_diff")
    selected = name.split(", ")
    if len(selected) == 1:
        selected = [_SHOWN.get(name, name), f"{base}_low", f"{base}_high"][: len(numbers)]
    if "`" in cell:
        selected.append(f"{base}_verdict")

    rows = con.execute(f"SELECT {', '.join(selected)} FROM {view} WHERE {condition}").fetchall()
    if len(rows) != 1:
        return None

    return " ".join(
        _as(value, printed) for value, printed in zip(rows[0], [*numbers, ""], strict=False)
    )


def _as(value: object, printed: str) -> str:
    """A value as the README writes numbers: its digits, and a sign where it has one."""
    if not isinstance(value, float | int):
        return str(value)
    digits = len(printed.partition(".")[2])
    sign = "+" if printed.startswith(("+", "-")) else ""
    return f"{value:{sign}.{digits}f}"


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in STUDIES:
        print(f"Name the study whose rows are published: {' or '.join(STUDIES)}.", file=sys.stderr)
        return 2

    try:
        publish(arguments[0], FOLDER / arguments[0])
        if arguments[0] in LANDED:
            publish_landing(arguments[0], FOLDER / arguments[0] / "landing", home() / "landing")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2

    return 0


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
