"""The training step as a child process runs it: a variant and a dataset in, a sealed adapter folder out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.runtime.errors import Diverged
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.probe import report_device
from tasks.runtime.store import locked, seal, verify, write_atomic
from tasks.spec import ExperimentSpec
from tasks.tuning.batches import TOKENS_AT_ONCE, epoch_batches, padding_share
from tasks.tuning.checkpoint import Progress
from tasks.tuning.fit import fit, keep_within
from tasks.tuning.frozen_prefix import open_prefix
from tasks.tuning.lora import Adapted, adapter_config, adapter_weights, add_lora, load_variant
from tasks.tuning.losses import make_objective
from tasks.tuning.memory import Choice, budget, cache_limit, read_choice, write_choice
from tasks.tuning.sets import load_set, load_template, warn_of_shortened
from tasks.tuning.trainer import Split, train
from tasks.tuning.training_rows import DIVERGED, settings_digest

OUTPUTS = [
    "adapters.safetensors",
    "adapters_last.safetensors",
    "adapter_config.json",
    "training.json",
]
SETS = ("train", "valid")
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
    folder, variant = Path(args["folder"]), Path(args["variant"])
    with locked(folder):
        started = datetime.now(UTC)
        (folder / DIVERGED).unlink(missing_ok=True)
        device = report_device(emit)
        if spec.recipe.kind == "safety" and spec.recipe.cost_weight > HEAVY_COST_WEIGHT:
            emit(StepWarning(heavy_cost_warning(spec.recipe.cost_weight)))
        limit = budget(spec)
        keep_within(limit, cache_limit(limit))
        stack = load_variant(variant, device.compute_path)
        adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
        weights_bytes = mx.get_active_memory()
        told, kept = (
            (Choice.of(args["choice"]) if args.get("choice") else None),
            read_choice(folder),
        )
        splits, shortened = _splits(args, spec, adapted, limit, told, kept, emit)
        choice = _choice(spec, adapted, splits, limit, told, kept, emit)
        write_choice(folder, choice)
        keep_within(limit, choice.cache_bytes)
        mx.clear_cache()
        mx.reset_peak_memory()

        def summary(progress: Progress) -> dict[str, Any]:
            return _summary(spec, progress, splits["train"], choice) | {
                "device": device.as_dict(), "weights_memory_bytes": weights_bytes,
                "cache_memory_bytes": mx.get_cache_memory(), "trainable_parameters": adapted.trainable,
                "shortened_cases": shortened, "frozen_blocks_stored": splits["train"].prefix.boundary,
                "started_at": started.isoformat(), "finished_at": datetime.now(UTC).isoformat(),
            }  # fmt: skip

        try:
            best, progress = train(
                adapted, spec, splits["train"], splits["valid"], folder, emit, choice
            )
        except Diverged as error:
            reached = {
                "summary": summary(error.reached),
                "curve": [asdict(point) for point in error.reached.curve],
            }
            write_atomic(folder / DIVERGED, json.dumps(reached))
            raise
        _write(folder, best, adapter_weights(adapted), spec, variant, progress)
        found = summary(progress)
        settings = settings_digest(spec, verify(Path(args["data"]), deep=False))
        seal(
            folder,
            {"training_id": args["training_id"], "settings_digest": settings, "summary": found},
            OUTPUTS,
        )
    return found


def _splits(
    args: dict[str, Any], spec: ExperimentSpec, adapted: Adapted, limit: int, told: Choice | None, kept: Choice | None,
    emit: Emit,
) -> tuple[dict[str, Split], int]:  # fmt: skip
    """Train and valid, encoded, with their prefixes, stored or not as this training began; and how many were shortened."""
    variant, data, home = (Path(args[key]) for key in ("variant", "data", "home"))
    template, digest = load_template(variant), verify(variant, deep=False)["digest"]
    begun = next((c.stored for c in (told, kept) if c is not None and c.stored is not None), None)
    tokens = told.tokens_at_once if told else TOKENS_AT_ONCE
    splits, shortened = {}, 0
    for name in SETS:
        loaded = load_set(data, name, template, spec.training.max_tokens)
        warn_of_shortened(name, loaded, spec.training.max_tokens, emit)
        prefix = open_prefix(
            adapted.stack, loaded.cases, adapted.boundary, home, digest, emit,
            limit=limit, tokens_at_once=tokens, stored=None if begun is None else name in begun,
        )  # fmt: skip
        splits[name] = Split(loaded.cases, prefix)
        shortened += loaded.shortened
    return splits, shortened


def _choice(
    spec: ExperimentSpec, adapted: Adapted, splits: dict[str, Split], limit: int, told: Choice | None,
    kept: Choice | None, emit: Emit,
) -> Choice:  # fmt: skip
    """What the parent asks for after running out of memory; else what this training began with; else what fits."""
    choice = told or kept
    if choice is None or (told is None and choice.limit != limit):
        split = splits["train"]
        objective = make_objective(spec.recipe, split.cases.labels)
        choice = fit(
            adapted, split.prefix, split.cases, objective, spec.recipe.batch_size, limit, emit
        )
    return replace(
        choice, limit=limit, stored=tuple(name for name in SETS if splits[name].prefix.boundary > 0)
    )


def _summary(
    spec: ExperimentSpec, progress: Progress, split: Split, choice: Choice
) -> dict[str, Any]:
    train_points = [p.loss for p in progress.curve if p.split == "train"]
    epoch = epoch_batches(split.cases, spec.recipe.batch_size, spec.seed, 0)
    return {
        "train_loss": train_points[-1] if train_points else None,
        "valid_loss": progress.best_value, "best_iteration": progress.best_update,
        "last_iteration": progress.update, "train_seconds": progress.train_seconds,
        "tokens_per_second": progress.trained_tokens / progress.train_seconds if progress.train_seconds else None,
        "peak_memory_bytes": progress.peak_memory_bytes, "peak_rss_bytes": progress.peak_rss_bytes,
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
        mx.save_safetensors(
            str(temporary), dict(sorted(weights.items()))
        )  # its order decides the file's
        temporary.replace(folder / f"{name}.safetensors")
    write_atomic(
        folder / "adapter_config.json", adapter_config(spec.recipe, spec.training, variant.name)
    )
    write_atomic(
        folder / "training.json",
        json.dumps(
            {
                "spec": spec.model_dump(mode="json"),
                "curve": [asdict(point) for point in progress.curve],
            }
        ),
    )
