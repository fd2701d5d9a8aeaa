"""The `triage` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from tasks.runtime.errors import TriageError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
bench = typer.Typer(no_args_is_help=True, help="Side-by-side measurements that anyone can repeat.")
app.add_typer(bench, name="bench")
data = typer.Typer(no_args_is_help=True, help="What is in a data set, and what is wrong with it.")
app.add_typer(data, name="data")
# Where output is a file or a pipe there is no width to fit: tables get what they need.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, highlight=False, markup=False)

USAGE_ERROR: Any = typer.BadParameter.__base__  # of click, or of the copy of it that typer brings

Prevalence = Annotated[float | None, typer.Option(help="restate precision and F2 at this share of emergencies")]
Many = Annotated[list[str] | None, typer.Option()]


@app.command()
def sweep(
    grid: Annotated[
        str, typer.Argument(help="demo, paper, long, ablation, smoke, or the path of a grid file")
    ] = "demo",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. recipe.iterations=50")] = None,
    model: Annotated[list[str] | None, typer.Option(help="only this base model (repeatable)")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="only 4 or only 8")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="only this recipe (repeatable)")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first N experiments")] = None,
    memory: Annotated[
        str | None, typer.Option(help="what a training may take, e.g. 4GB; never changes results")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would run, and stop")] = False,
) -> None:
    """Run every experiment of a grid, skip what is done, and compare 4-bit with 8-bit."""
    from flows.selection import select

    if memory is not None:
        set_ = [*(set_ or []), f"training.memory={json.dumps(memory)}"]
    selection = select(grid, set_, model, bits, recipe, limit)
    if plan:
        from flows.report import print_plan

        print_plan(console, selection)
        return
    from flows.run import run_sweep

    try:
        code = run_sweep(console, selection, grid, set_, model, bits, recipe, limit)
    except KeyboardInterrupt:
        errors.print(
            "triage: interrupted. What is finished is kept; the same command goes on from here.", soft_wrap=True
        )
        code = 130
    raise typer.Exit(code)


@app.command()
def status() -> None:
    """Each experiment here: its training done, resumable or not finished, whether it is scored, and what has landed."""
    from flows.report import print_status

    print_status(console)


@app.command()
def compare(prevalence: Prevalence = None) -> None:
    """Leaderboard and the 4-bit against 8-bit comparison, from the warehouse."""
    from flows.report import print_comparison

    print_comparison(console, prevalence=prevalence)


@app.command()
def gates(
    experiment: Annotated[str, typer.Argument(help="a cell, training or evaluation id, or the beginning of one")],
    show_text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="also show missed cases' texts, read from this file of yours")
    ] = None,
    prevalence: Prevalence = None,
) -> None:
    """The safety gates of an experiment with counts, bounds and methods, and the emergencies that were missed."""
    from flows.gates import print_gates

    print_gates(console, experiment, show_text, prevalence)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="one SELECT statement")],
    csv: Annotated[bool, typer.Option("--csv", help="comma-separated values instead of a table")] = False,
) -> None:
    """Ask the warehouse (read-only), e.g. triage sql "SELECT * FROM quantization_comparison"."""
    from flows.report import print_frame
    from warehouse.query import query as ask

    frame = ask(query)
    if csv:
        sys.stdout.write(frame.to_csv(index=False))
    else:
        print_frame(console, frame)


@app.command()
def models() -> None:
    """Exact stored bytes of every variant, and how much of each model a recipe trains."""
    from flows.models import print_models

    print_models(console)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="made if it is not there")]) -> None:
    """Write an own grid and an own-data example that run, to be changed into a study."""
    from flows.init import init as write

    write(console, folder)


@app.command()
def doctor(
    selftest: Annotated[
        bool, typer.Option("--selftest", help="also compute on tiny models, and write a report")
    ] = False,
) -> None:
    """Is this machine ready? Hardware, libraries, network, disk, server and warehouse, with remedies."""
    from flows.doctor import doctor as examine

    raise typer.Exit(examine(console, selftest))


@app.command()
def up(port: Annotated[int, typer.Option(min=1024, max=65535, help="port of the UI on 127.0.0.1")] = 4200) -> None:
    """Start the Prefect server, work pool, worker and deployments on this machine, until Ctrl-C."""
    import flows.settings  # noqa: F401
    from deployments.up import up as start

    start(port, lambda line: console.print(line, soft_wrap=True))


@bench.command("train")
def bench_train(
    model: Annotated[str, typer.Option(help="base model")] = "smollm2-135m",
    bits: Annotated[int, typer.Option(help="4 or 8")] = 4,
    batch: Annotated[int, typer.Option(min=1, max=64)] = 4,
    length: Annotated[int, typer.Option(min=16, max=2048, help="tokens per case")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="trained blocks")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="timed steps of our engine")] = 5,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="also stock with the weights as stored; very slow")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="all cases of the README's table, one after the other")
    ] = False,
) -> None:
    """One training step: stock mlx-lm as installed against ours, same batch, each in a process of its own."""
    from flows.bench import bench_table, bench_train as measure

    if table:
        bench_table(console, repeats)
        return
    measure(console, model, bits, batch, length, layers, repeats, bfloat16)


@bench.command("memory")
def bench_memory(
    model: Annotated[list[str] | None, typer.Option(help="only this base model (repeatable)")] = None,
    bits: Annotated[list[int] | None, typer.Option(help="only 4 or only 8")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64)] = 1,
    length: Annotated[int, typer.Option(min=16, max=2048, help="tokens per case")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="trained blocks")] = 16,
    memory: Annotated[
        str | None, typer.Option(help="what a training may take, e.g. 4GB: show what it makes of that on this machine")
    ] = None,
) -> None:
    """Peak memory of one training step on quantised weights, as on Metal (slow elsewhere), or within a budget."""
    from flows.bench_memory import bench_memory as measure

    measure(console, model, bits, batch, length, layers, memory)


@bench.command("corpus")
def bench_corpus_(
    grid: Annotated[str, typer.Argument(help="whose dataset: demo, paper, or the path of a grid file")] = "paper",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. data.train_cases=12000")] = None,
) -> None:
    """Bag of words against the models landed from the same cases, on the test set and on the adversarial one."""
    from flows.bench_corpus import bench_corpus

    bench_corpus(console, grid, set_)


Source = Annotated[
    str, typer.Argument(help="embedded, a file, a folder of sets, a Hub dataset (owner/name), or a grid file")
]
Column = Annotated[str | None, typer.Option(help="its name in your table")]
Words = Annotated[list[str] | None, typer.Option("--label", help="another label word, e.g. emergency=ED (repeatable)")]
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
    from flows.data import check, wanted

    names = {"text": text_column, "label": label_column, "group": group_column, "rationale": rationale_column}
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
    from flows.data import card, wanted

    names = {"text": text_column, "label": label_column, "group": group_column, "rationale": rationale_column}
    options = {f"{key}_column": value for key, value in names.items()} | {"revision": revision}
    card(console, *wanted(source, options, label or []))


@bench.command("dropout")
def bench_dropout(
    model: Annotated[str, typer.Option(help="base model")] = "smollm2-135m",
    bits: Annotated[int, typer.Option(help="4 or 8")] = 4,
    layers: Annotated[list[int] | None, typer.Option(help="trained blocks (repeatable; else 16 and 8)")] = None,
    cases: Annotated[int, typer.Option(min=3, max=200, help="cases of the dropout passes")] = 20,
    passes: Annotated[int, typer.Option(min=2, max=1000)] = 50,
    scored: Annotated[
        int, typer.Option(min=20, max=1500, help="cases whose scoring is timed, then scaled to 1500")
    ] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="timed scorings")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="about how long each engine is timed; the rest is scaled")
    ] = 50,
) -> None:
    """Dropout passes and scoring from the stored prefix, against full logits over all layers and generation."""
    from flows.bench_dropout import bench_dropout as measure

    measure(console, model, bits, layers or [16, 8], cases, passes, scored, repeats, seconds)


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


if __name__ == "__main__":
    main()
