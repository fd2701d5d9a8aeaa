"""What `triage export` prints and does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows.cli.models.find_model import find_model
from flows.cli.terminal import print_line
from tasks.bundle.asking import in_use
from tasks.bundle.bundle import BundledModel, ExportAgreement
from tasks.bundle.export import EXAMPLE, Exported, export, refuse_filled
from tasks.bundle.push import Target, push, refuse_push
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home


@dataclass(frozen=True)
class ExportRequest:
    """What was asked for on the command line."""

    experiment: str
    folder: Path
    fuse: bool
    gguf: bool
    push: str | None
    public: bool
    unsafe: bool

    @property
    def target(self) -> Target | None:
        """Where to push to. Raises BadInput for options that mean nothing without it."""
        if self.push is not None:
            return Target(self.push, self.public)
        for name, is_given in (("--public", self.public), ("--unsafe", self.unsafe)):
            if is_given:
                raise BadInput(f"{name} is about a push; add --push REPO, or leave it out.")
        return None


def export_experiment(console: Console, request: ExportRequest) -> None:
    """Export an experiment, and push it where that was asked for.

    Nothing is written before everything that can be refused is, except that a push
    without a text of the terms is refused when the folder, which that is to be added
    to, is there. Raises BadInput.
    """
    target = request.target
    refuse_filled(request.folder)
    model = find_model(request.experiment)
    if model.folder != home():
        raise BadInput(f"{request.experiment} is an export already; name the experiment itself.")

    if target is not None:
        refuse_push(model.bundle, target, request.unsafe)

    with in_use(model, "export"):
        exported = export(model, home(), request.folder, fuse=request.fuse, gguf=request.gguf)
    _say(console, model, exported)

    if target is not None:
        _refuse_without_terms(exported, target)
        address = push(exported.folder, target, model.bundle.cell_id)
        readers = "everybody" if target.public else "you and whom you let"
        print_line(console, f"Pushed to {address}, for {readers} to read.")


def _refuse_without_terms(exported: Exported, target: Target) -> None:
    """Raise BadInput where the base model's terms ask for a text that is not in the export."""
    if exported.missing_terms:
        private = "" if target.public else " --private"
        raise BadInput(
            f"Nothing was pushed: {exported.missing_terms}. The export is in {exported.folder}; "
            f"upload it then with `hf upload {target.repo} {exported.folder}{private}`."
        )


def _say(console: Console, model: BundledModel, exported: Exported) -> None:
    bundle = model.bundle
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in list(exported.sizes.items())[:3])
    print_line(
        console,
        f"{bundle.cell_id} is in {exported.folder}: {exported.size / 1e6:.1f} MB ({parts}).",
    )

    for name, agreement in (
        ("The fused weights", exported.result.fused),
        ("model.gguf", exported.result.gguf),
    ):
        if agreement is not None:
            print_line(console, _agreement(name, agreement))

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


def _agreement(name: str, agreement: ExportAgreement) -> str:
    return (
        f"{name}: on {agreement.cases} cases a probability differs from the trained model's by up "
        f"to {agreement.largest:.1e}; {agreement.differing_decisions}."
    )
