"""`triage clean`: removes what no result refers to and nobody has used for long."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

Older = Annotated[
    str, typer.Option(help="remove only what has been unused this long, e.g. 30d or 12h")
]
Unreferenced = Annotated[
    bool,
    typer.Option("--unreferenced", help="remove only prefixes of models that no result refers to"),
]
Yes = Annotated[bool, typer.Option("--yes", help="remove it; without this, only say what would go")]


def clean(older: Older = "30d", unreferenced: Unreferenced = False, yes: Yes = False) -> None:
    """Remove stored models, prefixes, adapters and cases that no result refers to."""
    from flows.cli.storage.cache_prune import prune_cache

    prune_cache(console, older, unreferenced, not yes)
