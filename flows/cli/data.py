"""`triage data ...`: what is in a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

data = typer.Typer(no_args_is_help=True, help="What is in a data set, and what is wrong with it.")


Source = Annotated[
    str,
    typer.Argument(
        help="embedded, a file, a folder of sets, a Hub dataset (owner/name), or a grid file"
    ),
]


Column = Annotated[str | None, typer.Option(help="its name in your table")]


Words = Annotated[
    list[str] | None,
    typer.Option("--label", help="another label word, e.g. emergency=ED (repeatable)"),
]


Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub dataset")]


@data.command("check")
def data_check(
    source: Source = "embedded",
    text_column: Column = None,
    label_column: Column = None,
    group_column: Column = None,
    rationale_column: Column = None,
    label: Words = None,
    revision: Revision = None,
    listing: Annotated[
        bool, typer.Option("--list", help="list each set's groups and all pairs of near copies")
    ] = False,
) -> None:
    """Rows, labels, lengths, repeats, contradictions, leaks between sets, and the recall that the test set can certify."""
    from flows.cli.data_check import check, wanted

    names = {
        "text": text_column,
        "label": label_column,
        "group": group_column,
        "rationale": rationale_column,
    }
    options = {f"{key}_column": value for key, value in names.items()} | {"revision": revision}
    raise typer.Exit(check(console, *wanted(source, options, label or []), listing))


@data.command("card")
def data_card(
    source: Source = "embedded",
    text_column: Column = None,
    label_column: Column = None,
    group_column: Column = None,
    rationale_column: Column = None,
    label: Words = None,
    revision: Revision = None,
) -> None:
    """The data card: what a data set is, from where, and what it cannot show."""
    from flows.cli.data_check import card, wanted

    names = {
        "text": text_column,
        "label": label_column,
        "group": group_column,
        "rationale": rationale_column,
    }
    options = {f"{key}_column": value for key, value in names.items()} | {"revision": revision}
    card(console, *wanted(source, options, label or []))
