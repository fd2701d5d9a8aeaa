"""`triage export EXPERIMENT DIR`: a trained model as a folder that stands alone, and its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.experiments import find_model
from flows.cli.terminal import Experiment, Precision, console, errors, print_line
from tasks.bundle.asking import in_use
from tasks.bundle.export import export as export_model
from tasks.bundle.export import push as push_folder
from tasks.bundle.export import refuse_filled, refuse_push
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="a new folder, or an empty one")]
Adapter = Annotated[
    bool, typer.Option("--adapter", help="the adapter beside the weights, not fused with them")
]
Gguf = Annotated[
    bool, typer.Option("--gguf", help="also write a GGUF file for llama.cpp (SmolLM2)")
]
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
    adapter: Adapter = False,
    gguf: Gguf = False,
    precision: Precision = None,
    push: Push = None,
    public: Public = False,
    unsafe: Unsafe = False,
) -> None:
    """Write a trained model as a folder that stands alone, with a model card and an example."""
    # What can be refused is refused before anything is written; terms without a text after it, since
    # they are to be added to the folder.
    if push is None and (public or unsafe):
        raise BadInput("--public and --unsafe are about a push; add --push REPO.")
    if adapter and gguf:
        raise BadInput("A GGUF file holds the fused weights; leave out --adapter or --gguf.")
    folder = folder.resolve()
    refuse_filled(folder)
    model = find_model(experiment, precision)
    if model.folder != home():
        raise BadInput(f"{experiment} is an export already; name the experiment itself.")
    bundle = model.bundle
    if bundle.with_linear:
        raise BadInput(
            f"{bundle.cell_id} decides together with the linear baseline, which holds words of your "
            "cases and is not exported; name the experiment without it."
        )
    if push is not None:
        refuse_push(bundle, push, unsafe)

    from flows.report.card import model_card  # altogether slow to import

    if not adapter:
        print_line(
            errors, "What is written is compared with the trained model on 60 cases: minutes."
        )
    with in_use(model, "export"):
        sizes, agreements, missing_terms = export_model(
            model, home(), folder, model_card, adapter=adapter, gguf=gguf
        )

    megabytes = sum(sizes.values()) / 1e6
    print_line(console, f"{bundle.cell_id} is in {folder}: {megabytes:.1f} MB.")
    for name, agreement in agreements.items():
        print_line(console, f"{name}: {agreement}.")
    if bundle.warning:
        print_line(console, bundle.warning, style="bold red")
    terms = f"The base model's terms go with it: licence {bundle.licence}; see Notice."
    if missing_terms:
        terms += f" Before you pass it on: {missing_terms}."
    print_line(console, terms)
    print_line(console, bundle.notice)
    print_line(
        console,
        'Without triage, in that folder: python example.py < cases.jsonl, a {"text": "..."} a line.',
    )
    print_line(console, f"Next: triage predict {folder} -")

    if push is not None:
        if missing_terms:
            private = "" if public else " --private"
            raise BadInput(
                f"Nothing was pushed: {missing_terms}. The export is in {folder}; "
                f"upload it then with `hf upload {push} {folder}{private}`."
            )
        address = push_folder(folder, push, public, bundle.cell_id)
        readers = "everybody" if public else "you and whom you let"
        print_line(console, f"Pushed to {address}, for {readers} to read.")
