"""The optimizer of a training: its rate at each update, LoRA+, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.spec import ExperimentSpec
from tasks.tuning.gradients import Gradients


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Learning rate of optimizer update `update`, counted from 0.

    Linear warm-up, then constant or falling towards 0 after the last update: neither the first
    update nor the last is lost to a rate of 0.
    """
    peak = spec.recipe.learning_rate
    iterations = spec.recipe.iterations
    warmup = round(spec.training.warmup_ratio * iterations)
    if update < warmup:
        return peak * (update + 1) / warmup

    decayed_share = (update - warmup) / (iterations - warmup)
    factors = {
        "none": 1.0,
        "linear": 1 - decayed_share,
        "cosine": 0.5 * (1 + math.cos(math.pi * decayed_share)),
    }
    return peak * factors[spec.training.decay]


def clip_gradients(
    gradients: Gradients, limit: float | None, other_arrays: Sequence[mx.array] = ()
) -> tuple[Gradients, float]:
    """Gradients with at most the norm `limit` over all tensors, and their norm before clipping.

    `other_arrays` are evaluated with them: each evaluation waits for the device.
    """
    sums = mx.stack([mx.square(g).sum() for _, g in tree_flatten(gradients)])
    mx.eval(sums, gradients, other_arrays)
    # In float64 and in the order of the tensors.
    norm = float(np.sqrt(sum(np.array(sums).tolist())))
    # `not >`: gradients whose norm is NaN go back as they are, and the caller refuses them.
    if limit is None or not norm > limit:
        return gradients, norm
    return tree_map(lambda g: g * (limit / norm), gradients), norm


class FactorRates(optim.MultiOptimizer):
    """An optimizer of the factors B and one of the others, whose rate is the one that is set.

    That of B is `ratio` times as large (LoRA+, Hayou et al. 2024), for its weight decay too.
    """

    def __init__(self, of_b: optim.Optimizer, of_a: optim.Optimizer, ratio: float) -> None:
        # What no filter takes, the factors A, goes to MLX's last optimizer.
        super().__init__([of_b, of_a], [lambda path, _: path.endswith("lora_b")])
        self._ratio = ratio

    @property
    def learning_rate(self) -> mx.array:
        """The rate of A."""
        rate: mx.array = self.optimizers[1].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimizers[0].learning_rate = self._ratio * rate
        self.optimizers[1].learning_rate = rate


def make_optimizer(spec: ExperimentSpec) -> optim.Optimizer:
    """The optimizer of a training: AdamW, with a rate of its own for B where the recipe asks."""
    ratio = spec.recipe.lora_plus
    return _adamw(spec) if ratio == 1 else FactorRates(_adamw(spec), _adamw(spec), ratio)


def _adamw(spec: ExperimentSpec) -> optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with bias correction, which is off by default in MLX."""
    return optim.AdamW(
        learning_rate=spec.recipe.learning_rate,
        weight_decay=spec.training.weight_decay,
        bias_correction=True,
    )
