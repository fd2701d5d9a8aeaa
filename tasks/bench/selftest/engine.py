"""Checks of the training engine against itself: what may be computed in parts, twice or in batches
gives the same, and a step is not slower than stock's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss

from tasks.bench.selftest.check import SelfTestCheck, farthest, relative_to_spread
from tasks.bench.selftest.models import (
    Subject,
    adapt,
    cases_of,
    make_wide,
    our_gradients,
    recipe,
    stock_batch,
)
from tasks.bench.updates import updates_of
from tasks.runtime.backend import backend
from tasks.scoring.mc_dropout import dropout_passes
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import compiles
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import make_objective
from tasks.tuning.model import Stack

DROPOUT = 0.3
KEY = (1, 2)
SEED = 5
PASSES = 3
# Other masks are about 1.4; float32 on a CPU measures 1e-5.
PASSES_LIMITS = {"float32": 1e-3, "bfloat16": 0.3}
UPDATES = 2
# Bytes of logits at once: many blocks of columns.
FEW_LOGITS = 1 << 12
MANY_LOGITS = 1 << 62
# Of the timed step.
BATCH = 2
TIMED_LENGTH = 64
REPEATS = 3
# Ours does a part of stock's work, but on tiny work starting it may take as long.
SLOWEST = 1.5
NOT_REPEATABLE = (
    "a training that resumes may differ in its last digits; report it with the file below"
)
SLOW = "close other programs and repeat it; if it stays, report it with the file below"


Change = Callable[[Adapted], Adapted]
Step = Callable[[], object]


def engine_checks(subject: Subject) -> Iterator[SelfTestCheck]:
    """A tiny model's step in parts, twice and in batches."""
    title = subject.title
    limit = backend().rounding
    yield SelfTestCheck(f"{title}: head in blocks", lambda: blocked_head(subject), limit)
    yield SelfTestCheck(f"{title}: checkpointed blocks", lambda: checkpointed(subject), limit)
    yield SelfTestCheck(
        f"{title}: dropout passes, batched against one by one",
        lambda: batched_passes(subject),
        PASSES_LIMITS[backend().compute_dtype],
        "of the spread of the passes",
    )
    yield SelfTestCheck(
        f"{title}: two updates, repeated",
        lambda: repeated_updates(subject),
        0,
        "different values",
        "warning",
        NOT_REPEATABLE,
    )


def speed_checks(times: dict[str, float]) -> Iterator[SelfTestCheck]:
    """A step beside stock's. The seconds of both go to `times`."""
    yield SelfTestCheck(
        f"smollm2-135m widths, 2 blocks, {BATCH} x {TIMED_LENGTH} tokens: seconds of a step",
        lambda: step_time(times),
        SLOWEST,
        "times stock's",
        "warning",
        SLOW,
    )


def blocked_head(subject: Subject) -> float:
    """Gradients with a block of the head's columns at a time against all at once."""
    return _difference(
        subject,
        lambda adapted: _with_logits(adapted, FEW_LOGITS),
        lambda adapted: _with_logits(adapted, MANY_LOGITS),
    )


def checkpointed(subject: Subject) -> float:
    """Gradients, with dropout, of blocks that are computed again against blocks that are kept."""
    return _difference(
        subject,
        lambda adapted: adapted.with_checkpoints(True),
        lambda adapted: adapted.with_checkpoints(False),
    )


def batched_passes(subject: Subject) -> float:
    """Label probabilities of dropout passes over all cases at once against one case at a time: root
    mean square difference, relative to how far the passes lie apart.

    That all passes differ is checked where they are made.
    """
    adapted = adapt(subject.loaded(), DROPOUT)
    cases = cases_of(adapted.stack)
    prefix = Prefix.embedded(adapted.stack, cases)
    numbers = range(len(cases.encoded))

    def passes(case_numbers: list[int]) -> np.ndarray:
        return dropout_passes(adapted, prefix, case_numbers, PASSES, SEED, lambda event: None)

    one_by_one = np.concatenate([passes([number]) for number in numbers], axis=1)
    return relative_to_spread(passes(list(numbers)), one_by_one)


def repeated_updates(subject: Subject) -> float:
    """How many trained values differ, bit by bit, after the same two updates from the same start."""
    first, second = (_updated(subject) for _ in range(2))
    return sum(int((first[name] != second[name]).sum()) for name in first)


def step_time(times: dict[str, float]) -> float:
    """Median seconds of our step divided by stock's, each after a step that compiles it."""
    times["ours"] = _our_seconds(make_wide("smollm2-135m"))
    times["stock"] = _stock_seconds(make_wide("smollm2-135m"))
    return times["ours"] / times["stock"]


def _difference(subject: Subject, first_change: Change, second_change: Change) -> float:
    gradients = []
    for change in (first_change, second_change):
        adapted = change(adapt(subject.loaded(), DROPOUT))
        loss, gradient = our_gradients(adapted, cases_of(adapted.stack), KEY)
        gradients.append(gradient | {"loss": mx.array([loss])})
    return farthest(*gradients)


def _with_logits(adapted: Adapted, logit_bytes: int) -> Adapted:
    return replace(adapted, stack=replace(adapted.stack, logit_bytes=logit_bytes))


def _updated(subject: Subject) -> dict[str, np.ndarray]:
    adapted = adapt(subject.loaded(), DROPOUT)
    cases = cases_of(adapted.stack)
    objective = make_objective(recipe(DROPOUT), cases.labels)
    prefix = Prefix.embedded(adapted.stack, cases)
    update = updates_of(adapted, prefix, objective, optim.AdamW(1e-3), 1e-3, SEED)

    for _ in range(UPDATES):
        update()

    weights = dict(tree_flatten(adapted.stack.model.trainable_parameters()))
    return {name: np.array(value) for name, value in weights.items()}


def _our_seconds(stack: Stack) -> float:
    adapted = adapt(stack)
    cases = cases_of(stack, BATCH, TIMED_LENGTH)
    prefix = Prefix.embedded(stack, cases)
    objective = make_objective(recipe(), cases.labels)
    return _median_seconds(updates_of(adapted, prefix, objective, optim.AdamW(1e-5), 1e-5))


def _stock_seconds(stack: Stack) -> float:
    """Stock's loss, gradients and optimizer as its own loop makes them: one compiled graph where
    that is faster.
    """
    model = adapt(stack).stack.model
    tokens, lengths = stock_batch(cases_of(stack, BATCH, TIMED_LENGTH))
    optimizer = optim.AdamW(1e-5)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state]
    gradients = nn.value_and_grad(model, lambda m: default_loss(m, tokens, lengths)[0])

    def step() -> mx.array:
        loss, gradient = gradients(model)
        optimizer.update(model, gradient)
        return loss

    graph = mx.compile(step, inputs=state, outputs=state) if compiles() else step
    return _median_seconds(lambda: mx.eval(graph(), state))


def _median_seconds(step: Step) -> float:
    """Median seconds of some calls after the first."""
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
