"""Times at real sizes, stock mlx-lm beside ours: a training step, a scoring pass, dropout passes, and
updates that are sustained for minutes. All 30 blocks of SmolLM2-135M's widths, with random weights.

On a CPU stock gets the same weights unpacked, as ours: on packed ones, as installed, a step takes
minutes. What is sustained is short there, since a processor's speed is no question of a study.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice, pairwise
from statistics import median
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers, remove_lora_layers

from tasks.bench.selftest.models import (
    SelfTestCheck,
    cases_of,
    make_model,
    recipe,
    start_adapter,
    stock_batch,
)
from tasks.runtime.backend import backend
from tasks.runtime.events import Event
from tasks.scoring.mc_dropout import dropout_passes
from tasks.spec import Training
from tasks.tuning.activations import Prefix, prefix_in_memory
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import effective_batch
from tasks.tuning.lora import Adapted, add_lora
from tasks.tuning.loss import make_objective
from tasks.tuning.step import PlainUpdates, score_cases

MODEL = "smollm2-135m"
BITS = (4, 8)
# Of config.json; a test takes fewer blocks and words.
CHANGES: dict[str, int] = {}
TRAINED_BLOCKS = 16
DROPOUT = 0.1
SEED = 5
STEP = (8, 120)  # cases, and tokens of each
SCORED = (32, 128)  # 4,096 tokens
PASSES = 3
REPEATS = {"cpu": 1, "gpu": 5}
SUSTAINED_SECONDS = {"cpu": 20.0, "gpu": 180.0}
WINDOWS = 10
# Ours does a part of stock's work.
SLOWEST = 1.0
# What a laptop without a fan may lose; the cores of a CPU are shared with whatever else runs.
SLOWED_DOWN = {"cpu": 10.0, "gpu": 1.5}
SLOW = "close other programs and repeat it; if it stays, report it with the file below"
HOT = "plan for its speed at the end: the report has it by time; cool the machine, or connect it"


def timing_checks(figures: dict[str, Any]) -> Iterator[SelfTestCheck]:
    """Ours against stock, and the end of the sustained run against its beginning. Seconds and bytes
    go to `figures`, with a sentence that says of what.
    """
    duration = _of_device(SUSTAINED_SECONDS)
    figures["of"] = (
        f"{MODEL} with random weights, LoRA on {TRAINED_BLOCKS} blocks, dropout {DROPOUT}; a step and a "
        f"dropout pass of {STEP[0]} x {STEP[1]} tokens, a scoring pass of {SCORED[0]} x {SCORED[1]}, "
        "a quarter of each the instruction that all share and that is computed once; "
        f"stock mlx-lm on {'packed' if backend().on_gpu else 'the same unpacked'} weights; sustained: "
        f"a step's median seconds in each of {WINDOWS} parts of {duration:.0f} s, few on a CPU"
    )
    for bits in BITS:
        name = f"{MODEL} {bits}bit, {STEP[0]} x {STEP[1]} tokens: seconds of a step"
        measure = partial(beside_stock, bits, figures)
        yield SelfTestCheck(name, measure, SLOWEST, "times stock's", "warning", SLOW)

    name = f"{MODEL} {BITS[0]}bit: updates for {duration:.0f} s"
    limit, unit = _of_device(SLOWED_DOWN), "times slower at the end"
    yield SelfTestCheck(name, partial(sustained, figures), limit, unit, "warning", HOT)


def beside_stock(bits: int, figures: dict[str, Any]) -> float:
    """Median seconds of our step divided by stock's, each after one that compiles it."""
    adapted = _adapted(bits)
    repeats = _of_device(REPEATS)
    ours = _figures(islice(updates(adapted), 1 + repeats))

    stack = adapted.stack
    scored = Prefix(stack, cases_of(stack, *SCORED))
    scoring = _figures(_timed(lambda: score_cases(adapted, scored), repeats))

    some = prefix_in_memory(stack, cases_of(stack, *STEP), adapted.boundary)
    ends: list[float] = []

    def note(event: Event) -> None:
        ends.append(time.perf_counter())

    dropout_passes(adapted, some, range(STEP[0]), 1 + PASSES, SEED, note)

    stock = _figures(_timed(_stock_step(adapted), repeats))
    figures[f"{bits}bit"] = {
        "step": ours,
        "stock_step": stock,
        "scoring_pass": scoring,
        "dropout_pass": {"seconds": [round(end - start, 4) for start, end in pairwise(ends)]},
    }
    return median(ours["seconds"]) / median(stock["seconds"])


def sustained(figures: dict[str, Any]) -> float:
    """Updates for some minutes: the median seconds of one in the last tenth, divided by that in the
    first.
    """
    duration = _of_device(SUSTAINED_SECONDS)
    steps = updates(_adapted(BITS[0]))
    next(steps)
    windows: list[list[float]] = []
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < duration or not windows:
        if elapsed >= duration * len(windows) / WINDOWS:
            windows.append([])
        windows[-1].append(next(steps))

    seconds = [round(median(window), 4) for window in windows]
    figures["sustained"] = {"step_seconds": seconds, "steps": sum(map(len, windows))}
    return seconds[-1] / seconds[0]


def updates(adapted: Adapted) -> Iterator[float]:
    """Endless updates with dropout over cached activations: the seconds of each. As in a training, one
    is handed over while the device computes the one before.
    """
    stack = adapted.stack
    cases = cases_of(stack, *STEP)
    settings = recipe(DROPOUT)
    optimizer = optim.AdamW(settings.learning_rate, bias_correction=True)
    optimizer.init(stack.model.trainable_parameters())
    prefix = prefix_in_memory(stack, cases, adapted.boundary)
    kind = CompiledUpdates if compiles() else PlainUpdates
    engine = kind(adapted, prefix, make_objective(settings, cases.labels), optimizer, None)
    started: deque[Any] = deque()
    for number in count():
        start = time.perf_counter()
        batch = effective_batch(cases, range(STEP[0]), STEP[0], (SEED, number))
        started.append(engine.start(batch, settings.learning_rate))
        if len(started) > int(engine.are_compiled):
            mx.eval(started.popleft())
        yield time.perf_counter() - start


def _stock_step(adapted: Adapted) -> Callable[[], None]:
    """Stock's own LoRA in place of ours, and its loss, gradients and optimizer as its own loop makes
    them: one compiled graph where that is faster.
    """
    stack = adapted.stack
    tokens, lengths = stock_batch(cases_of(stack, *STEP))
    settings = recipe(DROPOUT)
    parameters = settings.model_dump(include={"rank", "scale", "dropout"})
    parameters["keys"] = list(Training().target_modules)
    model = remove_lora_layers(stack.model)
    linear_to_lora_layers(model, TRAINED_BLOCKS, parameters)
    start_adapter(model)
    model.train()
    optimizer = optim.AdamW(settings.learning_rate)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]
    gradients = nn.value_and_grad(model, lambda m: default_loss(m, tokens, lengths)[0])

    def step() -> mx.array:
        loss, gradient = gradients(model)
        optimizer.update(model, gradient)
        return loss

    graph = mx.compile(step, inputs=state, outputs=state) if compiles() else step
    return lambda: mx.eval(graph(), state)


def _adapted(bits: int) -> Adapted:
    mx.clear_cache()
    stack = make_model(MODEL, bits, **CHANGES)
    adapted = add_lora(stack, recipe(DROPOUT), Training(num_layers=TRAINED_BLOCKS), SEED)
    start_adapter(stack.model)
    return adapted


def _timed(call: Callable[[], object], repeats: int) -> Iterator[float]:
    """Seconds of the first call, and of some after it."""
    for _ in range(1 + repeats):
        start = time.perf_counter()
        call()
        yield time.perf_counter() - start


def _figures(seconds: Iterable[float]) -> dict[str, Any]:
    """Seconds after the first, which compiles, and the peak of MLX's memory while they are taken."""
    mx.reset_peak_memory()
    _, *later = seconds
    return {"seconds": [round(one, 4) for one in later], "peak_bytes": mx.get_peak_memory()}


def _of_device(values: dict[str, Any]) -> Any:
    return values["gpu" if backend().on_gpu else "cpu"]
