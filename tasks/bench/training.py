"""One training step, timed: stock mlx-lm's own `train()` or our engine, on the same batch from the
same adapter.

Each engine runs in its own process, since a BLAS library, once loaded, stays. Engines:
    stock        as installed: the wheel's own BLAS, packed weights with float32 scales and norms (as stored on Metal)
    stock_dense  the same `train()` with our BLAS and the same weights unpacked to float32
    ours         `update_gradients` over a frozen prefix that is already stored, as it is for every recipe but the first
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.bench.flops import matmul_flops, matmul_speed
from tasks.bench.setting import (
    Measured,
    Setting,
    Weights,
    first_gradients,
    largest_difference,
    start_adapter,
)
from tasks.bench.stock import float64_gradients, measure_stock
from tasks.bench.updates import updates_of
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.device import measure
from tasks.runtime.events import Emit
from tasks.runtime.memory import peak_resident_bytes
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.data import EncodedCases, make_batch
from tasks.tuning.forward import batch_terms, leading_past
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.loss import Objective, make_objective, objective_sum, scored_tokens
from tasks.tuning.memory import CACHE_BYTES

GRADIENTS = "gradients.safetensors"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine (`args`: the fields of Setting) and write its gradients to
    `folder`/gradients.safetensors.

    Returns the fields of Measured without the gradients, the device, the speed of its largest
    matrix product (GFLOP/s), peak resident bytes, and how many first tokens all prompts have in
    common.
    """
    setting = Setting.model_validate(args)
    device = measure()
    config = setting.config
    largest = (setting.batch * setting.length, config["hidden_size"], config["intermediate_size"])
    speed_before = matmul_speed(*largest)

    cases = setting.cases
    measurement = (
        _our_measurement(setting, cases)
        if setting.engine == "ours"
        else measure_stock(setting, cases)
    )
    mx.save_safetensors(str(setting.folder / GRADIENTS), measurement.gradients)
    return measurement.figures() | {
        "device": device.as_dict(),
        "matmul_gflops": max(speed_before, matmul_speed(*largest)),
        "peak_rss_bytes": peak_resident_bytes(),
        "leading_tokens": cases.leading,
    }


def compare(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Per engine, how far its gradients are from stock's (`to_stock`) and from the same step's in
    float64 (`to_float64`).

    `args`: the fields of Setting, with `gradients` for `stock` among others. The second figure is
    the error of float32 itself: with real weights, whose activations span five orders of magnitude,
    no engine is exact.
    """
    setting = Setting.model_validate(args)
    # The only device that has float64.
    mx.set_default_device(mx.cpu)
    exact = float64_gradients(setting)
    by_engine = {engine: _load(path) for engine, path in setting.gradients.items()}

    return {
        engine: {
            "to_stock": None
            if engine == "stock"
            else largest_difference(gradients, by_engine["stock"]),
            "to_float64": largest_difference(gradients, exact),
        }
        for engine, gradients in by_engine.items()
    }


def _load(path: Path) -> Weights:
    weights: Weights = mx.load(str(path))  # type: ignore[assignment]
    return weights


def _our_measurement(setting: Setting, cases: EncodedCases) -> Measured:
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(setting.variant, backend().compute_path)
    adapted = add_lora(stack, setting.recipe, setting.training, seed=0)
    start_adapter(stack.model)
    weights_bytes = mx.get_active_memory()
    prefix, prefix_figures = _prefix(setting, adapted, cases)
    objective = make_objective(setting.recipe, cases.labels)

    seconds, gradients = _timed_steps(setting, adapted, prefix, objective)
    peak = mx.get_peak_memory()
    cached = mx.get_cache_memory()

    # MLX cannot export a graph with custom derivatives; the products are the same without them.
    counted = replace(adapted, stack=replace(stack, cpu_kernels=False, logit_bytes=1 << 62))
    flops = matmul_flops(stack.model, lambda _: _our_loss(counted, prefix, objective))
    notes = ["after a warm-up step"]
    return Measured(seconds, weights_bytes, peak, cached, flops, gradients, notes, prefix_figures)


def _timed_steps(
    setting: Setting, adapted: Adapted, prefix: Prefix, objective: Objective
) -> tuple[list[float], Weights]:
    """Seconds of each update after a warm-up, and the gradients of the first.

    MLX's peak memory is that of these.
    """
    optimizer = setting.optimizer()
    update = updates_of(adapted, prefix, objective, optimizer, setting.recipe.learning_rate)

    gradients: Weights = {}
    seconds = []
    mx.reset_peak_memory()

    for _ in range(1 + setting.repeats):
        start = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - start)
        gradients = gradients or first_gradients(optimizer)

    return seconds[1:], gradients


def _prefix(
    setting: Setting, adapted: Adapted, cases: EncodedCases
) -> tuple[Prefix, dict[str, Any]]:
    """The batch's frozen prefix, written and read back.

    Returned with its number of blocks and the seconds that writing it took.
    """
    start = time.perf_counter()
    store = PrefixStore(setting.folder, VariantManifest.read(setting.variant).digest)
    prefix = open_prefix(adapted.stack, cases, adapted.boundary, store)
    stored = prefix.boundary > 0

    return prefix, {
        "blocks": prefix.boundary,
        "seconds": time.perf_counter() - start if stored else None,
    }


def _our_loss(adapted: Adapted, prefix: Prefix, objective: Objective) -> mx.array:
    """The loss of the whole batch as `update_gradients` computes it, without evaluating anything."""
    cases = prefix.cases
    all_cases = range(len(cases.encoded))
    batch = make_batch(cases, all_cases)
    terms = batch_terms(adapted, prefix, batch, leading_past(adapted, prefix))
    tokens = scored_tokens(cases, all_cases)
    return objective_sum(terms, batch.labels, objective, tokens, len(cases.encoded))[0]
