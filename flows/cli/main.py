"""The `triage` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows.cli.bench import bench
from flows.cli.data import data
from flows.cli.terminal import Prevalence, console, errors
from tasks.runtime.errors import TriageError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")

USAGE_ERROR: Any = typer.BadParameter.__base__  # of click, or of the copy of it that typer brings

Many = Annotated[list[str] | None, typer.Option()]


@app.command()
def sweep(
    grid: Annotated[
        str, typer.Argument(help="demo, paper, long, ablation, smoke, or the path of a grid file")
    ] = "demo",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. recipe.iterations=50")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="only this base model (repeatable)")
    ] = None,
    bits: Annotated[list[int] | None, typer.Option(help="only 4 or only 8")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="only this recipe (repeatable)")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first N experiments")] = None,
    memory: Annotated[
        str | None, typer.Option(help="what a training may take, e.g. 4GB; never changes results")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would run, and stop")] = False,
) -> None:
    """Run every experiment of a grid, skip what is done, and compare 4-bit with 8-bit."""
    from flows.selection import Narrowing, select

    if memory is not None:
        set_ = [*(set_ or []), f"training.memory={json.dumps(memory)}"]
    narrowing = Narrowing(model or (), bits or (), recipe or (), limit)
    selection = select(grid, set_, narrowing)
    if plan:
        from flows.cli.plan import print_plan

        print_plan(console, selection)
        return
    from flows.cli.sweep import run_sweep

    try:
        code = run_sweep(console, selection, grid, set_, narrowing)
    except KeyboardInterrupt:
        errors.print(
            "triage: interrupted. What is finished is kept; the same command goes on from here.",
            soft_wrap=True,
        )
        code = 130
    raise typer.Exit(code)


@app.command()
def status() -> None:
    """Each experiment here: its training done, resumable or not finished, whether it is scored, and what has landed."""
    from flows.cli.status import print_status

    print_status(console)


@app.command()
def compare(prevalence: Prevalence = None) -> None:
    """Leaderboard and the 4-bit against 8-bit comparison, from the warehouse."""
    from flows.cli.compare import print_comparison

    print_comparison(console, prevalence=prevalence)


@app.command()
def gates(
    experiment: Annotated[
        str, typer.Argument(help="a cell, training or evaluation id, or the beginning of one")
    ],
    show_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="also show missed cases' texts, read from this file of yours"
        ),
    ] = None,
    prevalence: Prevalence = None,
) -> None:
    """The safety gates of an experiment with counts, bounds and methods, and the emergencies that were missed."""
    from flows.cli.gates import print_gates

    print_gates(console, experiment, show_text, prevalence)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="one SELECT statement")],
    csv: Annotated[
        bool, typer.Option("--csv", help="comma-separated values instead of a table")
    ] = False,
) -> None:
    """Ask the warehouse (read-only), e.g. triage sql "SELECT * FROM quantization_comparison"."""
    from flows.report.frames import print_frame
    from warehouse.query import query as ask

    frame = ask(query)
    if csv:
        sys.stdout.write(frame.to_csv(index=False))
    else:
        print_frame(console, frame)


@app.command()
def models() -> None:
    """Exact stored bytes of every variant, and how much of each model a recipe trains."""
    from flows.cli.models import print_models

    print_models(console)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="made if it is not there")],
) -> None:
    """Write an own grid and an own-data example that run, to be changed into a study."""
    from flows.cli.init import init as write

    write(console, folder)


@app.command()
def doctor(
    selftest: Annotated[
        bool, typer.Option("--selftest", help="also compute on tiny models, and write a report")
    ] = False,
) -> None:
    """Is this machine ready? Hardware, libraries, network, disk, server and warehouse, with remedies."""
    from flows.cli.doctor import doctor as examine

    raise typer.Exit(examine(console, selftest))


@app.command()
def up(
    port: Annotated[
        int, typer.Option(min=1024, max=65535, help="port of the UI on 127.0.0.1")
    ] = 4200,
) -> None:
    """Start the Prefect server, work pool, worker and deployments on this machine, until Ctrl-C."""
    from deployments.up import up as start

    start(port, lambda line: console.print(line, soft_wrap=True))


def main() -> None:
    """Entry point: a user's mistake ends in one sentence and exit code 2, never in a traceback."""
    try:
        code = app(standalone_mode=False)
    except TriageError as error:
        _end(str(error))
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # no mistake: `triage` alone asks what there is
            raise SystemExit(0) from None
        text = error.format_message()
        _end(text if text.endswith((".", "?")) else f"{text}.")
    raise SystemExit(code)


def _end(sentence: str) -> NoReturn:
    errors.print(f"triage: {sentence}", style="bold red", soft_wrap=True)
    raise SystemExit(2)
