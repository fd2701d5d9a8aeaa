"""The claims about published studies, measured on the evaluations of this one."""

from __future__ import annotations

from collections import Counter
from functools import partial

from flows.html_report.section import Section
from flows.html_report.study import ReportedStudy
from flows.report.figures import is_number
from flows.report.table import ReportTable
from warehouse.claims import ClaimMeasurement, MeasuredClaim, measure, read_claims
from warehouse.query import query_rows

MOST_ROWS = 3
READING = (
    "Sentences that are said about such studies, each bound to a query, with the verdict of the "
    "evaluations above; bytes, parameters and the number of variants are those of the whole "
    "warehouse, on which `triage claims` measures all of them."
)


def claims(study: ReportedStudy) -> Section:
    """A line for each claim; no chart."""
    results = measure(read_claims(), partial(query_rows, only=study.ids))
    counts = Counter(result.verdict for result in results)
    finding = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    records = [
        {
            "claim": result.claim.sentence,
            "verdict": result.verdict,
            "measured": _measured_text(result),
        }
        for result in results
    ]
    table = ReportTable.of("Claims", records)
    sentences = [f"Of {len(results)} claims: {finding}."]

    return Section(
        "claims", "Claims", READING, sentences, tables=[table], commands=["triage claims"]
    )


def _measured_text(result: MeasuredClaim) -> str:
    rows = [_row(row) for row in result.measurements[:MOST_ROWS]]
    more = len(result.measurements) - MOST_ROWS
    further = [f"{more} more"] if more > 0 else []
    return "\n".join([*([result.note] if result.note else []), *rows, *further])


def _row(row: ClaimMeasurement) -> str:
    if not is_number(row.value):
        return "no figure"
    interval = ""
    if is_number(row.low) and is_number(row.high) and row.low != row.high:
        interval = f" [{row.low:.4g}, {row.high:.4g}]"
    about = ", ".join(str(value) for value in row.further.values() if value is not None)
    return f"{row.value:.4g}{interval}{f' ({about})' if about else ''}"
