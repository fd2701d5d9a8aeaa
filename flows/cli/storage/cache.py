"""`triage cache`: the options of its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

cache = typer.Typer(no_args_is_help=True)

Older = Annotated[
    str, typer.Option(help="remove only what has been unused this long, e.g. 30d or 12h")
]
Unreferenced = Annotated[
    bool,
    typer.Option("--unreferenced", help="remove only prefixes of models that no result refers to"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="show what would be removed, and remove nothing")
]
Experiment = Annotated[str, typer.Argument(help="a cell or training id, as `triage status` has it")]


@cache.callback()
def group() -> None:
    """Explain why an experiment was trained again, and remove what no result needs."""


@cache.command()
def explain(experiment: Experiment) -> None:
    """Show why an experiment was trained again, against the most similar earlier training."""
    from flows.cli.storage.cache_explain import print_explanation

    print_explanation(console, experiment)


@cache.command()
def prune(
    older: Older = "30d", unreferenced: Unreferenced = False, dry_run: DryRun = False
) -> None:
    """Remove stored models, prefixes, adapters and cases that no result refers to."""
    from flows.cli.storage.cache_prune import prune_cache

    prune_cache(console, older, unreferenced, dry_run)
