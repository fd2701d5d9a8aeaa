"""An optimizer update as the trainer makes it on this backend, for benchmarks and the self-test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective
from tasks.tuning.update import clip_gradients, update_gradients


def updates_of(
    adapted: Adapted,
    prefix: Prefix,
    objective: Objective,
    optimizer: optim.Optimizer,
    learning_rate: float,
    dropout_seed: int | None = None,
) -> Callable[[], None]:
    """A function that makes one update of all cases at each call, and waits for it.

    `dropout_seed`: None for an update without dropout.
    """
    model = adapted.stack.model
    optimizer.init(model.trainable_parameters())
    case_numbers = range(len(prefix.cases.encoded))
    batch = len(case_numbers)
    compiled = CompiledUpdates(adapted, prefix, objective, optimizer, batch, limit=None)

    numbers = itertools.count()

    def update() -> None:
        key = None if dropout_seed is None else (dropout_seed, next(numbers))
        if compiles():
            compiled.start(case_numbers, learning_rate, key)
            compiled.hand_back()
        else:
            step = update_gradients(adapted, prefix, case_numbers, objective, batch, key)
            gradients, _ = clip_gradients(step[2], None, step[:2])
            optimizer.update(model, gradients)

        mx.eval(model.trainable_parameters(), optimizer.state)

    return update
