"""`triage search`: the options of the command. `search_run` runs it."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.sweep import Memory, Overrides, overrides_of
from flows.cli.terminal import console

SearchedModel = Annotated[str | None, typer.Option(help="base model; else the grid's first")]
SearchedBits = Annotated[int | None, typer.Option(help="4 or 8; else the grid's first")]
SearchedRecipe = Annotated[
    str | None, typer.Option(help="recipe whose settings vary; else the grid's first")
]


def search(
    grid: Annotated[str, typer.Argument(help="name or path of a grid with a table `search`")],
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="number of trials; 16 without --hours")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="H",
            help="as many trials as can be finished in H hours, counted from this command's start",
        ),
    ] = None,
    set_: Overrides = None,
    model: SearchedModel = None,
    bits: SearchedBits = None,
    recipe: SearchedRecipe = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of the trainings; else the grid's first")
    ] = None,
    memory: Memory = None,
) -> None:
    """Look for a recipe in the ranges of a grid's table `search`, on valid alone."""
    from flows.search_setup import Limits
    from tasks.runtime.home import check_home
    from warehouse.health import refuse_unusable

    overrides = overrides_of(set_, memory)
    limits = Limits(trials, hours)
    check_home()
    refuse_unusable()

    from flows.cli.sweeps.search_run import SearchRequest, run_search

    request = SearchRequest(grid, overrides, model, bits, recipe, seed, limits)
    # Not typer's own exit: after Ctrl-C the search has said already what becomes of it.
    raise SystemExit(run_search(console, request))
