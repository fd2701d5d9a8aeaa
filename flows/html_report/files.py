"""Where reports lie, whether one is current, and the report at the end of a sweep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from flows.report.leaderboard import evaluation_ids
from flows.report.typed_rows import rows_of
from tasks.runtime.home import home
from warehouse.connect import quoted

FORMAT = 2  # of the page: another one makes every report again
# Without sweeps: each run of one lands a record, whether or not there is a new result. The bound
# for all looks of a gate depends on who else was judged on the same cases.
FINGERPRINT = """(
    WITH member AS (
        SELECT id, manifest_digest
        FROM landed
        WHERE kind <> 'sweep'
            AND ({study} IS NULL OR id IN (SELECT id FROM study_member WHERE study = {study}))
    )
    SELECT md5(
        string_agg(id || coalesce(manifest_digest, ''), ' ' ORDER BY id)
        || (SELECT string_agg(sha256, ' ' ORDER BY version) FROM schema_migrations)
        || coalesce(
            (
                SELECT string_agg(DISTINCT looks, ' ' ORDER BY looks)
                FROM gate_bounds
                WHERE evaluation_id IN (SELECT id FROM member)
            ),
            ''
        )
    ) AS fingerprint
    FROM member
)"""


def report_path(study: str) -> Path:
    """Where the report of a study lies: TRIAGE_HOME/reports/<study>.html."""
    # No slash leads to another folder, and no dot in front hides the file.
    name = re.sub(r"[^\w.-]+", "-", study).strip(".-") or "study"
    return home() / "reports" / f"{name}.html"


def landed_fingerprint(study: str | None) -> str:
    """Changes whenever a result of the study (None: any) lands, is replaced or forgotten, another
    study judges models on its cases, or the warehouse computes its figures in another way.
    """
    (row,) = rows_of(FINGERPRINT.format(study="NULL" if study is None else quoted(study)))
    return f"{FORMAT}-{row.fingerprint or 'nothing'}"


def is_current(study: str) -> bool:
    """Whether the study's report shows everything that has landed."""
    try:
        page = report_path(study).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    match = re.search(r'<meta name="triage-landed" content="([^"]*)"', page)
    return match is not None and match.group(1) == landed_fingerprint(study)


COMMAND = (sys.executable, "-m", "flows.cli", "report")


def refreshed_report(study: str) -> tuple[Path | None, str]:
    """Make the study's report unless it shows everything that has landed: where it is, or in a
    sentence why there is none. Never raises.

    A study on random weights alone, such as that of the grid `smoke`, tests an installation and
    gets no report by itself: neither a place nor a sentence.
    """
    try:
        if not has_real_models(study):
            return None, ""
        if is_current(study):
            return report_path(study), ""

        process = subprocess.run(
            [*COMMAND, study], capture_output=True, text=True, timeout=600, check=False
        )
        # Outdated already where another sweep of the study has landed a result meanwhile.
        if process.returncode == 0:
            return report_path(study), ""

        error_lines = process.stderr.strip().splitlines()
        reason = error_lines[-1] if error_lines else f"exit code {process.returncode}"
    except Exception as error:  # whatever it is, the sweep's results are safe
        reason = str(error)
    return None, f"The report of {study} was not made: {reason}"


def has_real_models(study: str) -> bool:
    """Whether the study has evaluated a model whose weights are not random."""
    rows = rows_of("leaderboard", only=evaluation_ids(study))
    return any(row.random_weights is False for row in rows)


def place_of_report(study: str) -> str | None:
    """A line that says where the report of a sweep is, or that there
    is none; None if none is needed.
    """
    path = report_path(study)
    if is_current(study):
        return f"Report: {path}"
    if not has_real_models(study):
        return None
    if path.is_file():
        return f"Report: {path}, older than the last result; triage report {study} makes it again."
    return f"The report was not made; triage report {study} says why."
