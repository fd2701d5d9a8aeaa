"""The report at the end of a sweep: made in a process of its own, so that nothing that goes wrong
there touches the sweep.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flows.html_report.files import is_current, report_path
from flows.report.study import evaluation_ids
from flows.report.typed_rows import typed_rows

SECONDS = 600.0  # after which the sweep ends without its report
COMMAND = (sys.executable, "-m", "flows.cli", "report")


@dataclass(frozen=True)
class Refreshed:
    """Where the study's report is, or in a sentence why there is none; neither for a study
    that needs none.
    """

    path: Path | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _Weights:
    random_weights: bool | None


def refreshed_report(study: str) -> Refreshed:
    """Make the study's report unless it shows everything that has landed. Never raises.

    A study on random weights alone, such as that of the grid `smoke`, tests an
    installation and gets no report by itself.
    """
    try:
        if not has_real_models(study):
            return Refreshed()
        if is_current(study):
            return Refreshed(report_path(study))

        process = subprocess.run(
            [*COMMAND, study], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        # Outdated already where another sweep of the study has landed a result meanwhile.
        if process.returncode == 0:
            return Refreshed(report_path(study))

        error_lines = process.stderr.strip().splitlines()
        reason = error_lines[-1] if error_lines else f"exit code {process.returncode}"
    except Exception as error:  # whatever it is, the sweep's results are safe
        reason = str(error)
    return Refreshed(problem=f"The report of {study} was not made: {reason}")


def has_real_models(study: str) -> bool:
    """Whether the study has evaluated a model whose weights are not random."""
    rows = typed_rows(_Weights, "leaderboard", only=evaluation_ids(study))
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
