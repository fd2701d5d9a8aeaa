"""`triage models`: exact sizes of the study's variants, and what recipes train of each model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from flows.cli.terminal import console
from tasks.grids.grid import known_models, load_grid
from tasks.models.manifest import SourceManifest, VariantManifest
from tasks.models.sizes import (
    PARTS,
    ModelSizes,
    expected_sizes,
    known_shape,
    lora_parameters,
    stored_sizes,
)
from tasks.models.sources.fetch import stored
from tasks.precisions import BF16, BUILT_IN, Precision, reference_note, title_of
from tasks.runtime.home import home
from tasks.spec import Grid, Training, training_of_recipe

STUDY = "paper"
SIZE_COLUMNS = ("model and weights", "bits", "bytes", *PARTS, "bits per weight")


def models() -> None:
    """Show the exact size of each variant, and how much of each model a recipe trains."""
    # Of the models and recipes of the paper grid, at every precision; no weights are loaded.
    grid = load_grid(STUDY)
    rows = list(model_sizes(grid, home()))

    console.print(_sizes_table(rows, grid.training.group_size))
    console.print(
        "Measured where weights are named; "
        "computed from the model's shape where they are not fetched."
    )
    # What follows from a base model that was quantised before it was fetched.
    notes = {
        f"{row.base_model}, {row.original_precision}: {note}."
        for row in rows
        if (note := reference_note(row.original_precision))
    }
    for note in sorted(notes):
        console.print(note, soft_wrap=True)
    for row in rows:
        other_bytes = [
            f"{part} {row.sizes.bytes_by_part[part]:,} bytes where its shape gives {expected:,}"
            for part, expected in row.expected.bytes_by_part.items()
            if row.sizes.bytes_by_part[part] != expected
        ]
        if other_bytes:
            console.print(
                f"WARNING  {row.name} ({row.source}) holds {', '.join(other_bytes)}: it is another "
                "model than the study's, or was not quantised as named.",
                style="bold yellow",
                soft_wrap=True,
            )

    console.print(_trainable_table(grid))


@dataclass(frozen=True)
class SizeRow:
    """Sizes of a model folder, else `expected` ones, which its shape gives."""

    base_model: str
    precision: Precision
    source: str
    sizes: ModelSizes
    expected: ModelSizes
    original_precision: str | None = None

    @property
    def name(self) -> str:
        return f"{self.base_model} {title_of(self.precision.name, self.original_precision)}"


def model_sizes(grid: Grid, root: Path) -> Iterator[SizeRow]:
    """A row for each base model and built-in precision, and for each source of its weights."""
    base_models = known_models(grid)
    group_size = grid.training.group_size

    for name in grid.models:
        for precision in BUILT_IN.values():
            expected = expected_sizes(known_shape(name), precision, group_size)
            pattern = f"{name}-{precision.name if precision.is_quantised else 'base'}-*"
            is_stored = False
            for folder in sorted((root / "models").glob(pattern)):
                variant = VariantManifest.read_if_complete(folder)
                if variant is None or variant.group_size != precision.group_size_in(group_size):
                    continue
                is_stored = True
                source = variant.weights_source
                if not variant.random_weights:  # else the source says that they are
                    source += f", {variant.original_precision}"
                sizes = stored_sizes(folder, variant.group_size)
                original = variant.original_precision
                yield SizeRow(name, precision, source, sizes, expected, original)

            if not is_stored:
                fetched = stored(base_models[name], root)
                source = "not fetched"
                if fetched is not None:
                    weights_source = SourceManifest.read(fetched).weights_source
                    source = f"fetched ({weights_source}), not converted yet"
                yield SizeRow(name, precision, source, expected, expected)


def _sizes_table(rows: list[SizeRow], group_size: int) -> Table:
    title = (
        f"Stored bytes of all tensors (affine precisions: group size {group_size}, bfloat16 scales "
        "and biases; mx and nv ones: a scale of one byte per 32 or 16 values)"
    )
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(SIZE_COLUMNS):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")

    for row in rows:
        precision = row.precision
        bits = str(precision.bits or 16)
        if precision.high_bits is not None:  # matrices differ from the embedding
            bits = f"{precision.bits} and {precision.high_bits}\nembedding {precision.bits}"
        table.add_row(
            f"{row.name}\n  {row.source}",
            bits,
            f"{row.sizes.stored_bytes:,}",
            *(f"{row.sizes.bytes_by_part[part]:,}" for part in PARTS),
            f"{row.sizes.bits_per_weight:.3f}",
        )
    return table


def _trainable_table(grid: Grid) -> Table:
    """Trainable parameters of each recipe and base model, and their share of all parameters."""
    trainings = [training_of_recipe(grid, recipe) for recipe in grid.recipes]
    places = " or ".join(dict.fromkeys(map(_places, trainings)))
    title = f"Trainable parameters and their share (LoRA on {places})"
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(("recipe", "rank", *grid.models)):
        table.add_column(column, justify="right" if i else "left", overflow="fold")

    for recipe, training in zip(grid.recipes, trainings, strict=True):
        shares = []
        for name in grid.models:
            shape = known_shape(name)
            count = lora_parameters(
                shape, recipe.rank, training.num_layers, training.target_modules
            )
            total = expected_sizes(shape, BUILT_IN[BF16], training.group_size).parameters
            shares.append(f"{count:,} ({count / total:.2%})")
        table.add_row(recipe.name, str(recipe.rank), *shares)

    return table


def _places(training: Training) -> str:
    """Where LoRA sits, in words."""
    modules = " and ".join(name.rpartition(".")[2] for name in training.target_modules)
    return f"{modules} of the last {training.num_layers} blocks"
