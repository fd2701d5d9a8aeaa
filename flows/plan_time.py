"""How long a sweep takes, step by step: its operations from the shapes, by the speed of a machine.

The speed is that of a matrix product, measured in a child process, times the share of it that each
step reached when the stored demo was run. Figures to plan with: a busy machine takes longer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.corpus.vignettes.generator import SIZES
from tasks.models.model_shape import is_known, known_shape
from tasks.runtime.backend import backend
from tasks.runtime.child import run_child
from tasks.runtime.errors import TriageError
from tasks.spec import Data, ExperimentSpec

TOKENS_PER_CASE = 120  # with the instruction
OWN_TOKENS_PER_CASE = 70  # without it


@dataclass(frozen=True)
class Size:
    """What estimates need of a model's shape: its blocks, and parameters of one block and of the
    whole.
    """

    blocks: int
    block_parameters: float
    parameters: float


TYPICAL_SIZE = Size(blocks=30, block_parameters=3.5e6, parameters=135e6)


@dataclass(frozen=True)
class Steps:
    """One figure for each kind of work: operations, operations a second, or seconds.

    `preparing`: activations of the blocks below the first trained one, once a variant; `scoring`:
    each set once, by trained and by untuned models; `dropout`: the Monte Carlo passes.
    """

    preparing: float = 0.0
    training: float = 0.0
    scoring: float = 0.0
    dropout: float = 0.0

    def __add__(self, other: Steps) -> Steps:
        return Steps(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def at(self, speeds: Steps) -> Steps:
        """Seconds of so many operations."""
        return Steps(*(a / b for a, b in zip(astuple(self), astuple(speeds), strict=True)))

    @property
    def total(self) -> float:
        return sum(astuple(self))


# Of the speed of a matrix product: the steps of the stored demo, on two cores with MKL.
REACHED = Steps(preparing=0.33, training=0.30, scoring=0.26, dropout=0.30)


@dataclass(frozen=True)
class Machine:
    """A machine and its operations a second in each step."""

    name: str
    speeds: Steps

    @classmethod
    def of(cls, name: str, gflops: float) -> Machine:
        """A machine whose matrix products run at `gflops`."""
        return cls(name, Steps(*(share * gflops * 1e9 for share in astuple(REACHED))))


OTHERS = (Machine.of("two Linux cores, MKL, 288 GFLOP/s", 288),)
NOT_MEASURED = ("Mac (Metal)", "NVIDIA GPU (CUDA)")


def assumed_speeds() -> Steps:
    """Operations a second without a measurement: one figure for every step of this backend."""
    return Steps(*[backend().planned_gflops * 1e9] * 4)


def assumed_machine() -> Machine:
    """This machine, where it is not measured."""
    return Machine(f"this machine, not measured: assumed for {backend().name}", assumed_speeds())


def measured_machine() -> Machine | None:
    """This machine, from a probe of some seconds; None where it does not tell.

    Only where steps run as those behind REACHED: in float32 on a CPU.
    """
    if not backend().cpu_kernels:
        return None
    with TemporaryDirectory() as folder, contextlib.suppress(TriageError):
        gflops = run_child("tasks.runtime.probe:run_speed", {}, Path(folder))["gflops"]
        return Machine.of(f"this machine, {gflops:.0f} GFLOP/s", gflops)
    return None


def operations(spec: ExperimentSpec) -> Steps:
    """Operations of one experiment, without what its variant shares."""
    recipe, scoring, data = spec.recipe, spec.scoring, spec.data
    updates = 2 * TOKENS_PER_CASE * recipe.iterations * recipe.batch_size  # forward and backward
    checks = recipe.iterations // spec.training.evaluate_every * _cases(data, "valid")
    passes = scoring.passes * dropout_cases(spec) if recipe.dropout else 0
    one_token = _operations_of_a_token(spec, _trained_blocks(spec))
    return Steps(
        training=one_token * (updates + OWN_TOKENS_PER_CASE * checks),
        # The instruction is run once for a whole batch, so a case costs its own tokens only.
        scoring=one_token * OWN_TOKENS_PER_CASE * _scored_cases(data),
        dropout=one_token * OWN_TOKENS_PER_CASE * passes,
    )


def shared_operations(spec: ExperimentSpec) -> Steps:
    """Operations that all experiments of a variant share: activations of the frozen blocks, and the
    scores of the untuned model.
    """
    cases = _scored_cases(spec.data)
    learned = _cases(spec.data, "train") + _cases(spec.data, "valid")
    trained = _trained_blocks(spec)
    frozen = _operations_of_a_token(spec, size_of(spec.model.name).blocks - trained)
    return Steps(
        preparing=frozen * OWN_TOKENS_PER_CASE * (cases + learned),
        scoring=_operations_of_a_token(spec, trained) * OWN_TOKENS_PER_CASE * cases,
    )


def all_operations(cells: Sequence[ExperimentSpec], trained: Sequence[bool]) -> Steps:
    """Operations that are left of experiments that are not finished; `trained`: those whose
    training is.
    """
    variants: dict[tuple[str, str], ExperimentSpec] = {}
    total = Steps()
    for spec, is_trained in zip(cells, trained, strict=True):
        one = operations(spec)
        total += replace(one, training=0.0) if is_trained else one
        if not is_trained:
            variants[spec.model.name, spec.precision.model_dump_json()] = spec
    return sum(map(shared_operations, variants.values()), total)


def dropout_cases(spec: ExperimentSpec) -> int:
    """Cases of the dropout passes."""
    cases = _cases(spec.data, "test")
    return cases if spec.scoring.mc_cases == "all" else min(cases, spec.scoring.mc_cases)


def size_of(name: str) -> Size:
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
    return Size(shape.num_hidden_layers, block, sum(sizes.values()))


def _scored_cases(data: Data) -> int:
    return _cases(data, "calibration") + _cases(data, "test")


def _cases(data: Data, name: str) -> int:
    """Cases of a set; of a user's own cases, unless limited, as many as the embedded set has."""
    size = data.sizes.get(name, SIZES[name])
    limits: dict[str, int] = {str(key): limit for key, limit in data.limits.items()}
    return min(size, limits.get(name, size))


def _trained_blocks(spec: ExperimentSpec) -> int:
    return min(spec.training.num_layers, size_of(spec.model.name).blocks)


def _operations_of_a_token(spec: ExperimentSpec, blocks: int) -> float:
    """Operations of a forward pass of one token through so many blocks."""
    return 2 * size_of(spec.model.name).block_parameters * blocks
