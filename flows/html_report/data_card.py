"""The cases that the study's models learned from and were judged on."""

from __future__ import annotations

from flows.html_report.study import ReportedStudy, Section
from flows.report.table import ReportTable
from flows.report.typed_rows import Row, rows_of
from warehouse.connect import listed

READING = (
    "Numbers of cases by set and label. Thresholds are chosen on calibration, recipes on valid; "
    "the test set chooses nothing. `triage data card` says more about a dataset."
)
MISSING = (
    "The warehouse does not know the dataset of these evaluations: they landed before datasets "
    "were recorded. The next sweep of the study records it."
)
ORDER = ("train", "valid", "calibration", "test")
SQL = """(
    SELECT dataset.*, name, cases, ed_cases, gp_cases, home_cases, groups, is_further
    FROM dataset_set JOIN dataset USING (dataset_id)
    WHERE dataset_digest IN {digests}
)"""


def data_card(study: ReportedStudy) -> Section:
    """A line for each set; no chart."""
    digests = listed({row.dataset_digest for row in study.board if row.dataset_digest})
    rows = rows_of(SQL.format(digests=digests))
    if not rows:
        return Section("data", "Data card", missing=MISSING)

    names = {name: place for place, name in enumerate(ORDER)}
    rows.sort(key=lambda row: (row.dataset_digest, names.get(row.name, len(ORDER)), row.name))
    table = ReportTable.of("Sets", [_record(row) for row in rows])
    sentences = list(dict.fromkeys(_about(row) for row in rows))

    return Section("data", "Data card", READING, sentences, tables=[table])


def _about(row: Row) -> str:
    origin = "the project's own synthetic cases" if row.is_embedded else "cases of the user's own"
    return f"Dataset {row.dataset} {row.dataset_digest}: {origin}, seed {row.seed}."


def _record(row: Row) -> dict[str, str]:
    def counted(count: int) -> str:
        share = f" ({100 * count / row.cases:.1f} %)" if row.cases else ""
        return f"{count}{share}"

    return {
        "set": row.name,
        "cases": str(row.cases),
        "ED": counted(row.ed_cases),
        "GP": counted(row.gp_cases),
        "HOME": counted(row.home_cases),
        "groups": "-" if row.groups is None else str(row.groups),
    }
