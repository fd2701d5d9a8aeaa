"""What the benchmarks share: how they are started, and the quantised model that is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import typer
from rich.table import Table

from deployments.interruptions import interrupted_by_signals
from flows.cli.terminal import console, print_error
from tasks.grids.grid import known_models
from tasks.models.convert import QuantizeJob
from tasks.models.manifest import has_random_weights
from tasks.models.sizes import is_known
from tasks.models.sources.fetch import fetch_base
from tasks.precisions import of_bits
from tasks.runtime.backend import versions
from tasks.runtime.children import run_child, stop_children
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError
from tasks.runtime.home import home
from tasks.spec import BaseModelSpec, RandomSource, Training

OF_ONE_SEED = 8  # experiments of the smoke grid
WHEELS_OWN_BLAS = {"TRIAGE_BLAS": "none"}  # MLX as it is installed


def run(benchmark: Callable[..., None]) -> None:
    """Run a benchmark with options from the command line; a mistake there ends in a sentence."""
    try:
        with interrupted_by_signals():
            typer.run(benchmark)
    except TriageError as error:
        print_error(str(error))
        raise SystemExit(2) from None
    finally:
        stop_children()


def print_rows(title: str, rows: list[dict[str, str]]) -> None:
    """Print a table of rows that all have the same keys."""
    measured_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    table = Table(*rows[0], title=f"{title} ({measured_with})", title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def smoke_sweep(experiments: int, iterations: int) -> list[str]:
    """What follows `triage`: a sweep of so many experiments of the smoke grid, each of so many
    updates with a checkpoint every 8 updates.
    """
    seeds = list(range(1, 1 + -(-experiments // OF_ONE_SEED)))
    settings = {"seeds": seeds, "recipe.iterations": iterations, "training.evaluate_every": 8}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["sweep", "smoke", "--limit", str(experiments), *changes]


def variant_of(model: str, bits: int) -> Path:
    """Folder of the quantised model, made first if it is not on this machine.

    Where its weights cannot be had, random ones of its shape are used, which is printed: memory
    and speed are the same. Raises BadInput for an unknown model.
    """
    models = known_models()
    if model not in models:
        raise BadInput(f"Unknown base model {model!r}; known are {', '.join(sorted(models))}.")

    job = QuantizeJob(
        source=_source_of(models[model]), root=home(), precision=of_bits(bits), group_size=Training().group_size
    )
    log = home() / "logs" / f"quantize-{model}-{bits}bit"
    made = run_child("tasks.models.convert:run_quantize", job.model_dump(mode="json"), log)
    return Path(made["folder"])


def _source_of(model: BaseModelSpec) -> Path:
    try:
        return fetch_base(model, home())
    except SourceUnavailable as error:
        if not is_known(model.name):
            raise
        console.print(f"{error} Random weights of its shape are used.", soft_wrap=True)
        random = RandomSource(kind="random", shape=model.name)
        return fetch_base(model.model_copy(update={"sources": (random,)}), home())


def name_of(model: str, bits: int, variant: Path) -> str:
    """A variant as the tables name it."""
    return f"{model} {bits}bit{' (random weights)' if has_random_weights(variant) else ''}"


def blocks_of(variant: Path, layers: int) -> int:
    """How many blocks a variant has. Raises BadInput if `layers` of them cannot be trained."""
    config = json.loads((variant / "config.json").read_text(encoding="utf-8"))
    blocks = int(config["num_hidden_layers"])
    if not 1 <= layers <= blocks:
        raise BadInput(f"--layers {layers}: the model has {blocks} blocks; give 1 to {blocks}.")
    return blocks
