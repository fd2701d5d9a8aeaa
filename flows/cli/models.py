"""`triage models`: exact sizes of the study's variants, and what recipes train of each model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.cli.terminal import console
from tasks.grids.grid import known_models, load_grid
from tasks.models.manifest import SourceManifest, VariantManifest
from tasks.models.sizes import PARTS, expected_sizes, known_shape, lora_parameters, stored_sizes
from tasks.models.sources.fetch import stored
from tasks.precisions import BF16, BUILT_IN, reference_note, title_of
from tasks.runtime.home import home
from tasks.spec import Grid, training_of_recipe

STUDY = "paper"


def models() -> None:
    """Show the exact size of each variant, and how much of each model a recipe trains."""
    # Of the models and recipes of the paper grid, at every precision; no weights are loaded.
    grid = load_grid(STUDY)
    group_size = grid.training.group_size
    table = _table(
        f"Stored bytes of all tensors (affine precisions: group size {group_size}, bfloat16 scales "
        "and biases; mx and nv ones: a scale of one byte per 32 or 16 values)",
        ("model and weights", "bits", "bytes", *PARTS, "bits per weight"),
    )
    notes = []
    for row in model_sizes(grid, home()):
        precision = row["precision"]
        sizes = row["sizes"]
        name = f"{row['base_model']} {title_of(precision.name, row['original'])}"
        bits = str(precision.bits or 16)
        if precision.high_bits is not None:  # matrices differ from the embedding
            bits = f"{precision.bits} and {precision.high_bits}\nembedding {precision.bits}"
        table.add_row(
            f"{name}\n  {row['source']}",
            bits,
            f"{sizes.stored_bytes:,}",
            *(f"{sizes.bytes_by_part[part]:,}" for part in PARTS),
            f"{sizes.bits_per_weight:.3f}",
        )
        # What follows from a base model that was quantised before it was fetched.
        if note := reference_note(row["original"]):
            notes.append(f"{row['base_model']}, {row['original']}: {note}.")
        other_bytes = [
            f"{part} {sizes.bytes_by_part[part]:,} bytes where its shape gives {expected:,}"
            for part, expected in row["expected"].bytes_by_part.items()
            if sizes.bytes_by_part[part] != expected
        ]
        if other_bytes:
            notes.append(
                f"WARNING  {name} ({row['source']}) holds {', '.join(other_bytes)}: it is another "
                "model than the study's, or was not quantised as named."
            )

    console.print(table)
    console.print(
        "Measured where weights are named; "
        "computed from the model's shape where they are not fetched."
    )
    for note in dict.fromkeys(notes):
        console.print(note, soft_wrap=True)
    console.print(_trainable_table(grid))


def model_sizes(grid: Grid, root: Path) -> Iterator[dict[str, Any]]:
    """A row for each base model and built-in precision, and for each source of its weights: its
    `sizes`, and `expected` ones, which its shape gives and which stand where nothing is stored.
    """
    base_models = known_models(grid)
    for name in grid.models:
        for precision in BUILT_IN.values():
            expected = expected_sizes(known_shape(name), precision, grid.training.group_size)
            row = {"base_model": name, "precision": precision, "expected": expected}
            pattern = f"{name}-{precision.name if precision.is_quantised else 'base'}-*"
            is_stored = False
            for folder in sorted((root / "models").glob(pattern)):
                variant = VariantManifest.read_if_complete(folder)
                group_size = precision.group_size_in(grid.training.group_size)
                if variant is None or variant.group_size != group_size:
                    continue
                is_stored = True
                source = variant.weights_source
                if not variant.random_weights:  # else the source says that they are
                    source += f", {variant.original_precision}"
                sizes = stored_sizes(folder, variant.group_size)
                original = variant.original_precision
                yield row | {"source": source, "sizes": sizes, "original": original}

            if not is_stored:
                source = "not fetched"
                if fetched := stored(base_models[name], root):
                    weights_source = SourceManifest.read(fetched).weights_source
                    source = f"fetched ({weights_source}), not converted yet"
                yield row | {"source": source, "sizes": expected, "original": None}


def _trainable_table(grid: Grid) -> Table:
    """Trainable parameters of each recipe and base model, and their share of all parameters."""
    trainings = [training_of_recipe(grid, recipe) for recipe in grid.recipes]
    places = " or ".join(
        dict.fromkeys(
            f"{' and '.join(module.rpartition('.')[2] for module in training.target_modules)} of "
            f"the last {training.num_layers} blocks"
            for training in trainings
        )
    )
    title = f"Trainable parameters and their share (LoRA on {places})"
    table = _table(title, ("recipe", "rank", *grid.models))
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


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(
            column, justify="right" if place else "left", no_wrap=place > 0, overflow="fold"
        )
    return table
