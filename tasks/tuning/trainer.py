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
from tasks.tuning.data import EffectiveBatch, effective_batch, training_batches
from tasks.tuning.lora import Adapted, Arrays, adapter_weights
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.step import PlainUpdates, decision_figures, score_cases, validation_value

# A model with a lower specificity answers ED to nearly everything, and the log says so.
ALWAYS_ED_SPECIFICITY = 0.05
# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6


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


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Learning rate of optimizer update `update`, counted from 0: linear warm-up, then constant or
    falling towards 0 after the last update.
    """
    peak = spec.recipe.learning_rate
    iterations = spec.recipe.iterations
    warmup = round(spec.training.warmup_ratio * iterations)
    if update < warmup:
        return peak * (update + 1) / warmup

    decayed_share = (update - warmup) / (iterations - warmup)
    factors = {
        "none": 1.0,
        "linear": 1 - decayed_share,
        "cosine": 0.5 * (1 + math.cos(math.pi * decayed_share)),
    }
    return peak * factors[spec.training.decay]


class FactorRates(optim.MultiOptimizer):
    """An optimizer of the factors B and one of the others, whose rate is the one that is set.

    That of B is `ratio` times as large (LoRA+, Hayou et al. 2024), for its weight decay too.
    """

    def __init__(self, of_b: optim.Optimizer, of_a: optim.Optimizer, ratio: float) -> None:
        # What no filter takes, the factors A, goes to MLX's last optimizer.
        super().__init__([of_b, of_a], [lambda path, _: path.endswith("lora_b")])
        self._ratio = ratio

    @property
    def learning_rate(self) -> mx.array:
        """The rate of A."""
        rate: mx.array = self.optimizers[1].learning_rate
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimizers[0].learning_rate = self._ratio * rate
        self.optimizers[1].learning_rate = rate


def make_optimizer(spec: ExperimentSpec) -> optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), with a rate of its own for B where the recipe asks."""

    def adamw() -> optim.AdamW:
        # MLX's default leaves bias correction out.
        return optim.AdamW(
            learning_rate=spec.recipe.learning_rate,
            weight_decay=spec.training.weight_decay,
            bias_correction=True,
        )

    ratio = spec.recipe.lora_plus
    return adamw() if ratio == 1 else FactorRates(adamw(), adamw(), ratio)


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
        if path.name != newest and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != newest:
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
        emit(StepWarning(f"{candidate} is damaged: training continues from an earlier state."))

    return None
