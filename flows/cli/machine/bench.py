"""`triage bench ...`: the options of the benchmarks, whose code is in flows/bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.sweeps.search import SearchedBits, SearchedModel, SearchedRecipe
from flows.cli.sweeps.sweep import Overrides
from flows.cli.terminal import console

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure training, memory, scoring, serving and the warehouse on this machine.",
)

Model = Annotated[str, typer.Option(help="base model")]
Models = Annotated[list[str] | None, typer.Option(help="only this base model (repeatable)")]
Bits = Annotated[int, typer.Option(help="4 or 8")]
Batch = Annotated[int, typer.Option(min=1, max=64, help="cases per step")]
Length = Annotated[int, typer.Option(min=16, max=2048, help="tokens per case")]
Layers = Annotated[int, typer.Option(min=1, help="trained blocks")]
SmokeExperiments = Annotated[
    int, typer.Option(min=1, max=240, metavar="N", help="experiments of the smoke grid")
]
Iterations = Annotated[int, typer.Option(min=8, help="updates of each training")]


@bench.command("train")
def bench_train(
    model: Model = "smollm2-135m",
    bits: Bits = 4,
    batch: Batch = 4,
    length: Length = 128,
    layers: Layers = 16,
    repeats: Annotated[int, typer.Option(min=1, help="timed steps of this engine")] = 5,
    bfloat16: Annotated[
        bool,
        typer.Option("--bfloat16", help="time mlx-lm on the weights as stored, too; very slow"),
    ] = False,
    table: Annotated[
        bool,
        typer.Option("--table", help="measure all settings of the table in tasks/bench/README.md"),
    ] = False,
) -> None:
    """Time one training step of stock mlx-lm and of this engine on the same batch."""
    from flows.bench.training import bench_table
    from flows.bench.training import bench_train as measure

    if table:
        bench_table(console, repeats)
        return
    measure(console, model, bits, batch, length, layers, repeats, bfloat16)


@bench.command("memory")
def bench_memory(
    model: Models = None,
    bits: Annotated[list[int] | None, typer.Option(help="only this precision: 4 or 8")] = None,
    batch: Batch = 1,
    length: Length = 64,
    layers: Layers = 16,
    memory: Annotated[
        str | None,
        typer.Option(help="show the settings that fit this budget here, e.g. 4GB"),
    ] = None,
) -> None:
    """Measure the peak memory of a training step on quantised weights, or within a budget."""
    from flows.bench.memory import MeasuredStep
    from flows.bench.memory import bench_memory as measure

    measure(console, model, bits, MeasuredStep(batch, length, layers, memory))


@bench.command("corpus")
def bench_corpus_(
    grid: Annotated[
        str, typer.Argument(help="grid with the dataset: demo, tuned, or the path of a file")
    ] = "paper",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="change a setting, e.g. data.train_cases=12000 (repeatable)"),
    ] = None,
) -> None:
    """Compare a bag of words with the landed models on the test and the adversarial sets."""
    from flows.bench.corpus import bench_corpus

    bench_corpus(console, grid, set_)


@bench.command("dropout")
def bench_dropout(
    model: Model = "smollm2-135m",
    bits: Bits = 4,
    layers: Annotated[
        list[int] | None, typer.Option(help="trained blocks (repeatable; default: 16 and 8)")
    ] = None,
    cases: Annotated[int, typer.Option(min=3, max=200, help="cases of the dropout passes")] = 20,
    passes: Annotated[int, typer.Option(min=2, max=1000, help="dropout passes per case")] = 50,
    scored: Annotated[
        int,
        typer.Option(min=20, max=1500, help="cases whose scoring is timed, then scaled to 1500"),
    ] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="timed scorings")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="approximate time per engine; the rest is scaled")
    ] = 50,
) -> None:
    """Time dropout passes and scoring from a stored prefix, against full passes and generation."""
    from flows.bench.dropout import Workload
    from flows.bench.dropout import bench_dropout as measure

    workload = Workload(cases, passes, scored, repeats, seconds)
    measure(console, model, bits, layers or [16, 8], workload)


@bench.command("warehouse")
def bench_warehouse_(
    experiments: Annotated[int, typer.Option(metavar="N", help="experiments, an even number")] = 60,
    cases: Annotated[int, typer.Option(metavar="N", help="cases that each is judged on")] = 1500,
) -> None:
    """Time queries, comparison and loading in a synthetic warehouse, and measure its file."""
    from flows.bench.warehouse import StudySize, bench_warehouse

    bench_warehouse(console, StudySize(experiments, cases))


@bench.command("serve")
def bench_serve_(
    experiment: Annotated[
        str, typer.Argument(help="a cell, training or evaluation id, or the beginning of one")
    ],
    requests: Annotated[int, typer.Option(min=20, help="requests of 8 clients")] = 1000,
    texts: Annotated[int, typer.Option(min=10, help="texts of its test set")] = 100,
) -> None:
    """Time `triage predict` and `triage serve` on an experiment's test
    set, and compare their answers.
    """
    from flows.bench.serve import Load, bench_serve

    bench_serve(console, experiment, Load(requests, texts))


@bench.command("search")
def bench_search_(
    grid: Annotated[
        str | None,
        typer.Argument(
            help="grid with a table `search`; without it that of flows/bench/search.toml"
        ),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="number of trials")] = 16,
    set_: Overrides = None,
    model: SearchedModel = None,
    bits: SearchedBits = None,
    recipe: SearchedRecipe = None,
) -> None:
    """Compare a search with the same trials, each trained to its end: what it finds and saves."""
    from flows.search_setup import Limits

    limits = Limits(trials)
    from flows.cli.sweeps.search_run import SearchRequest, run_search

    grid = grid or str(Path(__file__).parents[2] / "bench" / "search.toml")
    request = SearchRequest(grid, list(set_ or []), model, bits, recipe, None, limits)
    if code := run_search(console, request):
        raise SystemExit(code)

    from flows.bench.search import bench_search

    bench_search(console, request.set_up())


@bench.command("chaos")
def bench_chaos_(
    faults: Annotated[int, typer.Option(min=1, metavar="N", help="faults")] = 20,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="no new fault after this many minutes")
    ] = 15,
    seed: Annotated[int, typer.Option(help="draws the kinds and the moments of the faults")] = 1,
    experiments: SmokeExperiments = 24,
    iterations: Iterations = 160,
    folder: Annotated[
        Path | None, typer.Option(help="a new folder for both runs, which is kept")
    ] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="let two workers of a fleet on this machine run it")
    ] = False,
) -> None:
    """Kill, stop and damage a sweep at random, and compare what it lands with an undisturbed one."""
    from flows.bench.chaos.place import Study
    from flows.bench.chaos.storm import Weather, bench_chaos

    study = Study(experiments, iterations)
    if not bench_chaos(console, study, Weather(faults, minutes, seed), folder, pool):
        raise SystemExit(1)


@bench.command("overhead")
def bench_overhead_(
    experiments: SmokeExperiments = 60,
    iterations: Iterations = 40,
    folder: Annotated[
        Path | None, typer.Option(help="a new folder for the sweep, which is kept")
    ] = None,
) -> None:
    """Run a sweep twice and print what it takes beyond its steps' own processes."""
    from flows.bench.chaos.place import Study
    from flows.bench.overhead import bench_overhead

    bench_overhead(console, Study(experiments, iterations), folder)
