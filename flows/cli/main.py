"""Fine-tune small language models on triage cases, and compare 4-bit with 8-bit."""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer

from deployments.interruptions import INTERRUPTED
from flows.cli.clean import clean
from flows.cli.machine.bench import bench
from flows.cli.machine.doctor import doctor
from flows.cli.machine.fleet import fleet, join
from flows.cli.machine.init import init
from flows.cli.machine.up import up
from flows.cli.models.best import best
from flows.cli.models.export import export
from flows.cli.models.predict import predict
from flows.cli.models.serve import serve
from flows.cli.results.claims import claims
from flows.cli.results.compare import compare
from flows.cli.results.gates import gates
from flows.cli.results.report import report
from flows.cli.results.status import status
from flows.cli.results.studies import studies
from flows.cli.standard_output import written_by_its_end
from flows.cli.storage.data import data
from flows.cli.storage.sql import sql
from flows.cli.storage.warehouse import warehouse
from flows.cli.sweeps.search import search
from flows.cli.sweeps.sweep import sweep
from flows.cli.terminal import console, print_error
from flows.cli.usage import usage_sentence
from tasks.runtime.backend import backend
from tasks.runtime.errors import TriageError

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
USAGE_ERROR: Any = typer.BadParameter.__base__  # of click, or of the copy of it that typer brings


def models() -> None:
    """Show the exact size of each variant, and how much of each model a recipe trains."""
    from flows.cli.models.sizes import print_models

    print_models(console)


SEE = (status, compare, report, claims, gates)
USE = (best, predict, serve, export)
# `triage -h` lists the commands in this order.
for command in (sweep, search, *SEE, *USE, sql, models, clean, init, doctor, up, join, fleet):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(studies, name="studies")
app.add_typer(warehouse, name="warehouse")


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        console.print(f"triage {version('triage-sweep')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Options of `triage` itself."""
    # Named in the environment: a mistake there is said before anything runs.
    backend()


def main() -> None:
    """A user's mistake ends in one sentence and exit code 2, never in a traceback."""
    try:
        with written_by_its_end():
            # Else typer would print errors and exit by itself; it raises them, and returns a code.
            code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):  # the latter while a slow reader is waited for
        code = INTERRUPTED
    except TriageError as error:
        _end(str(error))
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # `triage` alone asks for the list of commands, which is no mistake
            raise SystemExit(0) from None
        _end(usage_sentence(error, sys.argv[1:]))

    if code == INTERRUPTED:  # so typer ends a command that says nothing about Ctrl-C itself
        print_error("Interrupted.")
    raise SystemExit(code)


def _end(sentence: str) -> NoReturn:
    print_error(sentence)
    raise SystemExit(2)
