"""`triage report`: a study's report as one HTML file, and its charts where they are asked for."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import Study, console, print_line, refresh_warehouse, refuse_existing
from flows.report.page import (
    EVERYTHING,
    landed_fingerprint,
    made_report,
    report_path,
    reported_study,
)
from flows.report.rows import study_note
from tasks.runtime.errors import BadInput
from tasks.runtime.files import write_atomic
from warehouse.connect import snapshot

Output = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="write to a new file, not to TRIAGE_HOME/reports/<study>.html"
    ),
]
Figures = Annotated[
    Path | None, typer.Option(metavar="DIR", help="also write every chart as SVG to this folder")
]
Texts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="show the texts of cases, read from this file; needs --output"
    ),
]
Cases = Annotated[
    list[str] | None,
    typer.Option("--case", metavar="ID", help="only this case, not missed ones (repeatable)"),
]
Open = Annotated[bool, typer.Option("--open", help="open the report in the browser")]


def report(
    study: Study = None,
    output: Output = None,
    figures: Figures = None,
    texts: Texts = None,
    case: Cases = None,
    open_it: Open = False,
) -> None:
    """Write a study's report: one HTML file with charts, tables and single cases."""
    # What cannot be done is refused before anything is computed.
    if (texts or case) and output is None:
        raise BadInput(
            "--texts and --case make a report of its own; say where it goes with --output FILE."
        )
    if output is not None:
        refuse_existing(output)
    if figures is not None and (figures.is_file() or not figures.parent.is_dir()):
        raise BadInput(
            f"There is no folder {figures.parent}, or {figures} is a file; give --figures another name."
        )

    refresh_warehouse()
    # Of one moment: a result that landed in between would be in the fingerprint and not on the
    # page, which no sweep would make again.
    with snapshot():
        studies = reported_study(study)
        fingerprint = landed_fingerprint()
        html, charts, has_texts = made_report(studies, fingerprint, tuple(case or ()), texts)
        name = studies[0].name or EVERYTHING
        note = study_note(name, "triage report STUDY writes that of one")

    path = output or report_path(name)
    write_atomic(path, html, mode=0o600 if has_texts else 0o666)
    print_line(console, f"Report of {name}: {path}")
    if figures is not None:
        for chart, svg in charts.items():
            write_atomic(figures / f"{chart}.svg", svg)
        print_line(console, f"{len(charts)} charts as SVG: {figures}")
    if has_texts:
        print_line(console, "It holds patient texts: keep it as you keep the file they come from.")
    if note:
        print_line(console, note)
    if open_it and not webbrowser.open(path.resolve().as_uri()):
        raise BadInput(f"No browser can be started here; open {path} yourself.")
