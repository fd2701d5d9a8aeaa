"""The training loop: effective batches in, the best adapter out, and exact resume.

All randomness is a function of (seed, update), so a checkpoint holds the adapters, the optimizer,
the update number and the curve so far, and nothing else decides the next update. It is a sealed
folder; the newest intact one is used, and a damaged one is skipped.

    <experiment>/checkpoint/<update>/  state.safetensors  best.safetensors  progress.json  manifest.json
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from tasks.runtime.errors import Diverged
from tasks.runtime.events import CurvePoint, Emit, StepWarning, TrainingReport, ValidationReport
from tasks.runtime.memory import peak_resident_bytes
from tasks.runtime.store import build_folder, intact_manifest
from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import training_batches
from tasks.tuning.dropout import MasksAhead, draw_now
from tasks.tuning.lora import Adapted, Arrays, adapter_weights
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.step import PlainUpdates, decision_figures, score_cases, validation_value
from tasks.tuning.updates import (
    EffectiveBatch,
    UpdateResult,
    effective_batch,
    learning_rate,
    make_optimizer,
)

# A model with a lower specificity answers ED to nearly everything, and the log says so.
ALWAYS_ED_SPECIFICITY = 0.05


@dataclass(frozen=True)
class Splits:
    """The encoded training and validation sets, each with its frozen prefix."""

    train: Prefix
    valid: Prefix


@dataclass
class Progress:
    """How far a training is. `best_value`: the validation value of the best adapter.

    `peak_memory_bytes` (MLX) and `peak_rss_bytes` (process) are the largest of all processes that
    trained it. `unreported`: (loss, parts) of the updates since the last point of the curve.
    """

    update: int = 0
    best_value: float | None = None
    best_macro_f1: float | None = None
    best_update: int = 0
    train_seconds: float = 0.0
    trained_tokens: int = 0
    peak_memory_bytes: int = 0
    peak_rss_bytes: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    unreported: list[tuple[float, list[float]]] = field(default_factory=list)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def keep_peaks(self) -> None:
        """Take this process's peaks into account: a resumed run starts with an empty memory."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, int(mx.get_peak_memory()))
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_resident_bytes())

    def note_validation(self, value: float, macro_f1: float | None = None) -> bool:
        """Whether the current adapter is the best so far: that of the lowest value, or, with a
        macro-F1, of the highest one and the lower value of two equal ones.
        """
        best_value = math.inf if self.best_value is None else self.best_value
        # Of two equal adapters the earlier stays.
        if (-(macro_f1 or 0.0), value) >= (-(self.best_macro_f1 or 0.0), best_value):
            return False

        self.best_value = value
        self.best_macro_f1 = macro_f1
        self.best_update = self.update
        return True


def train(
    adapted: Adapted,
    spec: ExperimentSpec,
    splits: Splits,
    folder: Path,
    emit: Emit,
    choice: MemoryChoice | None = None,
    pause_at: int | None = None,
) -> tuple[Arrays, Progress]:
    """Train to the recipe's last update, resuming from `folder`/checkpoint if there is one, or to the
    first checkpoint from update `pause_at` on; `has_ended` tells the two apart.

    Returns the best adapters and the progress. Raises Diverged on NaN and on an exploding gradient;
    its `reached` is the progress up to then.
    """
    choice = choice or MemoryChoice(spec.recipe.batch_size)
    run = TrainingRun(adapted, spec, splits, folder / "checkpoint", emit, choice)
    progress = run.progress
    try:
        run.make_updates(math.inf if pause_at is None else max(pause_at, 1))
    except Diverged as error:
        # So that the curve shows the updates up to the one that diverged.
        if progress.unreported:
            run.report(learning_rate(spec, progress.update - 1))
        error.reached = progress
        raise
    finally:
        adapted.take_masks_from(draw_now)
        progress.keep_peaks()

    return run.best, progress


def has_ended(spec: ExperimentSpec, progress: Progress) -> bool:
    """Whether a training makes no further update: it made all, or it is out of patience."""
    patience = spec.training.patience
    since_best = sum(
        point.split == "valid" and point.iteration > progress.best_update
        for point in progress.curve
    )
    out_of_patience = patience is not None and since_best >= patience
    return progress.update >= spec.recipe.iterations or out_of_patience


@dataclass
class TrainingRun:
    """A training in progress, from the newest checkpoint in `checkpoints` if there is one."""

    adapted: Adapted
    spec: ExperimentSpec
    splits: Splits
    checkpoints: Path
    emit: Emit
    choice: MemoryChoice

    def __post_init__(self) -> None:
        spec = self.spec
        train = self.splits.train
        # The updates that were started, and whose results are not taken yet.
        self.started: deque[tuple[EffectiveBatch, UpdateResult]] = deque()
        self.optimizer = make_optimizer(spec)
        self.optimizer.init(self.adapted.stack.model.trainable_parameters())
        kind = CompiledUpdates if compiles() else PlainUpdates
        self.updates = kind(
            # Blocks may be computed again in the backward pass, never in validation.
            self.adapted.with_checkpoints(self.choice.checkpointing),
            train,
            make_objective(spec.recipe, train.cases.labels),
            self.optimizer,
            spec.training.max_gradient_norm,
        )
        self.best, self.progress = restore_checkpoint(
            self.checkpoints, self.adapted, self.optimizer, self.emit
        ) or (adapter_weights(self.adapted), Progress())

    def make_updates(self, pause: float) -> None:
        """The remaining updates, at most until the first checkpoint from update `pause` on."""
        recipe = self.spec.recipe
        training = self.spec.training
        updates = self.updates
        progress = self.progress
        number = progress.update
        batches = training_batches(
            self.splits.train.cases, recipe.batch_size, self.spec.seed, number, recipe.sampling
        )

        following: EffectiveBatch

        def prepare_next() -> None:
            nonlocal following
            key = (self.spec.seed, number) if recipe.dropout > 0 else None
            following = effective_batch(
                self.adapted, self.splits.train, next(batches), self.choice.micro_batch, key
            )
            if number < recipe.iterations:
                masks.expect(following.requests)

        with MasksAhead(copied=updates.are_compiled) as masks:
            self.adapted.take_masks_from(masks.take)
            prepare_next()

            while not has_ended(self.spec, progress):
                # It pauses where the newest update has a checkpoint.
                has_checkpoint = progress.update % training.evaluate_every == 0
                if progress.update >= pause and has_checkpoint and not self.started:
                    break

                start = time.perf_counter()
                batch = following
                rate = learning_rate(self.spec, number)
                number += 1
                # Meanwhile the next batch is made, and its dropout masks are drawn.
                self.started.append((batch, updates.start(batch, rate, prepare_next)))

                is_last = number == recipe.iterations
                reporting = is_last or number % training.report_every == 0
                evaluating = is_last or number % training.evaluate_every == 0
                # While one compiled step is computed, the next is prepared.
                self._take_results(updates.are_compiled and not (reporting or evaluating))
                progress.train_seconds += time.perf_counter() - start

                if reporting:
                    self.report(rate)
                if evaluating:
                    self._evaluate_and_save()

    def _take_results(self, but_the_newest: bool) -> None:
        """Take the results of started updates into account, in their order."""
        progress = self.progress
        while len(self.started) > int(but_the_newest):
            batch, result = self.started.popleft()
            if result.problem is not None:
                raise Diverged(
                    f"{result.problem} at update {progress.update + 1}; lower the learning rate or "
                    "the scale."
                )
            progress.unreported.append((result.value, np.array(result.parts).tolist()))
            # `inputs` lack the last token of a sequence.
            progress.trained_tokens += sum(len(row.inputs) + 1 for row in batch.rows)
            progress.update += 1

    def report(self, rate: float) -> None:
        """Add a point to the curve for the updates since the last one, and report it."""
        progress = self.progress
        iterations = self.spec.recipe.iterations
        loss = float(np.mean([value for value, _ in progress.unreported]))
        parts_by_update = [parts for _, parts in progress.unreported]
        label_loss, other_loss, cost = np.mean(parts_by_update, axis=0).tolist()
        speed = progress.trained_tokens / progress.train_seconds
        point = CurvePoint(
            progress.update, "train", loss, label_loss, other_loss, cost, rate, speed
        )
        seconds_left = progress.train_seconds / progress.update * (iterations - progress.update)
        progress.curve.append(point)
        self.emit(TrainingReport(**asdict(point), iterations=iterations, seconds_left=seconds_left))
        progress.unreported = []

    def _evaluate_and_save(self) -> None:
        # Compiled updates hold the trained tensors; validation and checkpoints read the model.
        self.updates.hand_back()
        if self._evaluate():
            # No copy: an update puts new arrays into the model, and these stay as they are.
            self.best = adapter_weights(self.adapted)
        self.progress.keep_peaks()
        save_checkpoint(self.checkpoints, self.adapted, self.optimizer, self.best, self.progress)

    def _evaluate(self) -> bool:
        """Validate on the whole split; True for the best adapter so far."""
        progress = self.progress
        cases = self.splits.valid.cases
        scores = score_cases(self.adapted, self.splits.valid, self.choice.tokens_at_once)
        value, parts = validation_value(scores, cases, self.updates.objective)
        if not math.isfinite(value):
            raise Diverged(
                f"The validation value became {value} at update {progress.update}; "
                "lower the learning rate."
            )

        figures = decision_figures(scores, cases)
        point = CurvePoint(progress.update, "valid", value, *parts, **figures)
        progress.curve.append(point)
        always_ed = point.specificity is not None and point.specificity < ALWAYS_ED_SPECIFICITY
        self.emit(ValidationReport(**asdict(point), always_ed=always_ed))
        by_macro_f1 = self.spec.recipe.select_by == "macro_f1"

        return progress.note_validation(value, point.macro_f1 if by_macro_f1 else None)


def save_checkpoint(
    folder: Path,
    adapted: Adapted,
    optimizer: optim.Optimizer,
    best_arrays: Arrays,
    progress: Progress,
) -> None:
    """Write a checkpoint atomically and remove the older ones."""

    def build(temporary: Path) -> dict[str, Any]:
        state = {"adapter": adapter_weights(adapted), "optimizer": optimizer.state}
        mx.save_safetensors(str(temporary / "state.safetensors"), dict(tree_flatten(state)))
        mx.save_safetensors(str(temporary / "best.safetensors"), best_arrays)
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)))
        return {"update": progress.update}

    # With zeros in front the order of names is that of updates, by which the newest is found.
    newest = f"{progress.update:07d}"
    build_folder(folder / newest, build)

    # Only now: until the new one is in place, a killed training goes on from an older one.
    for path in folder.iterdir():
        if path.name == newest:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def restore_checkpoint(
    folder: Path, adapted: Adapted, optimizer: optim.Optimizer, emit: Emit
) -> tuple[Arrays, Progress] | None:
    """Load the newest intact checkpoint into model and optimizer: (best adapters, progress)."""
    for candidate in sorted(folder.glob("[0-9]*"), reverse=True):
        if intact_manifest(candidate, deep=True) is not None:
            arrays: Arrays = mx.load(str(candidate / "state.safetensors"))  # type: ignore[assignment]
            best: Arrays = mx.load(str(candidate / "best.safetensors"))  # type: ignore[assignment]
            # Arrays are read lazily, and the files are deleted with the next checkpoint.
            mx.eval(arrays, best)
            state = tree_unflatten(list(arrays.items()))
            adapted.stack.model.update(state["adapter"], strict=False)
            optimizer.state = state["optimizer"]
            values = json.loads((candidate / "progress.json").read_text())
            values["curve"] = [CurvePoint(**point) for point in values["curve"]]
            return best, Progress(**values)
        emit(
            StepWarning(
                f"The checkpoint of update {int(candidate.name)}, {candidate}, is damaged: "
                "training continues from an earlier state."
            )
        )

    return None
