"""One training step, timed: stock mlx-lm's own `train()` or our engine, on the same batch from the same adapter.

Each engine runs in a process of its own, since a BLAS library, once loaded, stays. Engines:
    stock        as installed: the wheel's own BLAS, packed weights with float32 scales and norms (as stored on Metal)
    stock_dense  the same `train()` with our BLAS and the same weights unpacked to float32
    ours         `update_gradients` over a frozen prefix that was stored before, as every recipe after the first finds it
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import mlx.core as mx

from tasks.bench.flops import matmul_flops, matmul_speed
from tasks.bench.setting import (
    Measured,
    Setting,
    Weights,
    bench_cases,
    first_gradients,
    largest_difference,
    start_adapter,
)
from tasks.bench.stock import float64_gradients, measure_stock
from tasks.runtime.device import compute_path, measure, peak_resident_bytes
from tasks.runtime.events import Emit
from tasks.runtime.store import verify
from tasks.tuning.batches import Cases, make_batch
from tasks.tuning.engine import batch_terms, leading_past, update_gradients
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.losses import Objective, make_objective, objective_sum, scored_tokens
from tasks.tuning.memory import CACHE_BYTES

GRADIENTS = "gradients.safetensors"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine (`args`: the fields of Setting) and leave its gradients in `folder`/gradients.safetensors.

    Returns the fields of Measured without the gradients, device, sgemm speed (GFLOP/s), peak resident bytes
    and how many first tokens all prompts have in common.
    """
    setting = Setting.of(args)
    device, config = measure(), setting.config
    largest = (setting.batch * setting.length, config["hidden_size"], config["intermediate_size"])
    before = matmul_speed(*largest)
    cases = bench_cases(config["vocab_size"], setting.batch, setting.length)
    measured = _ours(setting, cases) if setting.engine == "ours" else measure_stock(setting, cases)
    mx.save_safetensors(str(setting.folder / GRADIENTS), measured.gradients)
    figures = {key: value for key, value in vars(measured).items() if key != "gradients"}
    return figures | {
        "device": asdict(device), "matmul_gflops": max(before, matmul_speed(*largest)), "peak_rss_bytes": peak_resident_bytes(),
        "leading_tokens": cases.leading,
    }  # fmt: skip


def compare(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Per engine, how far its gradients are from stock's (`to_stock`) and from the same step's in float64 (`to_float64`).

    `args`: the fields of Setting, and `gradients`: engine to file, with one for `stock`. The second figure tells what
    float32 itself costs: with real weights, whose activations span five orders of magnitude, no engine is exact.
    """
    files = args.pop("gradients")
    mx.set_default_device(mx.cpu)  # the only one that has float64
    exact = float64_gradients(Setting.of(args))
    found: dict[str, Weights] = {engine: mx.load(path) for engine, path in files.items()}  # type: ignore[misc]
    return {
        engine: {
            "to_stock": largest_difference(gradients, found["stock"])
            if engine != "stock"
            else None,
            "to_float64": largest_difference(gradients, exact),
        }
        for engine, gradients in found.items()
    }


def _ours(setting: Setting, cases: Cases) -> Measured:
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(setting.variant, compute_path())
    adapted = add_lora(stack, setting.recipe, setting.training, seed=0)
    start_adapter(stack.model)
    weights_bytes = mx.get_active_memory()
    prefix, stored = _prefix(setting, adapted, cases)
    objective = make_objective(setting.recipe, cases.labels)
    optimizer = setting.optimizer()
    optimizer.init(stack.model.trainable_parameters())
    gradients: Weights = {}
    seconds = []
    mx.reset_peak_memory()
    for _ in range(1 + setting.repeats):
        start = time.perf_counter()
        _, _, step = update_gradients(
            adapted, prefix, range(setting.batch), objective, setting.batch, dropout_key=None
        )
        optimizer.update(stack.model, step)
        mx.eval(stack.model.trainable_parameters(), optimizer.state)
        seconds.append(time.perf_counter() - start)
        gradients = gradients or first_gradients(optimizer)
    peak, cached = mx.get_peak_memory(), mx.get_cache_memory()
    # MLX cannot write down a graph with derivatives of our own; the products are the same without them.
    counted = replace(adapted, stack=replace(stack, cpu_kernels=False, logit_bytes=1 << 62))
    flops = matmul_flops(stack.model, lambda _: _our_loss(counted, prefix, cases, objective))
    return Measured(
        seconds[1:], weights_bytes, peak, cached, flops, gradients, ["after a warm-up step"], stored
    )


def _prefix(setting: Setting, adapted: Adapted, cases: Cases) -> tuple[Prefix, dict[str, Any]]:
    """The batch's frozen prefix, written and read back, and what that cost once."""
    start = time.perf_counter()
    digest = verify(setting.variant, deep=False)["digest"]
    prefix = open_prefix(adapted.stack, cases, adapted.boundary, setting.folder, digest)
    stored = prefix.boundary > 0
    return prefix, {
        "blocks": prefix.boundary,
        "seconds": time.perf_counter() - start if stored else None,
    }


def _our_loss(adapted: Adapted, prefix: Prefix, cases: Cases, objective: Objective) -> mx.array:
    """The loss of the whole batch as `update_gradients` computes it, without evaluating anything."""
    everything = range(len(cases.encoded))
    batch = make_batch(cases, everything)
    terms = batch_terms(adapted, prefix, batch, leading_past(adapted, prefix))
    tokens = scored_tokens(cases, everything)
    return objective_sum(terms, batch.labels, objective, tokens, len(cases.encoded))[0]
