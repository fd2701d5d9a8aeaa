"""`triage studies`: the options of its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

studies = typer.Typer(help="List the studies of the warehouse, compare two, or forget one.")

Name = Annotated[str, typer.Argument(help="name of a study, as `triage studies` lists it")]
Yes = Annotated[bool, typer.Option("--yes", help="forget it; without this, only say what would go")]


@studies.callback(invoke_without_command=True)
def list_studies(context: typer.Context) -> None:
    """List the studies of the warehouse, the one of the last sweep first."""
    if context.invoked_subcommand is None:
        from flows.cli.results.studies_report import print_studies

        print_studies(console)


@studies.command()
def compare(first: Name, second: Name) -> None:
    """Show two studies side by side, experiment by experiment."""
    from flows.cli.results.studies_report import print_two_studies

    print_two_studies(console, first, second)


@studies.command()
def forget(name: Name, yes: Yes = False) -> None:
    """Forget a study: its results, unless another study holds them too. Adapters stay."""
    from flows.cli.results.studies_report import forget_study

    forget_study(console, name, yes)
