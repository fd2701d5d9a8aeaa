"""`triage export EXPERIMENT DIR`: the options of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import console

Experiment = Annotated[
    str, typer.Argument(help="a cell, training or evaluation id, or the beginning of one")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a new folder, or an empty one")]
Fuse = Annotated[bool, typer.Option("--fuse", help="put the adapter into the weights")]
Gguf = Annotated[bool, typer.Option("--gguf", help="also write a GGUF file (SmolLM2)")]
Push = Annotated[
    str | None,
    typer.Option(metavar="REPO", help="upload it to this Hub repository (owner/name), private"),
]
Public = Annotated[bool, typer.Option("--public", help="let everybody read that repository")]
Unsafe = Annotated[
    bool, typer.Option("--unsafe", help="push a model that its safety gates call unsafe")
]


def export(
    experiment: Experiment,
    folder: Folder,
    fuse: Fuse = False,
    gguf: Gguf = False,
    push: Push = None,
    public: Public = False,
    unsafe: Unsafe = False,
) -> None:
    """Write a trained model as a folder that stands alone, with a model card and an example."""
    from flows.cli.models.export_report import ExportRequest, export_experiment

    request = ExportRequest(experiment, folder, fuse, gguf, push, public, unsafe)
    export_experiment(console, request)
