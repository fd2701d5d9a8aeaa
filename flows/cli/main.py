"""Fine-tune small language models on triage cases, and compare 4-bit with 8-bit."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from deployments.interruptions import INTERRUPTED
from flows.cli.terminal import console, print_error, written_by_its_end
from tasks.runtime.backend import backend
from tasks.runtime.errors import TriageError

# `triage -h` lists the commands in this order, with these words. A command NAME is the function, or
# the group of commands, NAME in the file flows/cli/NAME.py.
COMMANDS = {
    "sweep": "Run every experiment of a grid that is not finished, and compare 4-bit with 8-bit.",
    "search": "Look for a recipe in the ranges of a grid's table `search`, on valid alone.",
    "status": "Show what is trained, scored and landed, with the result on the test set.",
    "compare": "Compare 4-bit with 8-bit experiments of a study: the answer, and a line a model.",
    "gates": "Show an experiment's safety gates, and the emergencies that it missed.",
    "report": "Write a study's report: one HTML file with charts, tables and single cases.",
    "best": "Rank models on `valid`, and show the test figures of the best one alone.",
    "predict": "Ask a trained model about a text, or about each text of a file.",
    "serve": "Answer requests to decide texts over HTTP, for programs on this machine, until Ctrl-C.",
    "export": "Write a trained model as a folder that stands alone, with a model card and an example.",
    "models": "Show the exact size of each variant, and how much of each model a recipe trains.",
    "sql": "Query the warehouse (read-only), e.g. triage sql four_bits_against_eight.",
    "data": "Check a dataset, show its data card, or forget what came from it.",
    "warehouse": "Check, merge or rebuild the file with all results; list or forget its studies.",
    "clean": "Remove stored models, prefixes, adapters and cases that no result refers to.",
    "init": "Create a starter grid and sample data in DIR, ready to run and edit.",
    "doctor": "Check that this machine is ready: hardware, libraries, network, disk, server, warehouse.",
    "up": "Start the Prefect server, its UI and workers on this machine, until Ctrl-C.",
}
# Further words may be a patient's text, which is not repeated.
TEXT_AS_WORDS = (
    "A text is not given as an argument: write - and give it on standard input, or name a file with "
    "--file."
)
USAGE_ERROR: Any = typer.BadParameter.__base__  # of click, or of the copy of it that typer brings


class Commands(TyperGroup):
    """Imports the file of a command when it is typed, and no other: each takes tenths of a second."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            self.add_command(_imported(args[0]), args[0])
        return super().resolve_command(ctx, args)


def _imported(name: str) -> Any:
    command = getattr(import_module(f"flows.cli.{name}"), name)
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(command)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command_name, line in COMMANDS.items():
    app.command(command_name, help=line)(lambda: None)


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
            code = app(prog_name="triage", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):  # the latter while a slow reader is waited for
        code = INTERRUPTED
    except TriageError as error:
        _end(str(error))
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # `triage` alone asks for the list of commands, which is no mistake
            raise SystemExit(0) from None
        _end(usage_sentence(error))

    if code == INTERRUPTED:  # so typer ends a command that says nothing about Ctrl-C itself
        print_error("Interrupted.")
    raise SystemExit(code)


def _end(sentence: str) -> NoReturn:
    print_error(sentence)
    raise SystemExit(2)


def usage_sentence(error: Any) -> str:
    """The sentence for a mistake in the arguments: what the parser says, and what helps.

    `error`: a UsageError of click, or of the copy of it that typer brings.
    """
    text = error.format_message().replace("Value error, ", "").rstrip(".")
    command = error.ctx.command_path if error.ctx else "triage"
    if "unexpected extra argument" in text:
        if command == "triage predict":
            return TEXT_AS_WORDS
        text += "; put quotes around a query, and around a path with spaces"
    return text if text.endswith("?") else f"{text}; see {command} -h."
