"""The training step as a child process runs it: a variant and a dataset in, a sealed adapter folder out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.runtime.device import peak_resident_bytes, tell_device
from tasks.runtime.store import locked, seal, verify, write_atomic
from tasks.spec import ExperimentSpec
from tasks.tuning.batches import epoch_batches, padding_share
from tasks.tuning.checkpoint import Progress
from tasks.tuning.engine import step_peak
from tasks.tuning.frozen_prefix import open_prefix
from tasks.tuning.lora import Adapted, adapter_config, adapter_weights, add_lora, load_variant
from tasks.tuning.losses import make_objective
from tasks.tuning.memory import STATE_BYTES, Choice, budget, choose, read_choice, write_choice
from tasks.tuning.rows import settings_digest
from tasks.tuning.sets import load_set, load_template, tell_shortened
from tasks.tuning.trainer import Split, train

Emit = Callable[[dict[str, Any]], None]
CACHE_BYTES = 1 << 30  # freed buffers that MLX may keep for reuse; stock frees them all after every step
OUTPUTS = ["adapters.safetensors", "adapters_last.safetensors", "adapter_config.json", "training.json"]
HEAVY_COST_WEIGHT = 5.0


def heavy_cost_warning(cost_weight: float) -> str:
    """What a high lambda does: at 5 a model without signal already answers ED from a share of about 5 % on."""
    return (
        f"cost_weight {cost_weight:g} is above {HEAVY_COST_WEIGHT:g}: the cost term may teach the model to answer ED to "
        "everything; look at the specificity in the training curve."
    )


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Train one experiment into `folder`; returns the summary that its manifest keeps.

    `args`: experiment (ExperimentSpec as JSON), training_id, variant, data, home, folder (paths), choice (fields of Choice)
    or None.
    """
    spec = ExperimentSpec.model_validate(args["experiment"])
    folder, variant, data = (Path(args[key]) for key in ("folder", "variant", "data"))
    with locked(folder):
        started = datetime.now(UTC)
        device = tell_device(emit)
        if spec.recipe.kind == "safety" and spec.recipe.cost_weight > HEAVY_COST_WEIGHT:
            emit({"event": "warning", "message": heavy_cost_warning(spec.recipe.cost_weight)})
        mx.set_cache_limit(min(CACHE_BYTES, budget(spec) // 8))
        stack = load_variant(variant, device.compute_path)
        adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
        weights_bytes = mx.get_active_memory()
        template = load_template(variant)
        digest = verify(variant, deep=False)["digest"]
        splits, shortened = {}, 0
        for name in ("train", "valid"):
            loaded = load_set(data, name, template, spec.training.max_tokens)
            tell_shortened(name, loaded, spec.training.max_tokens, emit)
            prefix = open_prefix(stack, loaded.cases, adapted.boundary, Path(args["home"]), digest, emit)
            splits[name] = Split(loaded.cases, prefix)
            shortened += loaded.shortened
        choice = _choice(args, spec, adapted, splits["train"], folder, emit)
        mx.clear_cache()
        mx.reset_peak_memory()
        best, progress = train(adapted, spec, splits["train"], splits["valid"], folder, emit, choice)
        summary = _summary(spec, progress, splits["train"], choice) | {
            "device": device.as_dict(), "weights_memory_bytes": weights_bytes, "peak_memory_bytes": mx.get_peak_memory(),
            "peak_rss_bytes": peak_resident_bytes(), "cache_memory_bytes": mx.get_cache_memory(),
            "trainable_parameters": adapted.trainable,
            "shortened_cases": shortened, "frozen_blocks_stored": splits["train"].prefix.boundary,
            "started_at": started.isoformat(), "finished_at": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        _write(folder, best, adapter_weights(adapted), spec, variant, progress)
        settings = settings_digest(spec, verify(data, deep=False))
        seal(folder, {"training_id": args["training_id"], "settings_digest": settings, "summary": summary}, OUTPUTS)
    return summary


def _choice(
    args: dict[str, Any], spec: ExperimentSpec, adapted: Adapted, split: Split, folder: Path, emit: Emit
) -> Choice:
    """What the parent asks for after running out of memory; else what this training began with; else what fits."""
    limit = budget(spec)
    choice = Choice(**args["choice"]) if args.get("choice") else read_choice(folder)
    if choice is None or choice.limit != limit:
        objective = make_objective(spec.recipe, split.cases.labels)

        def peak(checkpointing: bool) -> int:
            probed = replace(adapted, stack=replace(adapted.stack, checkpointing=checkpointing))
            return step_peak(probed, split.prefix, split.cases, objective)

        held = mx.get_active_memory() + STATE_BYTES * adapted.trainable
        batch = min(spec.recipe.batch_size, len(split.cases.encoded))
        longest = max(len(row.inputs) for row in split.cases.rows) * split.cases.per_case
        choice = choose(peak, held, batch, longest, limit, emit)
    write_choice(folder, choice)
    return choice


def _summary(spec: ExperimentSpec, progress: Progress, split: Split, choice: Choice) -> dict[str, Any]:
    train_points = [p["loss"] for p in progress.curve if p["split"] == "train"]
    epoch = epoch_batches(split.cases, spec.recipe.batch_size, spec.seed, 0)
    return {
        "train_loss": train_points[-1] if train_points else None,
        "valid_loss": progress.best_value, "best_iteration": progress.best_update,
        "last_iteration": progress.update, "train_seconds": progress.train_seconds,
        "tokens_per_second": progress.trained_tokens / progress.train_seconds,
        "micro_batch": choice.micro_batch, "checkpointed_blocks": choice.checkpointing,
        "memory_budget_bytes": choice.limit,
        "padding_share": padding_share(split.cases, epoch),
    }  # fmt: skip


def _write(
    folder: Path, best: dict[str, mx.array], last: dict[str, mx.array], spec: ExperimentSpec, variant: Path,
    progress: Progress,
) -> None:  # fmt: skip
    for name, weights in (("adapters", best), ("adapters_last", last)):
        temporary = folder / f".{name}.tmp.safetensors"
        mx.save_safetensors(str(temporary), dict(sorted(weights.items())))  # its order decides the file's
        temporary.replace(folder / f"{name}.safetensors")
    write_atomic(folder / "adapter_config.json", adapter_config(spec.recipe, spec.training, variant.name))
    write_atomic(folder / "training.json", json.dumps({"spec": spec.model_dump(mode="json"), "curve": progress.curve}))
