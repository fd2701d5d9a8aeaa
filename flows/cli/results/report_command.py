"""What `triage report` does: check the places, make the page, and say where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.cli.terminal import print_line, refuse_existing
from flows.cli.waiting import load_what_waits
from flows.html_report.files import (
    check_charts_folder,
    landed_fingerprint,
    report_path,
    write_charts,
    write_report,
)
from flows.report.figures import counted
from tasks.runtime.errors import BadInput, disk_error
from warehouse.connect import snapshot
from warehouse.health import bring_up_to_date

if TYPE_CHECKING:
    from flows.html_report.study import ReportedStudy


@dataclass(frozen=True)
class ReportRequest:
    """What was asked for on the command line."""

    study: str | None = None
    output: Path | None = None
    figures: Path | None = None
    texts: Path | None = None
    cases: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise BadInput for what cannot be done, before anything is computed."""
        for path, option in ((self.texts, "--texts"), (self.cases and "cases", "--case")):
            if path and self.output is None:
                raise BadInput(
                    f"{option} makes a report of its own; say where it goes with --output FILE."
                )

        if self.output is not None:
            refuse_existing(self.output)
        if self.figures is not None:
            check_charts_folder(self.figures)


def make_report(console: Console, request: ReportRequest) -> None:
    """Write the report of a study, and its charts where they are asked for.

    Raises BadInput for an unknown study, one without results, a place that cannot be written, a
    case that is not there, and texts that fit no case.
    """
    request.check()
    load_what_waits()
    bring_up_to_date()
    study, fingerprint = _landed_study(request.study)
    path = request.output or _made_place(report_path(study.name))

    from flows.html_report.page import as_html, made_report  # Altair comes with it

    report = made_report(study, fingerprint, request.cases, request.texts)
    write_report(as_html(report), path, private=report.cases.has_texts)
    print_line(console, f"Report of {study.name}: {path}")

    if request.figures is not None:
        charts = report.charts
        write_charts(charts, request.figures)
        print_line(console, f"{counted(len(charts), 'chart')} as SVG: {request.figures}")

    if report.cases.has_texts:
        print_line(console, "It holds patient texts: keep it as you keep the file they come from.")


def _landed_study(name: str | None) -> tuple[ReportedStudy, str]:
    """A study, and the fingerprint of what has landed of it, of one moment: a result that landed in
    between would be in the fingerprint and not on the page, which no sweep would make again.
    """
    from flows.html_report.study import EVERYTHING, reported_study

    with snapshot():
        study = reported_study(name)
        return study, landed_fingerprint(None if study.name == EVERYTHING else study.name)


def _made_place(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path.parent) from error
    return path
