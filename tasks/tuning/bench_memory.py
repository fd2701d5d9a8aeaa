"""Memory of one training step on quantised weights as they are stored: what Metal would hold, measured on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from tasks.runtime.device import peak_resident_bytes
from tasks.runtime.store import verify
from tasks.tuning.bench_setting import Setting, bench_cases
from tasks.tuning.engine import update_gradients
from tasks.tuning.frozen_prefix import open_prefix
from tasks.tuning.lora import add_lora, load_variant
from tasks.tuning.losses import make_objective


def run(args: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """One packed step (`args`: the fields of Setting) over a stored prefix, with the optimizer's update.

    Returns stored bytes, MLX's bytes after loading, at the step's peak and in its cache, the process's peak, seconds.
    """
    setting = Setting.of(args)
    manifest = verify(setting.variant, deep=False)
    stack = load_variant(setting.variant, "packed")
    adapted = add_lora(stack, setting.recipe, setting.training, seed=0)
    weights = mx.get_active_memory()
    cases = bench_cases(setting.config["vocab_size"], setting.batch, setting.length)
    prefix = open_prefix(stack, cases, adapted.boundary, setting.folder, manifest["digest"])
    optimizer = setting.optimizer()
    optimizer.init(stack.model.trainable_parameters())
    objective = make_objective(setting.recipe, cases.labels)
    mx.clear_cache()
    mx.reset_peak_memory()
    start = time.perf_counter()
    _, _, gradients = update_gradients(adapted, prefix, cases, range(setting.batch), objective, setting.batch, None)
    optimizer.update(stack.model, gradients)
    mx.eval(stack.model.trainable_parameters(), optimizer.state)
    return {
        "stored_bytes": manifest["stored_bytes"], "weights_memory_bytes": weights,
        "peak_memory_bytes": mx.get_peak_memory(), "peak_over_weights_bytes": mx.get_peak_memory() - weights,
        "cache_memory_bytes": mx.get_cache_memory(), "peak_rss_bytes": peak_resident_bytes(),
        "seconds_per_step": time.perf_counter() - start,
    }  # fmt: skip
