"""`triage bench ...`: side-by-side measurements."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.terminal import console

bench = typer.Typer(no_args_is_help=True, help="Side-by-side measurements that anyone can repeat.")


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
    from flows.bench.training import bench_table
    from flows.bench.training import bench_train as measure

    if table:
        bench_table(console, repeats)
        return
    measure(console, model, bits, batch, length, layers, repeats, bfloat16)


@bench.command("memory")
def bench_memory(
    model: Annotated[
        list[str] | None, typer.Option(help="only this base model (repeatable)")
    ] = None,
    bits: Annotated[list[int] | None, typer.Option(help="only 4 or only 8")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64)] = 1,
    length: Annotated[int, typer.Option(min=16, max=2048, help="tokens per case")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="trained blocks")] = 16,
    memory: Annotated[
        str | None,
        typer.Option(
            help="what a training may take, e.g. 4GB: show what it makes of that on this machine"
        ),
    ] = None,
) -> None:
    """Peak memory of one training step on quantised weights, as on Metal (slow elsewhere), or within a budget."""
    from flows.bench.memory import bench_memory as measure

    measure(console, model, bits, batch, length, layers, memory)


@bench.command("corpus")
def bench_corpus_(
    grid: Annotated[
        str, typer.Argument(help="whose dataset: demo, paper, or the path of a grid file")
    ] = "paper",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. data.train_cases=12000")
    ] = None,
) -> None:
    """Bag of words against the models landed from the same cases, on the test set and on the adversarial one."""
    from flows.bench.corpus import bench_corpus

    bench_corpus(console, grid, set_)


@bench.command("dropout")
def bench_dropout(
    model: Annotated[str, typer.Option(help="base model")] = "smollm2-135m",
    bits: Annotated[int, typer.Option(help="4 or 8")] = 4,
    layers: Annotated[
        list[int] | None, typer.Option(help="trained blocks (repeatable; else 16 and 8)")
    ] = None,
    cases: Annotated[int, typer.Option(min=3, max=200, help="cases of the dropout passes")] = 20,
    passes: Annotated[int, typer.Option(min=2, max=1000)] = 50,
    scored: Annotated[
        int,
        typer.Option(min=20, max=1500, help="cases whose scoring is timed, then scaled to 1500"),
    ] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="timed scorings")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="about how long each engine is timed; the rest is scaled")
    ] = 50,
) -> None:
    """Dropout passes and scoring from the stored prefix, against full logits over all layers and generation."""
    from flows.bench.dropout import Workload
    from flows.bench.dropout import bench_dropout as measure

    workload = Workload(cases, passes, scored, repeats, seconds)
    measure(console, model, bits, layers or [16, 8], workload)
