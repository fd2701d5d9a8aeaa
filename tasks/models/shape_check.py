"""Settings that a model's shape cannot have, refused before anything is fetched or trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.models.expected_sizes import expected_sizes, lora_parameters
from tasks.models.model_folders import base_folder
from tasks.models.model_shape import ModelShape, is_known, known_shape, read_shape
from tasks.models.sources.kinds import stored
from tasks.precisions import MODES, Precision
from tasks.runtime.errors import BadInput
from tasks.runtime.home import expanded
from tasks.spec import BaseModelSpec, FolderSource, RandomSource, Training


def refuse_misfits(
    model: str, shape: ModelShape, training: Training, precisions: Iterable[Precision]
) -> None:
    """Raise BadInput for a group size, blocks or modules that the model cannot have.

    A rank above the width of a matrix is allowed: it wastes memory, and trains.
    """
    for precision in precisions:
        _refuse_group_size(model, shape, training.group_size, precision)
    _refuse_trained_blocks(model, shape, training)


def shape_from_sources(model: BaseModelSpec, root: Path) -> ModelShape | None:
    """The shape of a base model that a grid defines; None if nothing on this machine has it.

    The stored folder decides, else the first listed source, if it is random or a local folder. Uses
    no network.
    """
    source_folder = stored(model, root)
    if source_folder is not None:
        return read_shape(source_folder) or read_shape(base_folder(source_folder, root))

    first = model.sources[0]
    if isinstance(first, RandomSource) and is_known(first.shape):
        return known_shape(first.shape)
    if isinstance(first, FolderSource):
        return read_shape(expanded(first.path))

    return None


def _refuse_group_size(
    model: str, shape: ModelShape, group_size: int, precision: Precision
) -> None:
    try:
        expected_sizes(shape, precision, group_size)
    except BadInput as error:
        if not precision.groups_follow_the_grid:
            raise BadInput(
                f"The precision {precision.name} does not fit {model}: {error} "
                "Leave it out, or choose another model."
            ) from error
        remedy = _fitting_group_sizes(shape)
        raise BadInput(
            f"training.group_size = {group_size} does not fit {model}: {error} {remedy}"
        ) from error


def _fitting_group_sizes(shape: ModelShape) -> str:
    """The group sizes that divide every row, as a remedy."""
    rows = {tensor_shape[-1] for _, tensor_shape in shape.tensors() if len(tensor_shape) > 1}
    sizes = MODES["affine"].group_sizes
    fitting_sizes = [size for size in sizes if all(row % size == 0 for row in rows)]
    if not fitting_sizes:
        return "No group size divides all its rows; choose another model."
    return f"Choose {' or '.join(map(str, sorted(fitting_sizes, reverse=True)))}."


def _refuse_trained_blocks(model: str, shape: ModelShape, training: Training) -> None:
    blocks = shape.num_hidden_layers
    if training.num_layers > blocks:
        raise BadInput(
            f"training.num_layers = {training.num_layers}, "
            f"but {model} has {blocks} blocks; give at most {blocks}."
        )

    try:
        lora_parameters(shape, 1, training.num_layers, training.target_modules)
    except BadInput as error:
        raise BadInput(f"The settings do not fit {model}: {error}") from error
