"""The cases of one evaluation as it decided them, from its landing folder where that is still as it
was loaded: to find 2,000 rows among twenty million takes ten times as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq

from tasks.runtime.errors import BrokenFolder
from warehouse.landing import LandingManifest, is_loaded

_COLUMNS = ["case_id", "label", "case_group", "decision", "argmax", "nll", "p_ed"]


class JudgedRow(NamedTuple):
    """Columns of `prediction`; a decision is None where the primary rule could not be applied."""

    case_id: str
    label: str
    group: str | None
    decision: str | None
    argmax: str
    nll: float | None
    p_ed: float

    def by(self, rule: str) -> str | None:
        """What the rule 'primary' or 'argmax' decided."""
        return self.argmax if rule == "argmax" else self.decision


def judged_rows(
    con: duckdb.DuckDBPyConnection, evaluation: str, root: Path | None
) -> dict[str, JudgedRow]:
    """Rows by case_id; `root` has the landing folders, if they are to be looked at."""
    rows = None if root is None else _as_landed(con, root / evaluation)
    if rows is None:
        query = f"SELECT {', '.join(_COLUMNS)} FROM prediction WHERE evaluation_id = ?"
        rows = [JudgedRow(*row) for row in con.execute(query, [evaluation]).fetchall()]
    return {row.case_id: row for row in rows}


def _as_landed(con: duckdb.DuckDBPyConnection, folder: Path) -> list[JudgedRow] | None:
    """None where the folder is not there, is damaged, or has other content than what is loaded."""
    try:
        manifest = LandingManifest.read(folder, deep=True)
        if not is_loaded(con, folder.name, manifest.digest):
            return None
        table = pq.ParquetFile(folder / "prediction.parquet").read(columns=_COLUMNS)
    except (BrokenFolder, OSError):  # or another sweep is replacing it
        return None

    columns = (table.column(name).to_pylist() for name in _COLUMNS)
    return [JudgedRow(*values) for values in zip(*columns, strict=True)]
