"""Operations of the steps of a sweep, counted from the shapes of its
models and the sizes of its sets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from flows.plan_time import Steps
from flows.selection import moves_of
from flows.set_sizes import further_size, set_size
from tasks.models.model_shape import is_known, known_shape
from tasks.spec import Data, ExperimentSpec, Grid

INSTRUCTION_TOKENS = 50  # the same in all prompts, run once a batch
OWN_TOKENS_PER_CASE = 70  # without the instruction


@dataclass(frozen=True)
class ModelSize:
    """What estimates need of a model's shape: its blocks and how wide they are, and parameters of
    one block and of the whole.
    """

    blocks: int
    hidden_size: int
    block_parameters: float
    parameters: float


TYPICAL_SIZE = ModelSize(blocks=30, hidden_size=576, block_parameters=3.5e6, parameters=135e6)


def operations(spec: ExperimentSpec) -> Steps:
    """Operations of one experiment, without what its variant shares."""
    recipe = spec.recipe
    scoring = spec.scoring
    data = spec.data
    batch = INSTRUCTION_TOKENS + OWN_TOKENS_PER_CASE * recipe.batch_size
    updates = 2 * recipe.iterations * batch  # forward and backward
    checks = recipe.iterations // spec.training.evaluate_every * set_size(data, "valid")
    passes = scoring.passes * dropout_cases(spec) if recipe.dropout else 0
    one_token = _operations_of_a_token(spec, _trained_blocks(spec))

    return Steps(
        training=one_token * (updates + OWN_TOKENS_PER_CASE * checks),
        scoring=_scoring(spec, _scored_cases(data)).scoring,
        dropout=one_token * OWN_TOKENS_PER_CASE * passes,
    )


def shared_operations(spec: ExperimentSpec, learns: bool = True) -> Steps:
    """Operations that all experiments of a variant share: activations of the frozen blocks, and the
    scores of the untuned model. `learns`: whether any of them is still to be trained.
    """
    cases = _scored_cases(spec.data)
    learned = set_size(spec.data, "train") + set_size(spec.data, "valid") if learns else 0
    return _preparing(spec, cases + learned) + _scoring(spec, cases)


def all_operations(
    grid: Grid,
    cells: Sequence[ExperimentSpec],
    has_trained: Sequence[bool],
    variants: Collection[tuple[str, str]],
) -> Steps:
    """Operations that are left of a grid's experiments that are not finished; `has_trained`: those
    whose training is; `variants`: model and precision of each variant of the sweep.

    At most: what is stored of the frozen blocks' activations is not looked for.
    """
    total = Steps()
    # Whether the activations of the training sets are wanted too, by variant.
    unfinished: dict[tuple[str, str], tuple[ExperimentSpec, bool]] = {}
    moved_specs: dict[tuple[str, str], ExperimentSpec] = {}
    for spec, is_trained in zip(cells, has_trained, strict=True):
        moves = moves_of(grid, spec, variants)
        steps = operations(spec)
        total += replace(steps, training=0.0) if is_trained else steps
        total += _beside_test(grid, spec, len(moves))
        key = (spec.model.name, spec.precision.name)
        other, learns = unfinished.get(key, (spec, False))
        # The frozen blocks of the others are among those of the experiment that trains fewest.
        unfinished[key] = (min(other, spec, key=_trained_blocks), learns or not is_trained)
        moved_specs |= {(spec.model.name, precision.name): spec for precision in moves}

    for spec, learns in unfinished.values():
        total += shared_operations(spec, learns) + _shared_beside_test(grid, spec)

    new_specs = [spec for key, spec in moved_specs.items() if key not in unfinished]
    return sum((_preparing(spec, _moved_cases(grid, spec)) for spec in new_specs), total)


def _beside_test(grid: Grid, spec: ExperimentSpec, moves: int) -> Steps:
    """Operations of an experiment's further evaluation sets, and of
    its adapter at other precisions.
    """
    cases = _further_cases(grid, spec.data) + moves * _moved_cases(grid, spec)
    with_passes = moves if spec.scoring.moved_passes else 0
    return replace(_scoring(spec, cases), dropout=with_passes * operations(spec).dropout)


def _shared_beside_test(grid: Grid, spec: ExperimentSpec) -> Steps:
    """As `shared_operations`, for the further evaluation sets."""
    cases = _further_cases(grid, spec.data)
    return _preparing(spec, cases) + _scoring(spec, cases)


def _moved_cases(grid: Grid, spec: ExperimentSpec) -> int:
    return set_size(spec.data, "test") + _further_cases(grid, spec.data)


def _further_cases(grid: Grid, data: Data) -> int:
    return sum(further_size(data, entry) for entry in grid.evaluation_sets)


def _preparing(spec: ExperimentSpec, cases: int) -> Steps:
    """The activations of the blocks below the first trained one."""
    frozen = size_of(spec.model.name).blocks - _trained_blocks(spec)
    return Steps(preparing=_operations_of_a_token(spec, frozen) * OWN_TOKENS_PER_CASE * cases)


def _scoring(spec: ExperimentSpec, cases: int) -> Steps:
    """The trained blocks, once a case.

    The instruction is run once for a whole batch, so a case costs its own tokens only.
    """
    one_token = _operations_of_a_token(spec, _trained_blocks(spec))
    return Steps(scoring=one_token * OWN_TOKENS_PER_CASE * cases)


def dropout_cases(spec: ExperimentSpec) -> int:
    """Cases of the dropout passes."""
    cases = set_size(spec.data, "test")
    return cases if spec.scoring.mc_cases == "all" else min(cases, spec.scoring.mc_cases)


@functools.cache
def size_of(name: str) -> ModelSize:
    """The size of a base model, or a typical one if its shape is not known."""
    if not is_known(name):
        return TYPICAL_SIZE

    shape = known_shape(name)
    sizes = {tensor: math.prod(dimensions) for tensor, dimensions in shape.tensors()}
    block = sum(
        size
        for tensor, size in sizes.items()
        if tensor.startswith("model.layers.0.") and "norm" not in tensor
    )

    return ModelSize(shape.num_hidden_layers, shape.hidden_size, block, sum(sizes.values()))


def _scored_cases(data: Data) -> int:
    return set_size(data, "calibration") + set_size(data, "test")


def _trained_blocks(spec: ExperimentSpec) -> int:
    return min(spec.training.num_layers, size_of(spec.model.name).blocks)


def _operations_of_a_token(spec: ExperimentSpec, blocks: int) -> float:
    """Operations of a forward pass of one token through so many blocks."""
    # A multiplication and an addition for each parameter.
    return 2 * size_of(spec.model.name).block_parameters * blocks
