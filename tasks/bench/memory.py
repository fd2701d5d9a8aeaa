"""Memory of one training step, on quantised weights as stored (as Metal holds them, on any machine)
or within a budget.
"""

from __future__ import annotations

import time
from typing import Any

import mlx.core as mx

from tasks.bench.setting import Setting
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.events import Emit
from tasks.runtime.memory import peak_resident_bytes
from tasks.tuning.fit import choose_micro_batch, keep_within, with_checkpoints
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.gradients import update_gradients
from tasks.tuning.lora import Adapted, add_lora
from tasks.tuning.losses import make_objective
from tasks.tuning.memory import MemoryChoice, cache_limit
from tasks.tuning.prefix_store import PrefixStore, open_prefix
from tasks.tuning.scores import score_cases
from tasks.tuning.variant import load_variant


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """One packed step (`args`: the fields of StepJob) over a stored prefix, with the optimizer's
    update.

    Returns stored bytes, MLX's bytes after loading, at the step's peak and in its cache, the
    process's peak, seconds.
    """
    setting = Setting.model_validate(args)
    adapted, weights_bytes = _load(setting, "packed")
    store = PrefixStore(setting.folder, VariantManifest.read(setting.variant).digest)
    prefix = open_prefix(adapted.stack, setting.cases, adapted.boundary, store)
    return _measure_step(setting, adapted, prefix, MemoryChoice(setting.batch), weights_bytes)


def run_within(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """One step and one validation as in a training within a budget (`args`: the fields of StepJob,
    with `memory`).

    Prefix, micro-batch and checkpointing follow from the budget, weights included. Returns the
    figures of `run`, with budget, micro-batch and whether blocks were checkpointed. Raises BadInput
    if not even one case fits.
    """
    setting = Setting.model_validate(args)
    assert setting.memory is not None
    limit = setting.memory
    keep_within(limit, cache_limit(limit))
    adapted, weights_bytes = _load(setting, backend().compute_path)
    cases = setting.cases
    store = PrefixStore(setting.folder, VariantManifest.read(setting.variant).digest)
    prefix = open_prefix(adapted.stack, cases, adapted.boundary, store, emit, limit=limit)

    objective = make_objective(setting.recipe, cases.labels)
    choice = choose_micro_batch(adapted, prefix, objective, setting.batch, limit, emit)
    keep_within(limit, choice.cache_bytes)
    figures = _measure_step(setting, adapted, prefix, choice, weights_bytes)

    return figures | {
        "memory_budget_bytes": limit,
        "micro_batch": choice.micro_batch,
        "checkpointed_blocks": int(choice.checkpointing),
    }


def _load(setting: Setting, path: str) -> tuple[Adapted, int]:
    """The adapted variant, and the bytes that MLX holds with it."""
    adapted = add_lora(
        load_variant(setting.variant, path), setting.recipe, setting.training, seed=0
    )
    return adapted, int(mx.get_active_memory())


def _measure_step(
    setting: Setting,
    adapted: Adapted,
    prefix: Prefix,
    choice: MemoryChoice,
    weights_bytes: int,
) -> dict[str, Any]:
    """The figures of an update and, within a budget, of the validation that a training makes too."""
    model = adapted.stack.model
    objective = make_objective(setting.recipe, prefix.cases.labels)
    optimizer = setting.optimizer()
    optimizer.init(model.trainable_parameters())
    mx.eval(optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()

    start = time.perf_counter()
    stepping = with_checkpoints(adapted, choice.checkpointing)
    case_numbers = range(setting.batch)
    _, _, gradients = update_gradients(
        stepping, prefix, case_numbers, objective, choice.micro_batch, None
    )
    mx.eval(gradients)
    optimizer.update(model, gradients)
    mx.eval(model.trainable_parameters(), optimizer.state)
    seconds = time.perf_counter() - start

    if choice.limit is not None:
        del gradients
        score_cases(adapted, prefix, choice.tokens_at_once)

    peak = mx.get_peak_memory()
    return {
        "stored_bytes": VariantManifest.read(setting.variant).stored_bytes,
        "weights_memory_bytes": weights_bytes,
        "peak_memory_bytes": peak,
        "peak_over_weights_bytes": peak - weights_bytes,
        "cache_memory_bytes": mx.get_cache_memory(),
        "peak_rss_bytes": peak_resident_bytes(),
        "seconds_per_step": seconds,
    }
