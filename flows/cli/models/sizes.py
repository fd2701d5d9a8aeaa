"""`triage models`: exact sizes of the study's variants, and what recipes train of each model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.grids.grid import known_models, load_grid
from tasks.models.manifest import SourceManifest, VariantManifest
from tasks.models.model_shape import ModelShape, known_shape
from tasks.models.sizes import PARTS, ModelSizes, expected_sizes, lora_parameters, stored_sizes
from tasks.models.sources.fetch import stored
from tasks.precisions import BF16, BUILT_IN, Precision, reference_note, title_of
from tasks.runtime.home import home
from tasks.spec import BaseModelSpec, Grid, Training, training_of_recipe

STUDY = "paper"
SIZE_COLUMNS = ("model and weights", "bits", "bytes", *PARTS, "bits per weight")


@dataclass(frozen=True)
class SizeRow:
    """Sizes of a model folder (`measured`), and those that its shape gives (`expected`)."""

    base_model: str
    precision: Precision
    source: str
    expected: ModelSizes
    measured: ModelSizes | None = None
    original_precision: str | None = None

    @property
    def name(self) -> str:
        return f"{self.base_model} {self.title}"

    @property
    def title(self) -> str:
        return title_of(self.precision.name, self.original_precision)

    @property
    def sizes(self) -> ModelSizes:
        """The measured sizes where there are any."""
        return self.measured or self.expected


def models() -> None:
    """Show the exact size of each variant, and how much of each model a recipe trains."""
    from flows.cli.terminal import console

    print_models(console)


def print_models(console: Console) -> None:
    """Print both tables for the models and recipes of the paper grid, at every precision.

    Uses no network and loads no weights.
    """
    grid = load_grid(STUDY)
    rows = list(model_sizes(grid, home()))

    console.print(_sizes_table(rows, grid.training.group_size))
    console.print(
        "Measured where weights are named; "
        "computed from the model's shape where they are not fetched."
    )
    for note in dict.fromkeys(filter(None, (_reference_note(row) for row in rows))):
        console.print(note, soft_wrap=True)

    for row in rows:
        if warning := disagreement(row):
            console.print(f"WARNING  {warning}", style="bold yellow", soft_wrap=True)

    console.print(_trainable_table(grid))


def _reference_note(row: SizeRow) -> str | None:
    """What follows from a base model that was quantised before it was fetched; else None."""
    note = reference_note(row.original_precision)
    return f"{row.base_model}, {row.original_precision}: {note}." if note else None


def model_sizes(grid: Grid, root: Path) -> Iterator[SizeRow]:
    """A row for each base model and built-in precision, and for each source of its weights."""
    base_models = known_models(grid)
    group_size = grid.training.group_size

    for name in grid.models:
        for precision in BUILT_IN.values():
            sizes = expected_sizes(known_shape(name), precision, group_size)
            variants = list(_variants(root, name, precision, group_size))
            for folder, manifest in variants:
                yield SizeRow(
                    name,
                    precision,
                    _origin(manifest),
                    sizes,
                    stored_sizes(folder, manifest.group_size),
                    manifest.original_precision,
                )

            if not variants:
                yield SizeRow(name, precision, _fetch_state(base_models[name], root), sizes)


def disagreement(row: SizeRow) -> str | None:
    """A sentence if a folder does not hold the bytes that its shape gives, by part; else None."""
    if row.sizes == row.expected:
        return None

    stored_bytes = row.sizes.bytes_by_part
    expected_bytes = row.expected.bytes_by_part

    differences = [
        f"{part} {stored_bytes[part]:,} where its shape gives {expected_bytes[part]:,}"
        for part in PARTS
        if stored_bytes[part] != expected_bytes[part]
    ]
    if not differences:
        differences = [
            f"{row.sizes.parameters:,} parameters where its shape gives {row.expected.parameters:,}"
        ]

    return (
        f"{row.name} ({row.source}) holds {', '.join(differences)}: "
        "it is another model than the study's, or was not quantised as named."
    )


def _variants(
    root: Path, name: str, precision: Precision, group_size: int
) -> Iterator[tuple[Path, VariantManifest]]:
    """Complete folders of one base model and precision, whatever source they were made from."""
    pattern = f"{name}-{precision.name if precision.is_quantised else 'base'}-*"
    expected_group_size = precision.group_size_in(group_size)
    for folder in sorted((root / "models").glob(pattern)):
        manifest = VariantManifest.read_if_complete(folder)
        if manifest is not None and manifest.group_size == expected_group_size:
            yield folder, manifest


def _origin(manifest: VariantManifest) -> str:
    if manifest.random_weights:
        return manifest.weights_source  # it says that they are random
    return f"{manifest.weights_source}, {manifest.original_precision}"


def _fetch_state(model: BaseModelSpec, root: Path) -> str:
    folder = stored(model, root)
    if folder is None:
        return "not fetched"
    return f"fetched ({SourceManifest.read(folder).weights_source}), not converted yet"


def _sizes_table(rows: list[SizeRow], group_size: int) -> Table:
    table = _table(
        f"Stored bytes of all tensors (affine precisions: group size {group_size}, bfloat16 scales "
        "and biases; mx and nv ones: a scale of one byte per 32 or 16 values)"
    )
    for i, column in enumerate(SIZE_COLUMNS):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")

    for row in rows:
        table.add_row(
            f"{row.name}\n  {row.source}",
            _bits(row.precision),
            f"{row.sizes.stored_bytes:,}",
            *(f"{row.sizes.bytes_by_part[part]:,}" for part in PARTS),
            f"{row.sizes.bits_per_weight:.3f}",
        )

    return table


def _bits(precision: Precision) -> str:
    """Bits of a value, and where matrices differ those of the embedding."""
    if precision.high_bits is None:
        return str(precision.bits or 16)
    return f"{precision.bits} and {precision.high_bits}\nembedding {precision.bits}"


def _trainable_table(grid: Grid) -> Table:
    """Trainable parameters of each recipe and base model, and their share of all parameters."""
    of_recipes = [_places(training_of_recipe(grid, recipe)) for recipe in grid.recipes]
    places = " or ".join(dict.fromkeys(of_recipes))
    table = _table(f"Trainable parameters and their share (LoRA on {places})")

    for i, column in enumerate(("recipe", "rank", *grid.models)):
        table.add_column(column, justify="right" if i else "left", overflow="fold")

    shapes = [known_shape(name) for name in grid.models]
    for recipe in grid.recipes:
        training = training_of_recipe(grid, recipe)
        shares = [_trainable_share(shape, recipe.rank, training) for shape in shapes]
        table.add_row(recipe.name, str(recipe.rank), *shares)

    return table


def _places(training: Training) -> str:
    """Where LoRA sits, in words."""
    modules = " and ".join(name.rpartition(".")[2] for name in training.target_modules)
    return f"{modules} of the last {training.num_layers} blocks"


def _trainable_share(shape: ModelShape, rank: int, training: Training) -> str:
    trainable = lora_parameters(shape, rank, training.num_layers, training.target_modules)
    parameters = expected_sizes(shape, BUILT_IN[BF16], training.group_size).parameters
    return f"{trainable:,} ({trainable / parameters:.2%})"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")
