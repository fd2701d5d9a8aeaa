"""The training loop: effective batches in, the best adapter out."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.runtime.errors import Diverged
from tasks.runtime.events import CurvePoint, Emit, TrainingReport, ValidationReport
from tasks.spec import ExperimentSpec
from tasks.tuning import checkpoint
from tasks.tuning.batches import Cases, training_batches
from tasks.tuning.engine import Scores, score_cases, update_gradients, validation_value
from tasks.tuning.fit import with_checkpoints
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted, adapter_weights
from tasks.tuning.losses import Objective, make_objective
from tasks.tuning.memory import Choice

EXPLODED = 1e6  # norm of the gradient: healthy runs stay below a thousand


@dataclass(frozen=True)
class Split:
    """One set, encoded, with its frozen prefix."""

    cases: Cases
    prefix: Prefix


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Rate of optimizer update `update` (from 0): linear warm-up, then flat or falling towards 0 after the last update.

    The first update is not lost to a rate of 0, and neither is the last.
    """
    peak, iterations = spec.recipe.learning_rate, spec.recipe.iterations
    warmup = round(spec.training.warmup_ratio * iterations)
    if update < warmup:
        return peak * (update + 1) / warmup
    done = (update - warmup) / (iterations - warmup)
    return (
        peak
        * {"none": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[
            spec.training.decay
        ]
    )


def clipped(gradients: Any, limit: float | None) -> tuple[Any, float]:
    """Gradients with at most the norm `limit` over all tensors, and the norm that they had."""
    norm = float(
        np.sqrt(sum(float(np.array(mx.square(g).sum())) for _, g in tree_flatten(gradients)))
    )
    if limit is None or not norm > limit:
        return gradients, norm
    return tree_map(lambda g: g * (limit / norm), gradients), norm


def make_optimizer(spec: ExperimentSpec) -> optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with bias correction, which MLX leaves off unless asked."""
    return optim.AdamW(
        learning_rate=spec.recipe.learning_rate,
        weight_decay=spec.training.weight_decay,
        bias_correction=True,
    )


def train(
    adapted: Adapted, spec: ExperimentSpec, train_split: Split, valid_split: Split, folder: Path, emit: Emit,
    choice: Choice | None = None,
) -> tuple[dict[str, mx.array], checkpoint.Progress]:  # fmt: skip
    """Train to the recipe's last update, resuming from `folder`/checkpoint if there is one.

    Returns the adapters with the lowest validation value, and the progress with its curve. Raises Diverged, with the
    progress so far as its `reached`, on NaN and on an exploding gradient.
    """
    recipe = spec.recipe
    choice = choice or Choice(recipe.batch_size)
    stepping = with_checkpoints(adapted, choice.checkpointing)
    objective = make_objective(recipe, train_split.cases.labels)
    optimizer = make_optimizer(spec)
    optimizer.init(adapted.stack.model.trainable_parameters())
    restored = checkpoint.restore(folder / "checkpoint", adapted, optimizer, emit)
    best, progress = restored or (dict(adapter_weights(adapted)), checkpoint.Progress())
    try:
        best = _train(
            stepping,
            spec,
            train_split,
            valid_split,
            objective,
            optimizer,
            choice,
            folder,
            emit,
            best,
            progress,
        )
    except Diverged as error:
        if progress.unreported:
            rate = learning_rate(spec, progress.update - 1)
            _report(progress.unreported, rate, recipe.iterations, progress, emit)
        error.reached = progress
        raise
    finally:
        progress.keep_peaks()
    return best, progress


def _train(
    adapted: Adapted, spec: ExperimentSpec, train_split: Split, valid_split: Split, objective: Objective,
    optimizer: optim.AdamW, choice: Choice, folder: Path, emit: Emit, best: dict[str, mx.array],
    progress: checkpoint.Progress,
) -> dict[str, mx.array]:  # fmt: skip
    """The updates that are left, with their reports, evaluations and checkpoints; returns the best adapters."""
    recipe, cases = spec.recipe, train_split.cases
    batches = training_batches(cases, recipe.batch_size, spec.seed, progress.update)
    while progress.update < recipe.iterations and not _out_of_patience(spec, progress):
        started = time.perf_counter()
        chosen = next(batches)
        rate = learning_rate(spec, progress.update)
        progress.unreported.append(
            _update(
                adapted,
                train_split,
                chosen,
                objective,
                optimizer,
                rate,
                spec,
                progress,
                choice.micro_batch,
            )
        )
        progress.train_seconds += time.perf_counter() - started
        progress.trained_tokens += sum(len(row.inputs) + 1 for row in cases.rows_of(chosen))
        progress.update += 1
        last = progress.update == recipe.iterations
        if last or progress.update % spec.training.report_every == 0:
            _report(progress.unreported, rate, recipe.iterations, progress, emit)
            progress.unreported = []
        if last or progress.update % spec.training.evaluate_every == 0:
            if _evaluate(
                with_checkpoints(adapted, False),
                valid_split,
                objective,
                progress,
                emit,
                choice.tokens_at_once,
            ):
                best = dict(adapter_weights(adapted))
            progress.keep_peaks()
            checkpoint.save(folder / "checkpoint", adapted, optimizer, best, progress)
    return best


def _update(
    adapted: Adapted, split: Split, chosen: list[int], objective: Objective, optimizer: optim.AdamW, rate: float,
    spec: ExperimentSpec, progress: checkpoint.Progress, micro_batch: int,
) -> tuple[float, list[float]]:  # fmt: skip
    key = (spec.seed, progress.update) if spec.recipe.dropout > 0 else None
    loss, parts, gradients = update_gradients(
        adapted, split.prefix, split.cases, chosen, objective, micro_batch, key
    )
    value = float(np.array(loss))
    if not math.isfinite(value):
        raise Diverged(
            f"The loss became {value} at update {progress.update + 1}; lower the learning rate or the scale."
        )
    gradients, norm = clipped(gradients, spec.training.max_gradient_norm)
    if not norm < EXPLODED:
        raise Diverged(
            f"The gradient's norm became {norm:.3g} at update {progress.update + 1}; lower the learning rate or the scale."
        )
    optimizer.learning_rate = rate
    optimizer.update(adapted.stack.model, gradients)
    mx.eval(adapted.stack.model.trainable_parameters(), optimizer.state)
    return value, np.array(parts).tolist()


def _report(
    window: list[Any], rate: float, iterations: int, progress: checkpoint.Progress, emit: Emit
) -> None:
    loss = float(np.mean([value for value, _ in window]))
    label, other, cost = np.mean([parts for _, parts in window], axis=0).tolist()
    speed = progress.trained_tokens / progress.train_seconds
    left = progress.train_seconds / progress.update * (iterations - progress.update)
    point = CurvePoint(
        progress.update,
        "train",
        loss,
        label_loss=label,
        other_loss=other,
        cost=cost,
        learning_rate=rate,
        tokens_per_second=speed,
    )
    progress.curve.append(point)
    emit(TrainingReport(**asdict(point), iterations=iterations, seconds_left=left))


def _evaluate(
    adapted: Adapted,
    split: Split,
    objective: Objective,
    progress: checkpoint.Progress,
    emit: Emit,
    tokens_at_once: int,
) -> bool:
    """Validate on the whole split; True if this is the best so far."""
    scores = score_cases(adapted, split.prefix, split.cases, tokens_at_once)
    value, (label, other, cost) = validation_value(scores, split.cases, objective)
    if not math.isfinite(value):
        raise Diverged(
            f"The validation value became {value} at update {progress.update}; lower the learning rate."
        )
    ed_share, specificity = _always_ed(scores, split.cases)
    point = CurvePoint(
        progress.update,
        "valid",
        value,
        label_loss=label,
        other_loss=other,
        cost=cost,
        ed_share=ed_share,
        specificity=specificity,
    )
    progress.curve.append(point)
    emit(
        ValidationReport(**asdict(point), always_ed=specificity is not None and specificity < 0.05)
    )
    better = progress.best_value is None or value < progress.best_value
    if better:
        progress.best_value, progress.best_update = value, progress.update
    return better


def _out_of_patience(spec: ExperimentSpec, progress: checkpoint.Progress) -> bool:
    since = sum(p.split == "valid" and p.iteration > progress.best_update for p in progress.curve)
    return spec.training.patience is not None and since >= spec.training.patience


def _always_ed(scores: Scores, cases: Cases) -> tuple[float, float | None]:
    """Share of cases answered ED by argmax, and the share of non-ED cases that are not answered ED (specificity)."""
    answers = scores.label_logp.argmax(axis=1)
    others = answers[cases.labels != 0]
    return float((answers == 0).mean()), float((others != 0).mean()) if len(others) else None
