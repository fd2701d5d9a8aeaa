"""Claims: sentences of the published study, each bound to a query, a range and a condition.

`claims.toml` holds them. A claim whose query fails is said not to be measured, and why; the others
are measured all the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.comparison.resampling import CANNOT_CONCLUDE
from warehouse.connect import utc_now, writing
from warehouse.query import Rows, query_rows

SUPPORTED = "supported"
REFUTED = "refuted"
NOT_MEASURED = "not measured here"
NO_ROW = "this warehouse has no row for it"
FIGURES = ("value", "low", "high")
KEYS = {"name", "sentence", "between", "sql", "cannot_conclude"}


@dataclass(frozen=True)
class Claim:
    """A sentence that holds where its figure lies in [least, most]; `cannot_conclude` is a
    condition on the columns of the query.
    """

    name: str
    sentence: str
    least: float
    most: float
    sql: str
    cannot_conclude: str | None = None

    @property
    def statement(self) -> str:
        """The query with a column that says which rows decide nothing."""
        # A condition that is NULL was not shown to be false, so the row decides nothing.
        condition = self.cannot_conclude or "false"
        return (
            f"SELECT *, coalesce({condition}, true) AS undecided FROM (\n{self.sql.strip()}\n) AS m"
        )


@dataclass(frozen=True)
class ClaimMeasurement:
    """A row behind a claim: its figure, and the other columns by name."""

    value: float | None
    low: float | None
    high: float | None
    verdict: str
    further: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredClaim:
    """A claim with its verdict and the rows behind it; `note` says why there are none."""

    claim: Claim
    verdict: str
    measurements: list[ClaimMeasurement]
    note: str | None = None


def read_claims(path: Path | None = None) -> list[Claim]:
    """The claims of `claims.toml`, or of a file of the user's own. Raises BadInput."""
    entries = _content(path).get("claim", [])
    claims = [_claim(entry, number) for number, entry in enumerate(entries, start=1)]
    names = [claim.name for claim in claims]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"Two claims have the name {name!r}; give each a name of its own.")
    return claims


def _content(path: Path | None) -> dict[str, Any]:
    if path is None:
        return tomllib.loads((files("warehouse") / "claims.toml").read_text(encoding="utf-8"))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise BadInput(f"{path} is not TOML: {error}.") from error


def _claim(entry: dict[str, Any], number: int) -> Claim:
    title = f"Claim {entry.get('name', number)}"
    if unknown := sorted(entry.keys() - KEYS):
        raise BadInput(f"{title} has an unknown key {unknown[0]!r}; it has {', '.join(KEYS)}.")
    if missing := sorted(KEYS - entry.keys() - {"cannot_conclude"}):
        raise BadInput(f"{title} needs the key {missing[0]!r}.")

    between = entry["between"]
    is_range = isinstance(between, list) and len(between) == 2
    if not is_range or not all(isinstance(end, int | float) for end in between):
        raise BadInput(f"{title}: between is a range of two numbers, e.g. [0.45, 0.6].")

    texts = [str(entry[key]) for key in ("name", "sentence", "sql")]
    least = float(between[0])
    most = float(between[1])
    return Claim(texts[0], texts[1], least, most, texts[2], entry.get("cannot_conclude"))


def measure(claims: list[Claim], run: Callable[[str], Rows] = query_rows) -> list[MeasuredClaim]:
    """Every claim measured by `run`, a read-only query."""
    return [_measured_claim(claim, run) for claim in claims]


def _measured_claim(claim: Claim, run: Callable[[str], Rows]) -> MeasuredClaim:
    try:
        rows = run(claim.statement)
        measurements = [_measurement(claim, rows.columns, row) for row in rows.rows]
    except BadInput as error:
        reason = str(error).removeprefix("The query failed: ")
        return MeasuredClaim(claim, NOT_MEASURED, [], f"its query failed: {reason}")

    if not measurements:
        return MeasuredClaim(claim, NOT_MEASURED, [], NO_ROW)

    verdicts = {measurement.verdict for measurement in measurements}
    # A claim is as good as its worst row.
    order = (REFUTED, CANNOT_CONCLUDE, SUPPORTED)
    verdict = next(verdict for verdict in order if verdict in verdicts)
    return MeasuredClaim(claim, verdict, measurements)


def _measurement(
    claim: Claim, columns: tuple[str, ...], row: tuple[object, ...]
) -> ClaimMeasurement:
    values = dict(zip(columns, row, strict=True))
    if missing := [name for name in FIGURES if name not in values]:
        raise BadInput(f"its rows need the column {missing[0]}.")

    value, low, high = (_number(values.pop(name)) for name in FIGURES)
    undecided = bool(values.pop("undecided"))
    if undecided or value is None:
        return ClaimMeasurement(value, low, high, CANNOT_CONCLUDE, values)

    # A figure without an interval is judged as a point.
    ends = (value if low is None else low, value if high is None else high)
    return ClaimMeasurement(value, low, high, _verdict(claim, *ends), values)


def _number(value: object) -> float | None:
    if value is None:
        return None
    try:
        return float(str(value))
    except ValueError as error:
        raise BadInput(f"{value!r} is not a number.") from error


def _verdict(claim: Claim, low: float, high: float) -> str:
    if claim.least <= low and high <= claim.most:
        return SUPPORTED
    return REFUTED if high < claim.least or low > claim.most else CANNOT_CONCLUDE


def store(results: list[MeasuredClaim], database: Path | None = None) -> None:
    """Replace the table `claim` by what was measured now. Raises Locked where the file is in use."""
    with writing(database, wait=1.0) as con:
        # An error closes the connection, which rolls back: the rows measured before stay.
        con.begin()
        con.execute("DELETE FROM claim")
        for result in results:
            _insert(con, result)
        con.commit()


def _insert(con: duckdb.DuckDBPyConnection, result: MeasuredClaim) -> None:
    """A row for each measurement; one without figures where there is none."""
    claim = result.claim
    moment = utc_now()
    rows = result.measurements or [ClaimMeasurement(None, None, None, result.verdict)]
    for number, row in enumerate(rows, start=1):
        further = ", ".join(f"{name} {value}" for name, value in row.further.items()) or None
        con.execute(
            f"INSERT INTO claim VALUES ({', '.join('?' * 12)})",
            [
                *(claim.name, number, claim.sentence, result.verdict, claim.least, claim.most),
                *astuple(row)[:4],
                result.note if result.note else further,
                moment,
            ],
        )
