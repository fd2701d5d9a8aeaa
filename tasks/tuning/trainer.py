"""The training loop: effective batches in, the best adapter out."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from tasks.runtime.errors import Diverged
from tasks.runtime.events import CurvePoint, Emit, TrainingReport, ValidationReport
from tasks.spec import ExperimentSpec
from tasks.tuning import checkpoint
from tasks.tuning.activations import Prefix
from tasks.tuning.data import training_batches
from tasks.tuning.forward import (
    ed_share_and_specificity,
    macro_f1_of,
    score_cases,
    validation_value,
)
from tasks.tuning.gradients import with_checkpoints
from tasks.tuning.lora import Adapted, adapter_weights
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.optimizer import Updates, learning_rate

# A model with a lower specificity answers ED to nearly everything, and the log says so.
ALWAYS_ED_SPECIFICITY = 0.05


@dataclass(frozen=True)
class Splits:
    """The encoded training and validation sets, each with its frozen prefix."""

    train: Prefix
    valid: Prefix


def train(
    adapted: Adapted,
    spec: ExperimentSpec,
    splits: Splits,
    folder: Path,
    emit: Emit,
    choice: MemoryChoice | None = None,
    pause_at: int | None = None,
) -> tuple[dict[str, mx.array], checkpoint.Progress]:
    """Train to the recipe's last update, resuming from `folder`/checkpoint if there is one.

    Pauses at the first checkpoint from update `pause_at` on; `has_ended` tells the two apart.
    Returns the best adapters (see Progress), and the progress with its curve. Raises
    Diverged on NaN and on an exploding gradient; its `reached` is the progress up to then.
    """
    run = TrainingRun(adapted, spec, splits, folder, emit, choice, pause_at)
    run.finish()
    return run.best, run.progress


def has_ended(spec: ExperimentSpec, progress: checkpoint.Progress) -> bool:
    """Whether a training makes no further update: it made all, or it is out of patience."""
    patience = spec.training.patience
    since_best = sum(
        point.split == "valid" and point.iteration > progress.best_update
        for point in progress.curve
    )
    out_of_patience = patience is not None and since_best >= patience
    return progress.update >= spec.recipe.iterations or out_of_patience


class TrainingRun:
    """A training in progress: the model and its optimizer, the sets, the best adapters and how far
    it is.

    A new instance starts from the newest checkpoint in `folder`, else from the first update.
    """

    def __init__(
        self,
        adapted: Adapted,
        spec: ExperimentSpec,
        splits: Splits,
        folder: Path,
        emit: Emit,
        choice: MemoryChoice | None = None,
        pause_at: int | None = None,
    ) -> None:
        self.spec = spec
        self.pause_at = pause_at
        self.splits = splits
        self.emit = emit
        self.choice = choice or MemoryChoice(spec.recipe.batch_size)
        self.checkpoints = folder / "checkpoint"

        # Two views of one model: blocks may be computed again in the backward pass, never in
        # validation.
        self.updates = Updates(adapted, spec, splits.train, self.choice)
        self.scoring = with_checkpoints(adapted, False)

        restored = checkpoint.restore(self.checkpoints, adapted, self.updates.optimizer, emit)
        self.best, self.progress = restored or (
            dict(adapter_weights(adapted)),
            checkpoint.Progress(),
        )

    def finish(self) -> None:
        """Make the remaining updates, at most until the pause.

        Raises Diverged with the progress up to then as its `reached`.
        """
        try:
            with self.updates.drawing_masks():
                self._make_updates()
        except Diverged as error:
            # So that the curve shows the updates up to the one that diverged.
            if self.progress.unreported:
                self._report(learning_rate(self.spec, self.progress.update - 1))
            error.reached = self.progress
            raise
        finally:
            self.progress.keep_peaks()

    def _make_updates(self) -> None:
        """The remaining updates, with their reports, evaluations and checkpoints."""
        recipe = self.spec.recipe
        training = self.spec.training
        cases = self.splits.train.cases
        number = self.progress.update
        batches = training_batches(
            cases, recipe.batch_size, self.spec.seed, number, recipe.sampling
        )
        # One batch ahead, so that its dropout masks are drawn while the one before it is computed.
        following = next(batches)
        self.updates.expect(following, number)

        # It pauses where the newest update has a checkpoint.
        pause = math.inf if self.pause_at is None else max(self.pause_at, 1)
        while not has_ended(self.spec, self.progress):
            update = self.progress.update
            has_checkpoint = not self.updates.are_pending and update % training.evaluate_every == 0
            if has_checkpoint and update >= pause:
                break

            start = time.perf_counter()
            case_numbers = following
            following = next(batches)
            rate = learning_rate(self.spec, number)
            self.updates.start(number, case_numbers, rate, following)
            number += 1

            last = number == recipe.iterations
            reporting = last or number % training.report_every == 0
            evaluating = last or number % training.evaluate_every == 0
            # While one compiled step is computed, the next is prepared.
            self._take_results(self.updates.are_compiled and not (reporting or evaluating))
            self.progress.train_seconds += time.perf_counter() - start

            if reporting:
                self._report(rate)
            if evaluating:
                self._evaluate_and_save()

    def _take_results(self, but_the_newest: bool) -> None:
        """Take the results of the updates that were started into account."""
        for case_numbers, step in self.updates.results(but_the_newest):
            step.refuse_divergence(self.progress.update + 1)
            self.progress.unreported.append((step.value, np.array(step.parts).tolist()))
            rows = self.splits.train.cases.rows_of(case_numbers)
            # `inputs` lack the last token of a sequence.
            self.progress.trained_tokens += sum(len(row.inputs) + 1 for row in rows)
            self.progress.update += 1

    def _report(self, rate: float) -> None:
        """Add a point for the updates since the last one to the curve, and report it."""
        progress = self.progress
        iterations = self.spec.recipe.iterations
        loss = float(np.mean([value for value, _ in progress.unreported]))
        parts = np.mean([parts for _, parts in progress.unreported], axis=0).tolist()
        label_loss, other_loss, cost = parts

        point = CurvePoint(
            progress.update,
            "train",
            loss,
            label_loss=label_loss,
            other_loss=other_loss,
            cost=cost,
            learning_rate=rate,
            tokens_per_second=progress.trained_tokens / progress.train_seconds,
        )
        seconds_left = progress.train_seconds / progress.update * (iterations - progress.update)
        progress.curve.append(point)
        self.emit(TrainingReport(**asdict(point), iterations=iterations, seconds_left=seconds_left))
        progress.unreported = []

    def _evaluate_and_save(self) -> None:
        updates = self.updates
        # Compiled updates hold the trained tensors; validation and checkpoints read the model.
        updates.hand_back()
        if self._evaluate():
            # No copy: an update puts new arrays into the model, and these stay as they are.
            self.best = dict(adapter_weights(updates.adapted))
        self.progress.keep_peaks()
        checkpoint.save(
            self.checkpoints, updates.adapted, updates.optimizer, self.best, self.progress
        )

    def _evaluate(self) -> bool:
        """Validate on the whole split; True for the best adapter so far."""
        progress = self.progress
        cases = self.splits.valid.cases
        scores = score_cases(self.scoring, self.splits.valid, self.choice.tokens_at_once)

        value, (label_loss, other_loss, cost) = validation_value(
            scores, cases, self.updates.objective
        )
        if not math.isfinite(value):
            raise Diverged(
                f"The validation value became {value} at update {progress.update}; "
                "lower the learning rate."
            )

        ed_share, specificity = ed_share_and_specificity(scores, cases)
        macro_f1 = macro_f1_of(scores, cases)
        point = CurvePoint(
            progress.update,
            "valid",
            value,
            label_loss=label_loss,
            other_loss=other_loss,
            cost=cost,
            ed_share=ed_share,
            specificity=specificity,
            macro_f1=macro_f1,
        )
        progress.curve.append(point)
        always_ed = specificity is not None and specificity < ALWAYS_ED_SPECIFICITY
        self.emit(ValidationReport(**asdict(point), always_ed=always_ed))
        by_macro_f1 = self.spec.recipe.select_by == "macro_f1"

        return progress.note_validation(value, macro_f1 if by_macro_f1 else None)
