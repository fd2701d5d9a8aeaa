"""`triage report`: the options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.results.compare import Study
from flows.cli.terminal import console

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


def report(
    study: Study = None,
    output: Output = None,
    figures: Figures = None,
    texts: Texts = None,
    case: Cases = None,
) -> None:
    """Write a study's report: one HTML file with charts, tables and single cases."""
    from flows.cli.results.report_command import ReportRequest, make_report

    make_report(console, ReportRequest(study, output, figures, texts, tuple(case or ())))
