"""Checks of the training engine: against references (the same weights unpacked, and stock mlx-lm's loss
and gradients), and against itself: what may be compiled, computed in parts, twice or in batches, or
killed and resumed, gives the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from tasks.bench.selftest.kernels import compute_dtype, rounding
from tasks.bench.selftest.models import (
    CASES,
    DIFFERENCE,
    LENGTH,
    TRAINING,
    SelfTestCheck,
    Subject,
    Weights,
    adapt,
    cases_of,
    distance,
    farthest,
    make_model,
    our_gradients,
    outputs,
    random_weights,
    recipe,
    relative_to_spread,
    stock_gradients,
)
from tasks.corpus.prepare import prepare_dataset
from tasks.precisions import of_bits
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.errors import LostChild
from tasks.runtime.events import Emit, Event, TrainingReport
from tasks.scoring.mc_dropout import dropout_passes
from tasks.spec import Data, ExperimentSpec, Scoring
from tasks.tuning import job
from tasks.tuning.activations import Prefix, prefix_in_memory
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import effective_batch
from tasks.tuning.loss import make_objective
from tasks.tuning.model import Stack
from tasks.tuning.rows import TrainingJob
from tasks.tuning.step import PlainUpdates

# bfloat16 keeps 8 bits, so how far it is off depends on the model. The yardstick is the same model
# unpacked to bfloat16: the quantised kernels' root mean square error may be at most this many times
# the dense ones'. On a GPU only: on CPU MLX's bfloat16 kernels measure about 3, and no study uses
# them.
BFLOAT16_LIMIT = 2.0
# Probabilities of the labels that the product reports, by how far cases or passes lie apart, since
# those of a tiny model differ little. cpu-packed measures 0.01 to 0.09; other masks are about 1.4.
FIDELITY_LIMITS = {"float32": 1e-4, "bfloat16": 0.3}
PASSES_LIMITS = {"float32": 1e-3, "bfloat16": 0.3}
LABEL_TOKENS = (5, 6, 7)
DROPOUT = 0.3
KEY = (1, 2)
SEED = 5
PASSES = 3
MASKS_LIMIT = 0.06  # six standard deviations of the share of a mask's elements
# Bytes of logits at once: many blocks of columns, and all columns.
FEW_LOGITS = 1 << 12
MANY_LOGITS = 1 << 62
# Of compiled updates: their number, the cases of a part, and a norm that every gradient passes.
UPDATES = 3
PART = 2
CLIPPED = 0.01
RATE = 1e-3
# AdamW takes the sign of gradients that are nearly 0, which rounding decides. What is broken is 1 or
# more: other masks, gradients of another sign or size.
UPDATES_LIMITS = {mx.float32: 1e-4, mx.bfloat16: 0.1}
# Models of real widths: keys of config.json that differ, cases, and tokens of a case. A block of logits
# is 22,000 of Gemma's 262,144 columns; one of its two blocks has full attention.
GEMMA = {"num_hidden_layers": 2, "sliding_window_pattern": 2}
NARROW_GEMMA = GEMMA | {"vocab_size": 4096}
WIDE: dict[str, tuple[str, dict[str, int], int, int]] = {
    "smollm2-135m widths": ("smollm2-135m", {"num_hidden_layers": 2}, 3, 24),
    "gemma-3-270m widths, head of 262,144 in blocks": ("gemma-3-270m", GEMMA, 3, 24),
    "gemma-3-270m widths, 600 tokens, window of 512": ("gemma-3-270m", NARROW_GEMMA, 2, 600),
}
WIDE_LOGITS = 1 << 20
WIDE_LIMIT = 1e-3  # a CPU's sum over 262,144 columns, in stock's loss, is off by 3e-4
# Of the mini training, which is killed two updates after its checkpoint.
ITERATIONS = 7
CHECKPOINT_EVERY = 3
KILLED_AT = 5
NOT_REPEATABLE = "a resumed training may differ in its last digits; report it with the file below"
NOT_RESUMED = "let no training be interrupted, and report it with the file below"


def tiny_checks(subject: Subject, of_engine: bool) -> Iterator[SelfTestCheck]:
    """A tiny model's numbers against references; with `of_engine` those of its training, too."""
    name = backend().compute_dtype
    dtype = compute_dtype()
    limit = backend().selftest_tolerance
    of_cases = "of the spread of the labels' probabilities between cases"
    of_passes = "of the spread of the passes"
    against_stock = "loss and gradients against stock mlx-lm"
    shared = "in the share of elements that two masks keep"
    compared = "compiled updates against uncompiled ones"
    if not compiles():
        compared = "updates as a GPU makes them, uncompiled, against those of this backend"

    table: list[tuple[Any, ...]] = [
        ("packed against dequantised", packed_error, limit),
        ("fidelity of packed weights", fidelity, FIDELITY_LIMITS[name], of_cases),
        (against_stock, lambda one: gradient_error(one.loaded()), limit),
    ]
    if backend().on_gpu:
        table.append(
            ("packed in bfloat16", bfloat16_error, BFLOAT16_LIMIT, "times the dense error")
        )
    if of_engine:
        for of_updates in dict.fromkeys((mx.float32, dtype)):
            title = f"{compared}, {'float32' if of_updates == mx.float32 else 'bfloat16'}"
            measure = partial(compiled_error, of_updates)
            table.append((title, measure, UPDATES_LIMITS[of_updates]))
        batched = "dropout passes, batched against one by one"
        table += [
            ("head in blocks", partial(changed, FEW_LOGITS, MANY_LOGITS), rounding(dtype)),
            ("checkpointed blocks", partial(changed, True, False), rounding(dtype)),
            ("masks of cases, modules and updates", shared_masks, MASKS_LIMIT, shared),
            (batched, batched_passes, PASSES_LIMITS[name], of_passes),
            ("updates, repeated", repeated_updates, 0, DIFFERENCE, "warning", NOT_REPEATABLE),
            ("a training killed and resumed", resumed_error, 0, DIFFERENCE, "error", NOT_RESUMED),
        ]
    for title, measure, *rest in table:
        yield SelfTestCheck(f"{subject.title}: {title}", partial(measure, subject), *rest)


def wide_checks() -> Iterator[SelfTestCheck]:
    """Gradients at the widths of real models, with their heads, and beyond Gemma's window."""
    for title, model in WIDE.items():
        name = f"{title}: loss and gradients against stock mlx-lm"
        yield SelfTestCheck(name, partial(wide_gradients, *model), WIDE_LIMIT)


def bfloat16_error(subject: Subject) -> float:
    """Error of the packed model as stored, in units of that of the same model unpacked to bfloat16."""
    dense = subject.dense()
    exact = outputs(dense)
    dense.model.set_dtype(mx.bfloat16)
    return distance(outputs(subject.packed()), exact) / distance(outputs(dense), exact)


def packed_error(subject: Subject) -> float:
    """Logits of the quantised kernels against those of unpacked weights, both in float32."""
    return distance(outputs(subject.packed(mx.float32)), outputs(subject.dense()))


def fidelity(subject: Subject) -> float:
    """Label probabilities of packed weights, in this backend's data type, against unpacked float32:
    root mean square difference, relative to how far cases lie apart.
    """

    def probabilities(stack: Stack) -> np.ndarray:
        labels = outputs(stack)[:, -1][:, mx.array(LABEL_TOKENS)]
        return np.array(mx.softmax(labels, axis=-1))

    packed = subject.packed(compute_dtype())
    return relative_to_spread(probabilities(packed), probabilities(subject.dense()))


def wide_gradients(name: str, changes: dict[str, int], count: int, length: int) -> float:
    return gradient_error(make_model(name, **changes), count, length)


def gradient_error(stack: Stack, count: int = CASES, length: int = LENGTH) -> float:
    """Our loss and LoRA gradients against stock's on the same weights, in float32."""
    stack.model.set_dtype(mx.float32)
    cases = cases_of(stack, count, length)
    adapted = adapt(replace(stack, logit_bytes=WIDE_LOGITS))
    return farthest(our_gradients(adapted, cases), stock_gradients(adapted, cases))


class CountedUpdates(CompiledUpdates):
    """Compiled updates that count how often Python builds a graph."""

    built = 0

    def _build(self, *arguments: Any) -> Any:
        self.built += 1
        return super()._build(*arguments)


def updated(
    stack: Stack,
    kind: type[PlainUpdates | CompiledUpdates],
    dropout: float,
    part: int,
    limit: float | None,
) -> tuple[Weights, PlainUpdates | CompiledUpdates]:
    """Losses, norms, weights and the optimizer's state of some updates over cached activations, in
    parts of `part` cases, clipped to the norm `limit`; and what made them.
    """
    adapted = adapt(stack, dropout)
    cases = cases_of(stack)
    optimizer = optim.AdamW(RATE, bias_correction=True)
    optimizer.init(stack.model.trainable_parameters())
    prefix = prefix_in_memory(stack, cases, adapted.boundary)
    objective = make_objective(recipe(dropout), cases.labels)
    updates = kind(adapted, prefix, objective, optimizer, limit)

    tensors: Weights = {}
    for number in range(UPDATES):
        key = (SEED, number) if dropout else None
        batch = effective_batch(cases, range(CASES), part, key)
        loss, _, norm = updates.start(batch, RATE)
        tensors |= {f"loss {number}": loss, f"norm {number}": norm}
    updates.hand_back()
    tensors |= dict(tree_flatten([stack.model.trainable_parameters(), optimizer.state]))
    mx.eval(tensors)
    return tensors, updates


def compiled_error(dtype: mx.Dtype, subject: Subject) -> float:
    """Three compiled updates against three uncompiled ones: whole batches; and batches in parts, with
    dropout, clipping, logits in blocks of columns and blocks that are computed again.

    A backend that does not compile makes the same updates operation by operation: fused kernels
    would take a C++ compiler here, and no training of it uses them.
    """
    if not compiles():
        mx.disable_compile()
    worst = 0.0
    try:
        for little_memory in (False, True):
            settings = (DROPOUT, PART, CLIPPED) if little_memory else (0.0, CASES, None)
            stacks = [subject.packed(dtype) if compiles() else subject.loaded() for _ in range(2)]
            if little_memory:
                changes: dict[str, Any] = {"logit_bytes": FEW_LOGITS, "checkpointing": True}
                stacks = [replace(stack, **changes) for stack in stacks]
            expected, _ = updated(stacks[0], PlainUpdates, *settings)
            tensors, updates = updated(stacks[1], CountedUpdates, *settings)
            assert isinstance(updates, CountedUpdates)
            if compiles() and updates.built >= UPDATES:
                raise RuntimeError("each update was built anew: is MLX_DISABLE_COMPILE set?")
            worst = max(worst, farthest(tensors, expected))
    finally:
        if not compiles():
            mx.enable_compile()
    return worst


def repeated_updates(subject: Subject) -> float:
    """The same updates from the same start, twice: 0 where they are equal to the bit."""
    kind = CompiledUpdates if compiles() else PlainUpdates
    first, second = (updated(subject.loaded(), kind, DROPOUT, PART, CLIPPED)[0] for _ in range(2))
    return farthest(first, second)


def changed(setting: bool | int, other: bool | int, subject: Subject) -> float:
    """Loss and gradients, with dropout, under two settings of a stack: blocks computed again or kept,
    or how many bytes of logits there are at once.
    """
    gradients = []
    for value in (setting, other):
        stack = subject.loaded()
        change: dict[str, Any] = {
            "checkpointing" if isinstance(value, bool) else "logit_bytes": value
        }
        adapted = adapt(replace(stack, **change), DROPOUT)
        gradients.append(our_gradients(adapted, cases_of(stack), KEY))
    return farthest(*gradients)


def shared_masks(subject: Subject) -> float:
    """By how much the share of elements that two dropout masks keep, or that one keeps, is off at most:
    a mask that two cases, modules or updates share is off by DROPOUT.
    """
    adapted = adapt(subject.loaded(), DROPOUT)
    ones = mx.ones((CASES, LENGTH, adapted.stack.hidden_size))
    masks = []
    for update in range(2):
        adapted.set_dropout([(SEED, update, case) for case in range(CASES)])
        for module in adapted.dropouts:
            masks.append(np.array(module(ones) != 0).reshape(CASES, -1))
    kept = np.concatenate(masks).astype(np.float32)
    expected = np.where(np.eye(len(kept)), 1 - DROPOUT, (1 - DROPOUT) ** 2)
    return float(np.abs(kept @ kept.T / kept.shape[1] - expected).max())


def batched_passes(subject: Subject) -> float:
    """Label probabilities of dropout passes over all cases at once against one case at a time: root
    mean square difference, relative to how far the passes lie apart.

    That all passes differ is checked where they are made.
    """
    adapted = adapt(subject.loaded(), DROPOUT)
    prefix = Prefix(adapted.stack, cases_of(adapted.stack))

    def passes(case_numbers: list[int]) -> np.ndarray:
        return dropout_passes(adapted, prefix, case_numbers, PASSES, SEED, lambda event: None)

    one_by_one = np.concatenate([passes([number]) for number in range(CASES)], axis=1)
    return relative_to_spread(passes(list(range(CASES))), one_by_one)


def resumed_error(subject: Subject) -> float:
    """The adapters of a training in a child process that is killed and resumed against those of one
    that is not: 0 where they are equal to the bit.
    """
    limits = {"train": 24, "valid": 6, "calibration": 3, "test": 3}
    data = Data.model_validate({"limits": limits})
    changes = {"evaluate_every": CHECKPOINT_EVERY, "report_every": 1, "max_gradient_norm": 0.5}
    spec = ExperimentSpec(
        model=random_weights(subject.name),
        precision=of_bits(subject.bits),
        recipe=recipe(DROPOUT).model_copy(update={"iterations": ITERATIONS}),
        seed=SEED,
        training=TRAINING.model_copy(update=changes),
        data=data,
        scoring=Scoring(),
    )
    root = subject.root / subject.name
    make_job = partial(TrainingJob, experiment=spec, training_id="selftest", home=subject.root)
    make_job = partial(make_job, variant=subject.folder, data=prepare_dataset(data, subject.root))

    def train(name: str, function: str) -> list[int]:
        """Returns the updates that it reported."""
        reported: list[int] = []

        def note(event: Event) -> None:
            if isinstance(event, TrainingReport):
                reported.append(event.iteration)

        with contextlib.suppress(LostChild):
            job_args = make_job(folder=root / name).model_dump(mode="json")
            run_child(function, job_args, root / name, note)
        return reported

    def adapters(name: str) -> Weights:
        weights = mx.load(str(root / name / "adapters_last.safetensors"))
        assert isinstance(weights, dict)
        return weights

    whole = train("whole", f"{job.__name__}:run")
    functions = (f"{__name__}:train_until_killed", f"{job.__name__}:run")
    parts = [train("killed", function) for function in functions]
    if parts != [whole[:KILLED_AT], whole[CHECKPOINT_EVERY:]]:
        raise RuntimeError(f"killed and resumed, it reported the updates {parts} of {whole}")
    if not any((subject.root / "prefixes").glob("*/manifest.json")):
        raise RuntimeError("no cached activations were stored")
    return farthest(adapters("killed"), adapters("whole"))


def train_until_killed(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """In a child: a training that kills its own process after an update that no checkpoint holds."""

    def kill(event: Event) -> None:
        emit(event)
        if isinstance(event, TrainingReport) and event.iteration == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    return job.run(args, kill)
