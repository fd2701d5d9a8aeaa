"""Memory of one training step: on quantised weights as they are stored, which is what Metal would hold, measured on any
machine; or as a training of this machine makes it within a budget."""

from __future__ import annotations

import time
from typing import Any

import mlx.core as mx

from tasks.bench.setting import Setting, bench_cases
from tasks.runtime.device import compute_path, peak_resident_bytes
from tasks.runtime.events import Emit
from tasks.runtime.store import verify
from tasks.tuning.batches import Cases
from tasks.tuning.engine import score_cases, update_gradients
from tasks.tuning.fit import fit, keep_within, with_checkpoints
from tasks.tuning.frozen_prefix import Prefix, open_prefix
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.losses import Objective, make_objective
from tasks.tuning.memory import MemoryChoice, cache_limit


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """One packed step (`args`: the fields of Setting) over a stored prefix, with the optimizer's update.

    Returns stored bytes, MLX's bytes after loading, at the step's peak and in its cache, the process's peak, seconds.
    """
    setting = Setting.of(args)
    adapted, weights = _load(setting, "packed")
    cases = bench_cases(setting.config["vocab_size"], setting.batch, setting.length)
    prefix = open_prefix(
        adapted.stack, cases, adapted.boundary, setting.folder, _manifest(setting)["digest"]
    )
    objective = make_objective(setting.recipe, cases.labels)
    return _step(setting, adapted, prefix, cases, objective, MemoryChoice(setting.batch), weights)


def run_within(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """One step and one validation as a training makes them within a budget: the fields of Setting, and `memory` (bytes).

    Prefix, micro-batch and checkpointing are what the budget asks for, weights included. Returns what `run` does, with
    budget, micro-batch and whether blocks were checkpointed. Raises BadInput if not even one case fits.
    """
    limit = args.pop("memory")
    setting = Setting.of(args)
    keep_within(limit, cache_limit(limit))
    adapted, weights = _load(setting, compute_path())
    cases = bench_cases(setting.config["vocab_size"], setting.batch, setting.length)
    digest = _manifest(setting)["digest"]
    prefix = open_prefix(
        adapted.stack, cases, adapted.boundary, setting.folder, digest, emit, limit=limit
    )
    objective = make_objective(setting.recipe, cases.labels)
    choice = fit(adapted, prefix, objective, setting.batch, limit, emit)
    keep_within(limit, choice.cache_bytes)
    figures = _step(setting, adapted, prefix, cases, objective, choice, weights)
    chosen = {"micro_batch": choice.micro_batch, "checkpointed_blocks": int(choice.checkpointing)}
    return figures | {"memory_budget_bytes": limit} | chosen


def _manifest(setting: Setting) -> dict[str, Any]:
    return verify(setting.variant, deep=False)


def _load(setting: Setting, path: str) -> tuple[Adapted, int]:
    """The adapted variant, and the bytes that MLX holds with it."""
    adapted = add_lora(
        load_variant(setting.variant, path), setting.recipe, setting.training, seed=0
    )
    return adapted, int(mx.get_active_memory())


def _step(
    setting: Setting,
    adapted: Adapted,
    prefix: Prefix,
    cases: Cases,
    objective: Objective,
    choice: MemoryChoice,
    weights: int,
) -> dict[str, Any]:
    """An update, and where a budget bounds it the validation that a training makes too; what they took."""
    model, optimizer = adapted.stack.model, setting.optimizer()
    optimizer.init(model.trainable_parameters())
    mx.eval(optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()
    start = time.perf_counter()
    _, _, gradients = update_gradients(
        with_checkpoints(adapted, choice.checkpointing), prefix, range(setting.batch), objective,
        choice.micro_batch, None,
    )  # fmt: skip
    optimizer.update(model, gradients)
    mx.eval(model.trainable_parameters(), optimizer.state)
    seconds = time.perf_counter() - start
    if choice.limit is not None:
        del gradients
        score_cases(adapted, prefix, choice.tokens_at_once)
    peak = mx.get_peak_memory()
    return {
        "stored_bytes": _manifest(setting)["stored_bytes"], "weights_memory_bytes": weights, "peak_memory_bytes": peak,
        "peak_over_weights_bytes": peak - weights, "cache_memory_bytes": mx.get_cache_memory(),
        "peak_rss_bytes": peak_resident_bytes(), "seconds_per_step": seconds,
    }  # fmt: skip
