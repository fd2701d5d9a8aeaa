"""Checks of the training engine: against references (the same weights unpacked, and stock mlx-lm's loss
and gradients), and against itself: what may be computed in parts, twice or in batches gives the same,
and a step is not slower than stock's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss

from tasks.bench.selftest.models import (
    WIDE,
    SelfTestCheck,
    Subject,
    adapt,
    cases_of,
    farthest,
    make_wide,
    our_gradients,
    outputs,
    recipe,
    relative_to_spread,
    stock_batch,
    stock_gradients,
)
from tasks.bench.setting import largest_difference, updates_of
from tasks.runtime.backend import backend
from tasks.scoring.mc_dropout import dropout_passes
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import compiles
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import make_objective
from tasks.tuning.model import Stack

# bfloat16 keeps 8 bits, so how far it is off depends on the model. The yardstick is the same model
# unpacked to bfloat16: the quantised kernels' root mean square error may be at most this many times
# the dense ones'. On a GPU only: on CPU MLX's bfloat16 kernels measure about 3, and no study uses
# them.
BFLOAT16_LIMIT = 2.0
# Probabilities of the labels that the product reports. The cases of a tiny model differ little, so
# that only their spread says what a difference means: cpu-packed measures 0.01 to 0.09 of it.
FIDELITY_LIMITS = {"float32": 1e-4, "bfloat16": 0.3}
LABEL_TOKENS = (5, 6, 7)
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


def tiny_checks(subject: Subject) -> Iterator[SelfTestCheck]:
    """A tiny model's kernels, loss and gradients."""
    limit = backend().selftest_tolerance
    title = subject.title
    if backend().on_gpu:
        yield SelfTestCheck(
            f"{title}: packed in bfloat16",
            partial(bfloat16_error, subject),
            BFLOAT16_LIMIT,
            "times the dense error",
        )

    yield SelfTestCheck(
        f"{title}: packed against dequantised", partial(packed_error, subject), limit
    )
    yield SelfTestCheck(
        f"{title}: fidelity of packed weights",
        partial(fidelity, subject),
        FIDELITY_LIMITS[backend().compute_dtype],
        "of the spread of the labels' probabilities between cases",
    )
    yield SelfTestCheck(
        f"{title}: loss and gradients against stock mlx-lm",
        lambda: gradient_error(subject.loaded(), subject.packed()),
        limit,
    )


def wide_checks() -> Iterator[SelfTestCheck]:
    """Gradients at the widths of real models: 576 and 49,152, and a head size of 256."""
    for name in WIDE:
        yield SelfTestCheck(
            f"{name} widths: loss and gradients against stock mlx-lm",
            lambda name=name: gradient_error(make_wide(name), make_wide(name)),  # type: ignore[misc]
            10 * backend().selftest_tolerance,
        )


def engine_checks(subject: Subject) -> Iterator[SelfTestCheck]:
    """A tiny model's step in parts, twice and in batches."""
    title = subject.title
    limit = backend().rounding

    def with_logits(adapted: Adapted, logit_bytes: int) -> Adapted:
        return replace(adapted, stack=replace(adapted.stack, logit_bytes=logit_bytes))

    # Gradients with a block of the head's columns at a time against all at once.
    blocks, at_once = (
        partial(with_logits, logit_bytes=count) for count in (FEW_LOGITS, MANY_LOGITS)
    )
    yield SelfTestCheck(
        f"{title}: head in blocks", partial(_difference, subject, blocks, at_once), limit
    )
    # Gradients, with dropout, of blocks that are computed again against blocks that are kept.
    again, kept = (partial(Adapted.with_checkpoints, checkpointing=one) for one in (True, False))
    yield SelfTestCheck(
        f"{title}: checkpointed blocks", partial(_difference, subject, again, kept), limit
    )
    yield SelfTestCheck(
        f"{title}: dropout passes, batched against one by one",
        partial(batched_passes, subject),
        PASSES_LIMITS[backend().compute_dtype],
        "of the spread of the passes",
    )
    yield SelfTestCheck(
        f"{title}: two updates, repeated",
        partial(repeated_updates, subject),
        0,
        "different values",
        "warning",
        NOT_REPEATABLE,
    )


def speed_checks(times: dict[str, float]) -> Iterator[SelfTestCheck]:
    """A step beside stock's. The seconds of both go to `times`."""
    yield SelfTestCheck(
        f"smollm2-135m widths, 2 blocks, {BATCH} x {TIMED_LENGTH} tokens: seconds of a step",
        partial(step_time, times),
        SLOWEST,
        "times stock's",
        "warning",
        SLOW,
    )


def bfloat16_error(subject: Subject) -> float:
    """Error of the packed model as stored, in units of that of the same model unpacked to bfloat16."""
    dense = subject.dense()
    exact = outputs(dense)
    dense.model.set_dtype(mx.bfloat16)
    return _error(outputs(subject.packed()), exact) / _error(outputs(dense), exact)


def packed_error(subject: Subject) -> float:
    """Logits of the quantised kernels against those of unpacked weights, both in float32."""
    packed = subject.packed()
    packed.model.set_dtype(mx.float32)
    exact = outputs(subject.dense())
    return float(np.array(mx.abs(outputs(packed) - exact).max() / mx.abs(exact).max()))


def fidelity(subject: Subject) -> float:
    """Label probabilities of packed weights, in this backend's data type, against unpacked float32:
    root mean square difference, relative to how far cases lie apart.
    """
    packed = subject.packed()
    if backend().compute_dtype == "float32":
        packed.model.set_dtype(mx.float32)
    return relative_to_spread(_probabilities(packed), _probabilities(subject.dense()))


def gradient_error(ours: Stack, stock: Stack) -> float:
    """Our loss and LoRA gradients against stock's on the same weights, in float32."""
    for stack in (ours, stock):
        stack.model.set_dtype(mx.float32)
    cases = cases_of(ours)
    loss, gradients = our_gradients(adapt(ours), cases)
    expected_loss, expected_gradients = stock_gradients(adapt(stock), cases)
    of_loss = abs(loss - expected_loss) / abs(expected_loss)
    return max(of_loss, largest_difference(gradients, expected_gradients))


def _probabilities(stack: Stack) -> np.ndarray:
    labels = outputs(stack)[:, -1][:, mx.array(LABEL_TOKENS)]
    return np.array(mx.softmax(labels, axis=-1))


def _error(a: mx.array, b: mx.array) -> float:
    return float(np.array(mx.sqrt(mx.square(a - b).mean())))


def batched_passes(subject: Subject) -> float:
    """Label probabilities of dropout passes over all cases at once against one case at a time: root
    mean square difference, relative to how far the passes lie apart.

    That all passes differ is checked where they are made.
    """
    adapted = adapt(subject.loaded(), DROPOUT)
    cases = cases_of(adapted.stack)
    prefix = Prefix(adapted.stack, cases)
    numbers = range(len(cases.encoded))

    def passes(case_numbers: list[int]) -> np.ndarray:
        return dropout_passes(adapted, prefix, case_numbers, PASSES, SEED, lambda event: None)

    one_by_one = np.concatenate([passes([number]) for number in numbers], axis=1)
    return relative_to_spread(passes(list(numbers)), one_by_one)


def repeated_updates(subject: Subject) -> float:
    """How many trained values differ, bit by bit, after the same two updates from the same start."""
    results = []
    for _ in range(2):
        adapted = adapt(subject.loaded(), DROPOUT)
        cases = cases_of(adapted.stack)
        objective = make_objective(recipe(DROPOUT), cases.labels)
        prefix = Prefix(adapted.stack, cases)
        update = updates_of(adapted, prefix, objective, optim.AdamW(1e-3), 1e-3, SEED)
        for _ in range(UPDATES):
            update()
        weights = dict(tree_flatten(adapted.stack.model.trainable_parameters()))
        results.append({name: np.array(value) for name, value in weights.items()})

    first, second = results
    return sum(int((first[name] != second[name]).sum()) for name in first)


def _difference(subject: Subject, first_change: Change, second_change: Change) -> float:
    gradients = []
    for change in (first_change, second_change):
        adapted = change(adapt(subject.loaded(), DROPOUT))
        loss, gradient = our_gradients(adapted, cases_of(adapted.stack), KEY)
        gradients.append(gradient | {"loss": mx.array([loss])})
    return farthest(*gradients)


def step_time(times: dict[str, float]) -> float:
    """Median seconds of our step divided by stock's, each after a step that compiles it."""
    times["ours"] = _our_seconds(make_wide("smollm2-135m"))
    times["stock"] = _stock_seconds(make_wide("smollm2-135m"))
    return times["ours"] / times["stock"]


def _our_seconds(stack: Stack) -> float:
    cases = cases_of(stack, BATCH, TIMED_LENGTH)
    objective = make_objective(recipe(), cases.labels)
    prefix = Prefix(stack, cases)
    return _median_seconds(updates_of(adapt(stack), prefix, objective, optim.AdamW(1e-5), 1e-5))


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
