"""The training step as a child process runs it: a variant and a dataset in, a sealed adapter folder
out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.device import report_device
from tasks.runtime.errors import Diverged
from tasks.runtime.events import Device, Emit, StepWarning
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import LOCK_SECONDS, locked
from tasks.runtime.store import seal
from tasks.spec import PromptChoice
from tasks.tuning.activation_store import PrefixStore, open_prefix, warn_of_lack_of_space
from tasks.tuning.checkpoint import Arrays, Progress
from tasks.tuning.data import (
    TOKENS_AT_ONCE,
    EncodedCases,
    epoch_batches,
    load_set,
    load_template,
    padding_share,
    warn_of_shortened,
)
from tasks.tuning.gradients import choose_micro_batch, keep_within
from tasks.tuning.lora import Adapted, adapter_config, adapter_weights, add_lora, load_variant
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice, budget, cache_limit, read_choice, write_choice
from tasks.tuning.rows import DIVERGED, settings_digest
from tasks.tuning.step import TrainingJob, TrainingSummary
from tasks.tuning.trainer import Splits, has_ended, train

OUTPUTS = [
    "adapters.safetensors",
    "adapters_last.safetensors",
    "adapter_config.json",
    "training.json",
]
SETS = ("train", "valid")
HEAVY_COST_WEIGHT = 5.0


@dataclass(frozen=True)
class _Setup:
    """A training that is ready to start, and the part of its summary that is known by then."""

    job: TrainingJob
    started_at: datetime
    device: Device
    adapted: Adapted
    weights_memory_bytes: int
    splits: Splits
    shortened_cases: int
    choice: MemoryChoice

    def summary(self, progress: Progress) -> TrainingSummary:
        """The summary of the training, given how far it is."""
        recipe = self.job.experiment.recipe
        cases = self.splits.train.cases
        train_losses = [point.loss for point in progress.curve if point.split == "train"]
        seconds = progress.train_seconds
        first_epoch = epoch_batches(
            cases, recipe.batch_size, self.job.experiment.seed, 0, recipe.sampling
        )

        return TrainingSummary(
            train_loss=train_losses[-1] if train_losses else None,
            valid_loss=progress.best_value,
            best_iteration=progress.best_update,
            last_iteration=progress.update,
            train_seconds=seconds,
            tokens_per_second=progress.trained_tokens / seconds if seconds else None,
            peak_memory_bytes=progress.peak_memory_bytes,
            peak_rss_bytes=progress.peak_rss_bytes,
            micro_batch=self.choice.micro_batch,
            checkpointed_blocks=self.choice.checkpointing,
            memory_budget_bytes=self.choice.limit,
            padding_share=padding_share(cases, first_epoch),
            device=self.device,
            weights_memory_bytes=self.weights_memory_bytes,
            cache_memory_bytes=mx.get_cache_memory(),
            trainable_parameters=self.adapted.trainable,
            shortened_cases=self.shortened_cases,
            frozen_blocks_stored=self.splits.train.boundary,
            # Both are ISO 8601 in UTC, whose order as text is that of time.
            started_at=min(self.started_at.isoformat(), progress.started_at),
            finished_at=datetime.now(UTC).isoformat(),
        )


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Train one experiment; `args` are the fields of TrainingJob as JSON.

    Returns the TrainingSummary, which the manifest of the folder keeps too, as JSON. A training
    that pauses leaves its checkpoint and nothing else: the folder is not sealed.
    """
    job = TrainingJob.model_validate(args)
    # Two sweeps may hold the same experiment: one process alone trains it.
    with locked(job.folder, LOCK_SECONDS):
        # Of an earlier attempt, which this one replaces.
        (job.folder / DIVERGED).unlink(missing_ok=True)
        reached, is_finished = _train(_set_up(job, emit), emit)
        summary = reached.model_dump(mode="json")
        if not is_finished:
            return summary

        settings = settings_digest(job.experiment, DatasetManifest.read(job.data))
        manifest = {
            "training_id": job.training_id,
            "settings_digest": settings,
            "summary": summary,
        }
        # The outputs alone: checkpoints and logs lie in this folder, too.
        seal(job.folder, manifest, OUTPUTS)

    return summary


def _set_up(job: TrainingJob, emit: Emit) -> _Setup:
    spec = job.experiment
    started_at = datetime.now(UTC)
    device = report_device(emit)
    if spec.recipe.kind == "safety" and spec.recipe.cost_weight > HEAVY_COST_WEIGHT:
        # At 5 a model without signal answers ED from a share of about 5 % on.
        emit(
            StepWarning(
                f"cost_weight {spec.recipe.cost_weight:g} is above {HEAVY_COST_WEIGHT:g}: the cost "
                "term may teach the model to answer ED to everything; look at the specificity in "
                "the training curve."
            )
        )

    limit = budget(spec)
    # For the frozen prefix and the probe steps, which come before the choice is made.
    keep_within(limit, cache_limit(limit))
    stack = load_variant(job.variant, device.compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    weights_bytes = mx.get_active_memory()

    saved_choice = read_choice(job.folder)
    splits, shortened = _load_splits(job, adapted, saved_choice, emit)
    choice = _choose(job, adapted, splits, saved_choice, emit)
    # Before the first step: if that runs out of memory, the next attempt takes less than this.
    write_choice(job.folder, choice)

    # What the probe steps held must not count as the training's.
    keep_within(limit, choice.cache_bytes)
    mx.clear_cache()
    mx.reset_peak_memory()
    return _Setup(job, started_at, device, adapted, weights_bytes, splits, shortened, choice)


def _load_splits(
    job: TrainingJob, adapted: Adapted, saved_choice: MemoryChoice | None, emit: Emit
) -> tuple[Splits, int]:
    """The sets, encoded, with their frozen prefixes; and how many of their cases are shortened.

    A resumed training reads its prefixes from the store, or not, as it did when it began.
    """
    spec = job.experiment
    template = load_template(job.variant, spec.prompt)
    store = PrefixStore(job.home, VariantManifest.read(job.variant).digest)
    # By the first choice that has decided it.
    decisions = [choice.stored for choice in (job.choice, saved_choice) if choice is not None]
    stored = next((sets for sets in decisions if sets is not None), None)
    tokens_at_once = job.choice.tokens_at_once if job.choice else TOKENS_AT_ONCE

    sets: dict[str, EncodedCases] = {}
    shortened = 0
    for name in SETS:
        loaded = load_set(job.data, name, template, spec.training.max_tokens)
        warn_of_shortened(name, loaded, spec.training.max_tokens, emit)
        shortened += loaded.shortened
        sets[name] = loaded.cases

    in_store = {name: cases for name, cases in sets.items() if stored is None or name in stored}
    warn_of_lack_of_space(adapted.stack, in_store, adapted.boundary, store, emit)
    prefixes = {
        name: open_prefix(
            adapted.stack,
            cases,
            adapted.boundary,
            store,
            emit,
            limit=budget(spec),
            tokens_at_once=tokens_at_once,
            stored=None if stored is None else name in stored,
        )
        for name, cases in sets.items()
    }
    return Splits(**prefixes), shortened


def _choose(
    job: TrainingJob,
    adapted: Adapted,
    splits: Splits,
    saved_choice: MemoryChoice | None,
    emit: Emit,
) -> MemoryChoice:
    """The requested choice; else the saved one, unless the budget is another now.

    Else a measured one.
    """
    spec = job.experiment
    limit = budget(spec)
    choice = job.choice or saved_choice
    if choice is None or (job.choice is None and choice.limit != limit):
        objective = make_objective(spec.recipe, splits.train.cases.labels)
        choice = choose_micro_batch(
            adapted, splits.train, objective, spec.recipe.batch_size, limit, emit
        )

    stored = tuple(name for name in SETS if getattr(splits, name).boundary > 0)
    return replace(choice, limit=limit, stored=stored)


def _train(setup: _Setup, emit: Emit) -> tuple[TrainingSummary, bool]:
    """Train, and write the output files; where it diverges, what it reached instead.

    Returns the summary, and whether the training has ended. One that pauses writes no files.
    """
    job = setup.job
    try:
        best_arrays, progress = train(
            setup.adapted,
            job.experiment,
            setup.splits,
            job.folder,
            emit,
            setup.choice,
            job.pause_at,
        )
    except Diverged as error:
        summary = setup.summary(error.reached).model_dump(mode="json")
        reached = {"summary": summary, "curve": [asdict(point) for point in error.reached.curve]}
        write_atomic(job.folder / DIVERGED, json.dumps(reached))
        raise

    is_finished = has_ended(job.experiment, progress)
    if is_finished:
        _write_adapters(job.folder, best_arrays, adapter_weights(setup.adapted))
        _write_settings(job, progress)

    return setup.summary(progress), is_finished


def _write_adapters(folder: Path, best_arrays: Arrays, last_arrays: Arrays) -> None:
    for name, weights in (("adapters", best_arrays), ("adapters_last", last_arrays)):
        # MLX would add the ending `.safetensors` to a name that lacks it.
        temporary = folder / f".{name}.tmp.safetensors"
        # The order of the arrays decides the bytes of the file.
        mx.save_safetensors(str(temporary), dict(sorted(weights.items())))
        temporary.replace(folder / f"{name}.safetensors")


def _write_settings(job: TrainingJob, progress: Progress) -> None:
    """The adapter's configuration as stock mlx-lm reads it, and the experiment with its training
    curve, and with its prompt where the grid names one.
    """
    spec = job.experiment
    config = adapter_config(spec.recipe, spec.training, job.variant.name)
    write_atomic(job.folder / "adapter_config.json", config)
    training = {
        "spec": spec.model_dump(mode="json"),
        "curve": [asdict(point) for point in progress.curve],
    }
    if spec.prompt != PromptChoice():
        # Whoever uses the adapter must ask in these words, and read the answer in them.
        training["prompt"] = load_prompt(spec.prompt).as_dict()

    write_atomic(job.folder / "training.json", json.dumps(training))
