"""`triage sweep`: the options of the command. `run` runs the sweep, `plan` says what would run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from flows.cli.terminal import console
from tasks.runtime.errors import BadInput

GridName = Annotated[
    str,
    typer.Argument(
        help="demo, paper, tuned, study, study_gemma, ablation, smoke, or the path of a grid file"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="change a setting, e.g. recipe.iterations=50 (repeatable)"),
]
Models = Annotated[list[str] | None, typer.Option(help="only this base model (repeatable)")]
Bits = Annotated[list[int] | None, typer.Option(help="only this bit width: 4 or 8")]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", help="only this precision, e.g. bf16 (repeatable)"),
]
Recipes = Annotated[list[str] | None, typer.Option(help="only this recipe (repeatable)")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="only the first N experiments")]
Memory = Annotated[
    str | None,
    typer.Option(help="memory that a training may use, e.g. 4GB; does not change results"),
]
Failed = Annotated[bool, typer.Option("--failed", help="only what failed when it last ran")]
Pool = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="let the machines of this work pool run the experiments"),
]
Plan = Annotated[bool, typer.Option("--plan", help="print what would run, and stop")]


def sweep(
    grid: GridName = "demo",
    set_: Overrides = None,
    model: Models = None,
    bits: Bits = None,
    recipe: Recipes = None,
    limit: Limit = None,
    memory: Memory = None,
    plan: Plan = False,
    precision: Precisions = None,
    failed: Failed = False,
    pool: Pool = None,
) -> None:
    """Run every experiment of a grid that is not finished, and compare 4-bit with 8-bit."""
    from flows.selection import Narrowing, select
    from tasks.runtime.home import check_home
    from warehouse.health import refuse_unusable

    overrides = overrides_of(set_, memory)
    narrowing = Narrowing(model or (), bits or (), recipe or (), limit, precision or ())

    selection = select(grid, overrides, narrowing)
    if selection.grid.search is not None:
        from flows.search_setup import refuse_unsearchable

        refuse_unsearchable(selection, grid, overrides)

    check_home()
    refuse_unusable()
    if failed:
        from flows.selection import failed_cells

        narrowing = replace(narrowing, cells=failed_cells(selection))
        selection = select(grid, overrides, narrowing)

    if plan:
        from flows.cli.sweeps.plan import print_plan

        print_plan(console, selection)
        return

    from flows.cli.sweeps.run import run_sweep

    # Not typer's own exit: after Ctrl-C the sweep has said already what becomes of it.
    raise SystemExit(run_sweep(console, selection, grid, overrides, narrowing, pool))


def overrides_of(set_: list[str] | None, memory: str | None) -> list[str]:
    """The changes of the grid that --set and --memory ask for."""
    overrides = list(set_ or [])
    if memory is not None:
        _check_memory(memory)
        # A JSON string is one of TOML; without quotes 1000000 would be read as a number.
        overrides.append(f"training.memory={json.dumps(memory)}")
    return overrides


def _check_memory(memory: str) -> None:
    from tasks.spec import byte_count

    try:
        byte_count(memory)
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from None
