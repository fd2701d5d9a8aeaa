"""`triage data ...`: what is in a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

data = typer.Typer(
    no_args_is_help=True, help="Check a dataset, show its data card, or forget what came from it."
)

Source = Annotated[
    str,
    typer.Argument(
        help="embedded, a file, a folder of sets, a Hub dataset (owner/name), or a grid file"
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="column with the message (else text)")]
LabelColumn = Annotated[str | None, typer.Option(help="column with the label (else label)")]
IdColumn = Annotated[
    str | None, typer.Option(help="column with the case's id, different in every row")
]
GroupColumn = Annotated[
    str | None, typer.Option(help="column with the group; its cases stay in one set")
]
RationaleColumn = Annotated[
    str | None, typer.Option(help="column with the reason for the label, never in a prompt")
]
Words = Annotated[
    list[str] | None,
    typer.Option("--label", help="another label word, e.g. emergency=ED (repeatable)"),
]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub dataset")]
Listing = Annotated[
    bool, typer.Option("--list", help="list each set's groups and all pairs of near copies")
]

Named = Annotated[
    str,
    typer.Argument(
        metavar="data",
        help="a data set: its name, name-digest or digest, or a grid that names it",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="remove it; without this, only say what would go")]


@data.command("check")
def data_check(
    source: Source = "embedded",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    rationale_column: RationaleColumn = None,
    label: Words = None,
    revision: Revision = None,
    listing: Listing = False,
) -> None:
    """Check rows, labels, repeats, contradictions, leaks, and the recall that test can certify."""
    from flows.cli.storage.data_check import check, request

    settings = {
        "text_column": text_column,
        "label_column": label_column,
        "id_column": id_column,
        "group_column": group_column,
        "rationale_column": rationale_column,
        "revision": revision,
    }
    raise typer.Exit(check(console, request(source, settings, label or []), listing))


@data.command("card")
def data_card(
    source: Source = "embedded",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    rationale_column: RationaleColumn = None,
    label: Words = None,
    revision: Revision = None,
) -> None:
    """Show the data card: what a dataset is, where it comes from, and what it cannot show."""
    from flows.cli.storage.data_check import card, request

    settings = {
        "text_column": text_column,
        "label_column": label_column,
        "id_column": id_column,
        "group_column": group_column,
        "rationale_column": rationale_column,
        "revision": revision,
    }
    card(console, request(source, settings, label or []))


@data.command("forget")
def data_forget(data: Named, yes: Yes = False) -> None:
    """Remove the texts, prefixes, adapters and scores that came from a data set."""
    from flows.cli.storage.forget_report import forget_data

    forget_data(console, data, yes)
