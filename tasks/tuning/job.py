"""A training as its child process runs it: a variant and a dataset in, a sealed adapter folder out. The
set-up with its choice of memory, then the loop: effective batches in, the best adapter out.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.device import report_device
from tasks.runtime.errors import Diverged
from tasks.runtime.events import (
    CurvePoint,
    Emit,
    Kept,
    StepWarning,
    TrainingReport,
    ValidationReport,
)
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import LOCK_SECONDS, locked
from tasks.runtime.store import seal
from tasks.spec import ExperimentSpec, PromptChoice
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.checkpoint import Progress, restore_checkpoint, save_checkpoint
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import (
    TOKENS_AT_ONCE,
    EffectiveBatch,
    effective_batch,
    epoch_batches,
    load_set,
    load_template,
    padding_share,
    training_batches,
    warn_of_shortened,
)
from tasks.tuning.lora import (
    Adapted,
    adapter_config,
    adapter_weights,
    add_lora,
    load_variant,
)
from tasks.tuning.loss import Objective, make_objective
from tasks.tuning.memory import (
    SLACK,
    STATE_BYTES,
    MemoryChoice,
    budget,
    cache_limit,
    choose_memory,
    read_choice,
    write_choice,
)
from tasks.tuning.rows import DIVERGED, TrainingJob, TrainingSummary, settings_digest
from tasks.tuning.step import (
    PlainUpdates,
    decision_figures,
    learning_rate,
    make_optimizer,
    score_cases,
    update_gradients,
    validation_value,
)

HEAVY_COST_WEIGHT = 5.0
# A model with a lower specificity answers ED to nearly everything, and the log says so.
ALWAYS_ED_SPECIFICITY = 0.05
# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run a TrainingJob; returns the TrainingSummary, which the manifest of the folder keeps too.

    A training that pauses leaves its checkpoint, and the folder is not sealed.
    """
    job = TrainingJob.model_validate(args)
    spec = job.experiment
    # Two sweeps may hold the same experiment: one process alone trains it.
    with locked(job.folder, LOCK_SECONDS):
        # Of an earlier attempt, which this one replaces.
        (job.folder / DIVERGED).unlink(missing_ok=True)
        training, known = _set_up(job, emit)
        try:
            training.run(job.pause_at)
        except Diverged:
            reached = {"summary": _summary(training, known), "curve": _curve(training)}
            write_atomic(job.folder / DIVERGED, json.dumps(reached))
            raise

        summary = _summary(training, known)
        if not training.has_ended:
            return summary

        weights = {"adapters": training.best, "adapters_last": adapter_weights(training.adapted)}
        for name, arrays in weights.items():
            # MLX would add the ending `.safetensors` to a name that lacks it.
            temporary = job.folder / f".{name}.tmp.safetensors"
            # The order of the arrays decides the bytes of the file.
            mx.save_safetensors(str(temporary), dict(sorted(arrays.items())))
            temporary.replace(job.folder / f"{name}.safetensors")

        config = adapter_config(spec.recipe, spec.training, job.variant.name)
        write_atomic(job.folder / "adapter_config.json", config)
        record = {"spec": spec.model_dump(mode="json"), "curve": _curve(training)}
        if spec.prompt != PromptChoice():
            # Whoever uses the adapter must ask in these words, and read the answer in them.
            record["prompt"] = load_prompt(spec.prompt).as_dict()
        write_atomic(job.folder / "training.json", json.dumps(record))

        manifest = {
            "training_id": job.training_id,
            "settings_digest": settings_digest(spec, DatasetManifest.read(job.data)),
            "summary": summary,
        }
        # The outputs alone: checkpoints and logs lie in this folder, too.
        outputs = [f"{name}.safetensors" for name in weights]
        seal(job.folder, manifest, [*outputs, "adapter_config.json", "training.json"])

    return summary


def _curve(training: TrainingRun) -> list[dict[str, Any]]:
    return [asdict(point) for point in training.progress.curve]


def _summary(training: TrainingRun, known: dict[str, Any]) -> dict[str, Any]:
    """The summary of a training as JSON; `known`: what was known before it began."""
    progress = training.progress
    recipe = training.spec.recipe
    cases = training.train.cases
    losses = [point.loss for point in progress.curve if point.split == "train"]
    seconds = progress.train_seconds
    first_epoch = epoch_batches(cases, recipe.batch_size, training.spec.seed, 0, recipe.sampling)
    summary = TrainingSummary(
        **known,
        train_loss=losses[-1] if losses else None,
        valid_loss=progress.best_value,
        best_iteration=progress.best_update,
        last_iteration=progress.update,
        train_seconds=seconds,
        tokens_per_second=progress.trained_tokens / seconds if seconds else None,
        peak_memory_bytes=progress.peak_memory_bytes,
        peak_rss_bytes=progress.peak_rss_bytes,
        padding_share=padding_share(cases, first_epoch),
        cache_memory_bytes=mx.get_cache_memory(),
        started_at=progress.started_at,
        finished_at=datetime.now(UTC).isoformat(),
    )
    return summary.model_dump(mode="json")


def _set_up(job: TrainingJob, emit: Emit) -> tuple[TrainingRun, dict[str, Any]]:
    """A training that is ready to start, and the part of its summary that is known by then."""
    spec = job.experiment
    started_at = datetime.now(UTC).isoformat()
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
    # For the cached activations and the probe steps, which come before the choice is made.
    keep_within(limit, cache_limit(limit))
    stack = load_variant(job.variant, device.compute_path)
    adapted = add_lora(stack, spec.recipe, spec.training, spec.seed)
    weights_bytes = mx.get_active_memory()

    # The requested choice, after running out of memory; else the saved one.
    saved_choice = read_choice(job.folder)
    choice = job.choice or saved_choice
    # A resumed training reads its activations from the store, or not, as it did when it began.
    choices = (job.choice, saved_choice)
    stored = next((c.stored for c in choices if c is not None and c.stored is not None), None)
    template = load_template(job.variant, spec.prompt)
    store = PrefixStore(job.home, VariantManifest.read(job.variant).digest)
    prefixes: dict[str, Prefix] = {}
    shortened = 0
    for name in ("train", "valid"):
        loaded = load_set(job.data, name, template, spec.training.max_tokens)
        warn_of_shortened(name, loaded, spec.training.max_tokens, emit)
        shortened += loaded.shortened
        prefixes[name] = open_prefix(
            stack,
            loaded.cases,
            adapted.boundary,
            store,
            emit,
            limit=limit,
            tokens_at_once=job.choice.tokens_at_once if job.choice else TOKENS_AT_ONCE,
            stored=None if stored is None else name in stored,
        )

    train = prefixes["train"]
    if choice is None or (job.choice is None and choice.limit != limit):
        objective = make_objective(spec.recipe, train.cases.labels)
        choice = choose_micro_batch(adapted, train, objective, spec.recipe.batch_size, limit, emit)
    in_store = tuple(name for name, prefix in prefixes.items() if prefix.boundary > 0)
    choice = replace(choice, limit=limit, stored=in_store)
    # Before the first step: if that runs out of memory, the next attempt takes less than this.
    write_choice(job.folder, choice)

    # What the probe steps held must not count as the training's.
    keep_within(limit, choice.cache_bytes)
    mx.clear_cache()
    mx.reset_peak_memory()
    training = TrainingRun(adapted, spec, train, prefixes["valid"], job.folder, emit, choice)
    # Both are ISO 8601 in UTC, whose order as text is that of time.
    training.progress.started_at = min(started_at, training.progress.started_at)
    known = {
        "micro_batch": choice.micro_batch,
        "checkpointed_blocks": choice.checkpointing,
        "memory_budget_bytes": limit,
        "device": device,
        "weights_memory_bytes": weights_bytes,
        "trainable_parameters": adapted.trainable,
        "shortened_cases": shortened,
        "frozen_blocks_stored": train.boundary,
    }
    return training, known


@dataclass
class TrainingRun:
    """A training on the sets `train` and `valid`, from the newest checkpoint in `folder`/checkpoint if
    there is one. `best`: the weights of the best adapter so far.
    """

    adapted: Adapted
    spec: ExperimentSpec
    train: Prefix
    valid: Prefix
    folder: Path
    emit: Emit
    choice: MemoryChoice

    def __post_init__(self) -> None:
        spec = self.spec
        # The updates that were started, and whose results are not taken yet.
        self.started: deque[tuple[EffectiveBatch, tuple[mx.array, mx.array, mx.array]]] = deque()
        self.optimizer = make_optimizer(spec)
        self.optimizer.init(self.adapted.stack.model.trainable_parameters())
        self.updates = (CompiledUpdates if compiles() else PlainUpdates)(
            # Blocks may be computed again in the backward pass, never in validation.
            self.adapted.with_checkpoints(self.choice.checkpointing),
            self.train,
            make_objective(spec.recipe, self.train.cases.labels),
            self.optimizer,
            spec.training.max_gradient_norm,
        )
        self.best, self.progress = restore_checkpoint(
            self.folder / "checkpoint", self.adapted, self.optimizer, self.emit
        ) or (adapter_weights(self.adapted), Progress())

    @property
    def has_ended(self) -> bool:
        """Whether it makes no further update: it made all, or it is out of patience."""
        progress = self.progress
        patience = self.spec.training.patience
        since_best = sum(
            point.split == "valid" and point.iteration > progress.best_update
            for point in progress.curve
        )
        out_of_patience = patience is not None and since_best >= patience
        return progress.update >= self.spec.recipe.iterations or out_of_patience

    def run(self, pause_at: int | None = None) -> None:
        """Make the remaining updates, at most until the first checkpoint from update `pause_at` on.

        Raises Diverged on NaN and on an exploding gradient; `progress` then ends with the last good
        update.
        """
        recipe = self.spec.recipe
        training = self.spec.training
        progress = self.progress
        number = progress.update
        batches = training_batches(
            self.train.cases, recipe.batch_size, self.spec.seed, number, recipe.sampling
        )
        try:
            while not self.has_ended:
                # It pauses where the newest update has a checkpoint.
                has_checkpoint = progress.update % training.evaluate_every == 0
                paused = pause_at is not None and progress.update >= max(pause_at, 1)
                if paused and has_checkpoint and not self.started:
                    break

                start = time.perf_counter()
                key = (self.spec.seed, number) if recipe.dropout > 0 else None
                batch = effective_batch(
                    self.train.cases, next(batches), self.choice.micro_batch, key
                )
                rate = learning_rate(self.spec, number)
                self.started.append((batch, self.updates.start(batch, rate)))

                number += 1
                is_last = number == recipe.iterations
                reporting = is_last or number % training.report_every == 0
                evaluating = is_last or number % training.evaluate_every == 0
                # While a GPU computes one update, the next batch is made, its masks are drawn, and
                # its graph is handed over.
                waiting = self.updates.are_compiled and not (reporting or evaluating)
                while len(self.started) > int(waiting):
                    self._take_result()
                progress.train_seconds += time.perf_counter() - start

                if reporting:
                    self._report()
                if evaluating:
                    self._evaluate_and_save()
        except Diverged:
            # So that the curve shows the updates up to the one that diverged.
            if progress.unreported:
                self._report()
            raise
        finally:
            progress.keep_peaks()

    def _take_result(self) -> None:
        """Take the result of the oldest update that was started into account."""
        progress = self.progress
        batch, (loss, loss_parts, gradient_norm) = self.started.popleft()
        value, norm = float(np.array(loss)), float(np.array(gradient_norm))
        # `not <`: NaN is refused too.
        if not math.isfinite(value) or not norm < EXPLODED:
            problem = f"The gradient's norm became {norm:.3g}"
            if not math.isfinite(value):
                problem = f"The loss became {value}"
            raise Diverged(
                f"{problem} at update {progress.update + 1}; lower the learning rate or the scale."
            )

        progress.unreported.append((value, np.array(loss_parts).tolist()))
        # `inputs` lack the last token of a sequence.
        rows = (row for part in batch.parts for row in part.rows)
        progress.trained_tokens += sum(len(row.inputs) + 1 for row in rows)
        progress.update += 1

    def _report(self) -> None:
        """Add a point to the curve for the updates since the last one, and report it."""
        progress = self.progress
        iterations = self.spec.recipe.iterations
        loss = float(np.mean([value for value, _ in progress.unreported]))
        label_loss, other_loss, cost = np.mean([p for _, p in progress.unreported], axis=0).tolist()
        rate = learning_rate(self.spec, progress.update - 1)
        speed = progress.trained_tokens / progress.train_seconds
        point = CurvePoint(
            progress.update, "train", loss, label_loss, other_loss, cost, rate, speed
        )
        seconds_left = progress.train_seconds / progress.update * (iterations - progress.update)
        progress.curve.append(point)
        self.emit(TrainingReport(**asdict(point), iterations=iterations, seconds_left=seconds_left))
        progress.unreported = []

    def _evaluate_and_save(self) -> None:
        """Validate on the whole split, keep the adapter if it is the best, and save a checkpoint."""
        progress = self.progress
        cases = self.valid.cases
        # Compiled updates hold the trained tensors; validation and checkpoints read the model.
        self.updates.hand_back()
        scores = score_cases(self.adapted, self.valid, self.choice.tokens_at_once)
        value, parts = validation_value(scores, cases, self.updates.objective)
        if not math.isfinite(value):
            raise Diverged(
                f"The validation value became {value} at update {progress.update}; "
                "lower the learning rate."
            )

        point = CurvePoint(
            progress.update, "valid", value, *parts, **decision_figures(scores, cases)
        )
        progress.curve.append(point)
        always_ed = point.specificity is not None and point.specificity < ALWAYS_ED_SPECIFICITY
        self.emit(ValidationReport(**asdict(point), always_ed=always_ed))
        by_macro_f1 = self.spec.recipe.select_by == "macro_f1"
        if progress.note_validation(value, point.macro_f1 if by_macro_f1 else None):
            # No copy: an update puts new arrays into the model, and these stay as they are.
            self.best = adapter_weights(self.adapted)

        progress.keep_peaks()
        save_checkpoint(
            self.folder / "checkpoint", self.adapted, self.optimizer, self.best, progress
        )
        self.emit(Kept())


def choose_micro_batch(
    adapted: Adapted, prefix: Prefix, objective: Objective, batch_size: int, limit: int, emit: Emit
) -> MemoryChoice:
    """How to compute an effective batch within `limit` bytes, weights included; see choose_memory."""
    cases = prefix.cases
    encoded = cases.encoded
    longest = max(range(len(encoded)), key=lambda number: len(encoded[number].prompt))

    def peak(checkpointing: bool, count: int) -> int:
        model = adapted.with_checkpoints(checkpointing)
        mx.clear_cache()
        active_bytes = mx.get_active_memory()
        mx.reset_peak_memory()
        # At 0 MLX finishes each result before it allocates the next, so that the peak depends
        # little on what else the machine does.
        usual_limit = mx.set_memory_limit(0)
        batch = effective_batch(cases, [longest] * count, count, (0, 0))
        mx.eval(update_gradients(model, prefix, batch, objective))
        mx.set_memory_limit(usual_limit)
        return int(SLACK * (mx.get_peak_memory() - active_bytes))

    # The optimizer's state and the accumulated gradient are not allocated yet.
    held_bytes = mx.get_active_memory() + STATE_BYTES * adapted.trainable
    batch = min(batch_size, len(encoded))
    longest_tokens = max(len(row.inputs) for row in cases.rows) * cases.per_case
    return choose_memory(peak, held_bytes, batch, longest_tokens, limit, emit)


def keep_within(limit: int, cache_bytes: int) -> None:
    """Hold MLX to `limit` bytes in this process, `cache_bytes` of them for freed buffers.

    MLX allocates ahead of the work that fills its arrays. Past its memory limit it waits for that
    work, after one more result: hence the slack.
    """
    mx.set_cache_limit(cache_bytes)
    mx.set_memory_limit(int((limit - cache_bytes) / SLACK))
