"""`triage export EXPERIMENT DIR`: a trained model as a folder that stands alone, and its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.experiments import find_model
from flows.cli.terminal import Experiment, console, print_line
from tasks.bundle.asking import in_use
from tasks.bundle.bundle import Bundle
from tasks.bundle.export import EXAMPLE, Exported, refuse_filled, refuse_push
from tasks.bundle.export import export as export_model
from tasks.bundle.export import push as push_folder
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

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
    # Nothing is written before everything that can be refused is, except that a push without a text
    # of the terms is refused when the folder, which that is to be added to, is there.
    for name, is_given in (("--public", public), ("--unsafe", unsafe)):
        if is_given and push is None:
            raise BadInput(f"{name} is about a push; add --push REPO, or leave it out.")

    refuse_filled(folder)
    model = find_model(experiment)
    if model.folder != home():
        raise BadInput(f"{experiment} is an export already; name the experiment itself.")
    if push is not None:
        refuse_push(model.bundle, push, unsafe)

    with in_use(model, "export"):
        exported = export_model(model, home(), folder, fuse=fuse, gguf=gguf)
    print_exported(console, model.bundle, exported)
    if push is None:
        return

    if exported.missing_terms:
        private = "" if public else " --private"
        raise BadInput(
            f"Nothing was pushed: {exported.missing_terms}. The export is in {exported.folder}; "
            f"upload it then with `hf upload {push} {exported.folder}{private}`."
        )
    address = push_folder(exported.folder, push, public, model.bundle.cell_id)
    readers = "everybody" if public else "you and whom you let"
    print_line(console, f"Pushed to {address}, for {readers} to read.")


def print_exported(console: Console, bundle: Bundle, exported: Exported) -> None:
    """Print where the export is, how far its weights agree with the trained model's, and its terms."""
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in list(exported.sizes.items())[:3])
    size = f"{sum(exported.sizes.values()) / 1e6:.1f} MB ({parts})"
    print_line(console, f"{bundle.cell_id} is in {exported.folder}: {size}.")

    agreements = {"The fused weights": exported.result.fused, "model.gguf": exported.result.gguf}
    for name, agreement in agreements.items():
        if agreement is not None:
            print_line(
                console,
                f"{name}: on {agreement.cases} cases a probability differs from the trained "
                f"model's by up to {agreement.largest:.1e}; {agreement.differing_decisions}.",
            )
    if bundle.warning:
        print_line(console, bundle.warning, style="bold red")

    licence = f"licence {bundle.licence}; see Notice"
    missing = f" Before you pass it on: {exported.missing_terms}." if exported.missing_terms else ""
    print_line(console, f"The base model's terms go with it: {licence}.{missing}")
    print_line(console, bundle.notice)
    print_line(
        console,
        f'Without triage, in that folder: python {EXAMPLE} < cases.jsonl, a {{"text": "..."}} a line.',
    )
    print_line(console, f"Next: triage predict {exported.folder} -")
