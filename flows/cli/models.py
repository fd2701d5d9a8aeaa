"""`triage models`: exact sizes of the study's variants, and how much of each model a recipe trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.grid import known_models, load_grid
from tasks.models.expected_sizes import expected_sizes, known_config, lora_parameters
from tasks.models.sources import stored
from tasks.models.stored_sizes import PARTS, stored_sizes
from tasks.runtime.store import complete, home, read_manifest
from tasks.spec import BaseModelSpec, Grid

STUDY = "paper"
PRECISIONS = (4, 8, None)  # None: bfloat16, the reference


@dataclass(frozen=True)
class Size:
    """One row: a model folder that is there (`measured`), or what its shape says it will be."""

    base_model: str
    bits: int | None
    source: str
    measured: bool
    sizes: dict[str, Any]
    expected: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.base_model} {f'{self.bits}bit' if self.bits else 'bf16'}"


def print_models(console: Console) -> None:
    """Print both tables for the models, bits and recipes of the paper grid. Asks no network and loads no weights."""
    grid = load_grid(STUDY)
    rows = list(model_sizes(grid, home()))
    group_size = grid.training.group_size
    columns = ("model and weights", "bytes", *PARTS, "bits per weight")
    table = Table(
        title=f"Stored bytes of all tensors (group size {group_size}, bfloat16 scales and biases)",
        title_justify="left",
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    for row in rows:
        parts = (f"{row.sizes['bytes_by_part'][part]:,}" for part in PARTS)
        total, ratio = f"{row.sizes['stored_bytes']:,}", f"{row.sizes['bits_per_weight']:.3f}"
        table.add_row(f"{row.name}\n  {row.source}", total, *parts, ratio)
    console.print(table)
    console.print(
        "Measured where weights are named; computed from the model's shape where they are not fetched."
    )
    for row in rows:
        if text := disagreement(row):
            console.print(f"WARNING  {text}", style="bold yellow", soft_wrap=True)
    console.print(_trainable(grid))


def model_sizes(grid: Grid, root: Path) -> Iterator[Size]:
    """A row for each base model and precision of a grid; several where a variant was made of several sources."""
    models = known_models(grid)
    for name in grid.models:
        config = known_config(name)
        for bits in PRECISIONS:
            expected = expected_sizes(config, bits, grid.training.group_size)
            found = list(_folders(root, name, bits, grid.training.group_size))
            for folder, manifest in found:
                yield Size(
                    name, bits, _source(manifest), True, stored_sizes(folder, bits), expected
                )
            if not found:
                yield Size(name, bits, _not_made(models[name], root), False, expected, expected)


def disagreement(row: Size) -> str | None:
    """A sentence if a folder does not hold the bytes that its shape gives, part by part; else None."""
    if row.sizes == row.expected:
        return None
    got, due = row.sizes["bytes_by_part"], row.expected["bytes_by_part"]
    parts = [
        f"{part} {got[part]:,} where its shape gives {due[part]:,}"
        for part in PARTS
        if got[part] != due[part]
    ]
    what = (
        ", ".join(parts)
        or f"{row.sizes['parameters']:,} parameters where its shape gives {row.expected['parameters']:,}"
    )
    return f"{row.name} ({row.source}) holds {what}: it is another model than the study's, or was not quantised as named."


def _folders(
    root: Path, name: str, bits: int | None, group_size: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    pattern = f"{name}-{f'{bits}bit' if bits else 'base'}-*"
    for folder in sorted((root / "models").glob(pattern)):
        manifest = complete(folder)
        if manifest is not None and manifest["group_size"] in (group_size, None):
            yield folder, manifest


def _source(manifest: dict[str, Any]) -> str:
    if manifest["random_weights"]:
        return str(manifest["weights_source"])  # says that they are random
    return f"{manifest['weights_source']}, {manifest['original_precision']}"


def _not_made(model: BaseModelSpec, root: Path) -> str:
    place = stored(model, root)
    manifest = read_manifest(place) if place else None
    return (
        f"fetched ({manifest['weights_source']}), not converted yet" if manifest else "not fetched"
    )


def _trainable(grid: Grid) -> Table:
    """Trainable parameters of each recipe on each base model, and their share of the model's own parameters."""
    training = grid.training
    modules = " and ".join(name.rpartition(".")[2] for name in training.target_modules)
    table = Table(
        title=f"Trainable parameters and their share (LoRA on {modules} of the last {training.num_layers} blocks)",
        title_justify="left",
    )
    configs = {name: known_config(name) for name in grid.models}
    for i, column in enumerate(("recipe", "rank", *configs)):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for recipe in grid.recipes:
        cells = [_share(config, recipe.rank, grid) for config in configs.values()]
        table.add_row(recipe.name, str(recipe.rank), *cells)
    return table


def _share(config: dict[str, Any], rank: int, grid: Grid) -> str:
    training = grid.training
    count = lora_parameters(config, rank, training.num_layers, training.target_modules)
    whole = expected_sizes(config, None, training.group_size)["parameters"]
    return f"{count:,} ({count / whole:.2%})"
