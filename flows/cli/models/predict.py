"""`triage predict EXPERIMENT -`: the options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="a cell, training or evaluation id, the beginning of one, or an exported folder",
    ),
]
Source = Annotated[
    str | None, typer.Argument(metavar="-", help="read one text from standard input")
]
File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="one text for each row of a .jsonl, .csv or .parquet file"),
]
Column = Annotated[str, typer.Option(help="column of the texts in the file")]
Passes = Annotated[
    int | None,
    typer.Option(min=2, max=1000, metavar="N", help="dropout passes for the review flag, e.g. 50"),
]
Format = Annotated[
    Literal["table", "jsonl"] | None,
    typer.Option("--format", help="jsonl has all digits; table is the default on a terminal"),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write to a new file, answer by answer")
]


def predict(
    experiment: Model,
    source: Source = None,
    file: File = None,
    text_column: Column = "text",
    passes: Passes = None,
    output_format: Format = None,
    output: Output = None,
) -> None:
    """Ask a trained model about a text, or about each text of a file."""
    from flows.cli.models.predict_run import PredictRequest, run_predict

    request = PredictRequest(experiment, source, file, text_column, passes, output_format, output)
    if code := run_predict(request):
        raise SystemExit(code)
