"""`triage cache`: the options of its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

cache = typer.Typer(no_args_is_help=True, help="Why an experiment was trained again.")

Experiment = Annotated[str, typer.Argument(help="a cell or training id, as `triage status` has it")]


@cache.callback()
def group() -> None:
    """Why an experiment was trained again."""


@cache.command()
def explain(experiment: Experiment) -> None:
    """Name what made an experiment train again, against the most similar earlier training."""
    from flows.cli.cache_explain import print_explanation

    print_explanation(console, experiment)
