"""The optimizer of a training, its rate, LoRA+ and the clipping of gradients; and its updates, one by
one: made at once, or handed to the device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates, UpdateResult, compiles
from tasks.tuning.dropout import MaskRequest, MasksAhead, draw_now
from tasks.tuning.gradients import (
    Gradients,
    mask_requests,
    parts_of,
    update_gradients,
    with_checkpoints,
)
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice


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


class Updates:
    """Makes the updates of a training, and draws the dropout masks of each while the one before it
    is computed.

    `adapted`: the model that they train, whose blocks may be computed again in the backward pass.
    """

    def __init__(
        self, adapted: Adapted, spec: ExperimentSpec, train: Prefix, choice: MemoryChoice
    ) -> None:
        self.adapted = with_checkpoints(adapted, choice.checkpointing)
        self.objective = make_objective(spec.recipe, train.cases.labels)
        self.optimizer = make_optimizer(spec)
        self.optimizer.init(adapted.stack.model.trainable_parameters())

        self._spec = spec
        self._train = train
        self._micro_batch = choice.micro_batch
        self._masks: MasksAhead | None = None
        self._started: deque[tuple[list[int], UpdateResult]] = deque()
        self._compiled = None
        if compiles():
            self._compiled = CompiledUpdates(
                self.adapted,
                train,
                self.objective,
                self.optimizer,
                choice.micro_batch,
                spec.training.max_gradient_norm,
            )

    @property
    def are_compiled(self) -> bool:
        """Whether the device makes an update while the host prepares the next."""
        return self._compiled is not None

    @property
    def are_pending(self) -> bool:
        """Whether an update was started whose result is not taken yet."""
        return bool(self._started)

    @contextmanager
    def drawing_masks(self) -> Iterator[None]:
        """Within the block a thread draws the dropout masks that are expected."""
        try:
            with MasksAhead(copied=self.are_compiled) as self._masks:
                self.adapted.take_masks_from(self._masks.take)
                yield
        finally:
            self.adapted.take_masks_from(draw_now)

    def expect(self, case_numbers: list[int], number: int) -> None:
        """Have the dropout masks of an update drawn in their thread, if there is such an update."""
        key = self._dropout_key(number)
        if self._masks is None or key is None or number >= self._spec.recipe.iterations:
            return

        if self._compiled is not None:
            requests: Iterable[MaskRequest] = self._compiled.mask_requests(case_numbers, key)
        else:
            parts = parts_of(self._train.cases, case_numbers, self._micro_batch)
            requests = mask_requests(self.adapted, self._train, parts, key)

        self._masks.expect(requests)

    def start(
        self, number: int, case_numbers: list[int], rate: float, following: list[int]
    ) -> None:
        """Make update `number`, or have the device make it.

        `following`: the cases of the next update, whose dropout masks are drawn meanwhile. Raises
        Diverged where the host makes it.
        """
        key = self._dropout_key(number)
        if self._compiled is not None:
            step = self._compiled.start(case_numbers, rate, key)
            self.expect(following, number + 1)
            self._started.append((case_numbers, step))
            return

        # With two evaluations: one before the host decides on clipping, and the optimizer's.
        loss, parts, gradients = update_gradients(
            self.adapted, self._train, case_numbers, self.objective, self._micro_batch, key
        )
        # This update took its masks while its graph was built: the thread draws those of the next
        # one while this one is computed.
        self.expect(following, number + 1)
        limit = self._spec.training.max_gradient_norm
        gradients, norm = clip_gradients(gradients, limit, (loss, parts))
        step = UpdateResult(loss, parts, mx.array(norm))
        # Before the optimizer: weights and moments stay those of the last good update.
        step.refuse_divergence(number + 1)

        model = self.adapted.stack.model
        self.optimizer.learning_rate = rate
        self.optimizer.update(model, gradients)
        mx.eval(model.trainable_parameters(), self.optimizer.state)
        self._started.append((case_numbers, step))

    def results(self, but_the_newest: bool) -> Iterator[tuple[list[int], UpdateResult]]:
        """The cases and the result of each update that was started, in their order."""
        while len(self._started) > int(but_the_newest):
            yield self._started.popleft()

    def hand_back(self) -> None:
        """Put the trained tensors and the optimizer's state where validation and checkpoints read
        them.
        """
        if self._compiled is not None:
            self._compiled.hand_back()

    def _dropout_key(self, number: int) -> tuple[int, int] | None:
        return (self._spec.seed, number) if self._spec.recipe.dropout > 0 else None
