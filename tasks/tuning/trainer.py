"""The training loop: effective batches in, the best adapter out."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from tasks.judging import point_metrics
from tasks.runtime.errors import Diverged
from tasks.runtime.events import CurvePoint, Emit, TrainingReport, ValidationReport
from tasks.spec import ExperimentSpec
from tasks.tuning import checkpoint
from tasks.tuning.batches import Cases, training_batches
from tasks.tuning.compiled import CompiledUpdates, Step, compiles
from tasks.tuning.dropout_masks import DRAW_NOW, MaskRequest, MasksAhead, drawn_ahead
from tasks.tuning.engine import (
    Gradients,
    Scores,
    mask_requests,
    parts_of,
    score_cases,
    update_gradients,
    validation_value,
)
from tasks.tuning.fit import with_checkpoints
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted, adapter_weights
from tasks.tuning.losses import make_objective
from tasks.tuning.memory import MemoryChoice

ALWAYS_ED_SPECIFICITY = 0.05


@dataclass(frozen=True)
class Splits:
    """The encoded training and validation sets, each with its frozen prefix."""

    train: Prefix
    valid: Prefix


def learning_rate(spec: ExperimentSpec, update: int) -> float:
    """Learning rate of optimizer update `update`, counted from 0.

    Linear warm-up, then constant or falling towards 0 after the last update: neither the first
    update nor the last is lost to a rate of 0.
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


def clip_gradients(
    gradients: Gradients, limit: float | None, other_arrays: Sequence[mx.array] = ()
) -> tuple[Gradients, float]:
    """Gradients with at most the norm `limit` over all tensors, and their norm before clipping.

    `other_arrays` are evaluated with them: each evaluation waits for the device.
    """
    sums = mx.stack([mx.square(g).sum() for _, g in tree_flatten(gradients)])
    mx.eval(sums, gradients, other_arrays)
    # In float64 and in the order of the tensors.
    norm = float(np.sqrt(sum(np.array(sums).tolist())))
    # `not >`: gradients whose norm is NaN go back as they are, and the caller refuses them.
    if limit is None or not norm > limit:
        return gradients, norm
    return tree_map(lambda g: g * (limit / norm), gradients), norm


class FactorRates(optim.MultiOptimizer):
    """An optimizer of the factors B and one of the others, whose rate is the one that is set.

    That of B is `ratio` times as large (LoRA+, Hayou et al. 2024), for its weight decay too.
    """

    def __init__(self, of_b: optim.Optimizer, of_a: optim.Optimizer, ratio: float) -> None:
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
    """The optimizer of a training: AdamW, with a rate of its own for B where the recipe asks."""
    ratio = spec.recipe.lora_plus
    return _adamw(spec) if ratio == 1 else FactorRates(_adamw(spec), _adamw(spec), ratio)


def _adamw(spec: ExperimentSpec) -> optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with bias correction, which is off by default in MLX."""
    return optim.AdamW(
        learning_rate=spec.recipe.learning_rate,
        weight_decay=spec.training.weight_decay,
        bias_correction=True,
    )


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
        self.masks: MasksAhead | None = None

        # Two views of one model: blocks may be computed again in the backward pass, never in
        # validation.
        self.stepping = with_checkpoints(adapted, self.choice.checkpointing)
        self.scoring = with_checkpoints(adapted, False)
        self.objective = make_objective(spec.recipe, splits.train.cases.labels)
        self.optimizer = make_optimizer(spec)
        self.optimizer.init(adapted.stack.model.trainable_parameters())

        self.started: deque[tuple[list[int], Step]] = deque()
        self.compiled = None
        if compiles():
            self.compiled = CompiledUpdates(
                self.stepping,
                splits.train,
                self.objective,
                self.optimizer,
                self.choice.micro_batch,
                spec.training.max_gradient_norm,
            )

        restored = checkpoint.restore(self.checkpoints, adapted, self.optimizer, emit)
        self.best, self.progress = restored or (
            dict(adapter_weights(adapted)),
            checkpoint.Progress(),
        )

    def finish(self) -> None:
        """Make the remaining updates, at most until the pause.

        Raises Diverged with the progress up to then as its `reached`.
        """
        try:
            with drawn_ahead(copied=self.compiled is not None) as self.masks:
                self.stepping.take_masks_from(self.masks)
                self._make_updates()
        except Diverged as error:
            # So that the curve shows the updates up to the one that diverged.
            if self.progress.unreported:
                self._report(learning_rate(self.spec, self.progress.update - 1))
            error.reached = self.progress
            raise
        finally:
            self.stepping.take_masks_from(DRAW_NOW)
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
        self._expect_masks(following, number)

        while not (has_ended(self.spec, self.progress) or self._is_at_pause()):
            start = time.perf_counter()
            case_numbers = following
            following = next(batches)
            rate = learning_rate(self.spec, number)
            self._start_update(number, case_numbers, rate, following)
            number += 1

            last = number == recipe.iterations
            reporting = last or number % training.report_every == 0
            evaluating = last or number % training.evaluate_every == 0
            # While one compiled step is computed, the next is prepared.
            self._finish_updates(self.compiled is not None and not (reporting or evaluating))
            self.progress.train_seconds += time.perf_counter() - start

            if reporting:
                self._report(rate)
            if evaluating:
                self._evaluate_and_save()

    def _start_update(
        self, number: int, case_numbers: list[int], rate: float, following: list[int]
    ) -> None:
        """Make one optimizer update, or have the device make it.

        `following`: the cases of the next update, whose dropout masks are drawn meanwhile.
        """
        key = self._dropout_key(number)
        if self.compiled is None:
            step = self._update(number, case_numbers, rate, following)
        else:
            step = self.compiled.start(case_numbers, rate, key)
            self._expect_masks(following, number + 1)
        self.started.append((case_numbers, step))

    def _finish_updates(self, but_the_newest: bool) -> None:
        """Take the results of the updates that were started into account, in their order."""
        while len(self.started) > int(but_the_newest):
            case_numbers, step = self.started.popleft()
            step.refuse_divergence(self.progress.update + 1)
            self.progress.unreported.append((step.value, step.value_parts))
            rows = self.splits.train.cases.rows_of(case_numbers)
            self.progress.trained_tokens += sum(len(row.inputs) + 1 for row in rows)
            self.progress.update += 1

    def _update(
        self, number: int, case_numbers: list[int], rate: float, following: list[int]
    ) -> Step:
        """Make one optimizer update, with two evaluations: one before the host decides on clipping,
        and that of the optimizer.
        """
        loss, parts, gradients = update_gradients(
            self.stepping,
            self.splits.train,
            case_numbers,
            self.objective,
            self.choice.micro_batch,
            self._dropout_key(number),
        )
        self._expect_masks(following, number + 1)
        limit = self.spec.training.max_gradient_norm
        gradients, norm = clip_gradients(gradients, limit, (loss, parts))
        step = Step(loss, parts, mx.array(norm))
        step.refuse_divergence(number + 1)

        model = self.stepping.stack.model
        self.optimizer.learning_rate = rate
        self.optimizer.update(model, gradients)
        mx.eval(model.trainable_parameters(), self.optimizer.state)

        return step

    def _dropout_key(self, number: int) -> tuple[int, int] | None:
        return (self.spec.seed, number) if self.spec.recipe.dropout > 0 else None

    def _expect_masks(self, case_numbers: list[int], number: int) -> None:
        """Have the dropout masks of an update drawn in their thread, if there is such an update."""
        key = self._dropout_key(number)
        if self.masks is None or key is None or number >= self.spec.recipe.iterations:
            return

        if self.compiled is not None:
            requests: Iterable[MaskRequest] = self.compiled.mask_requests(case_numbers, key)
        else:
            train = self.splits.train
            parts = parts_of(train.cases, case_numbers, self.choice.micro_batch)
            requests = mask_requests(self.stepping, train, parts, key)

        self.masks.expect(requests)

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
        if self.compiled is not None:
            self.compiled.hand_back()
        if self._evaluate():
            self.best = dict(adapter_weights(self.stepping))
        self.progress.keep_peaks()
        checkpoint.save(self.checkpoints, self.stepping, self.optimizer, self.best, self.progress)

    def _evaluate(self) -> bool:
        """Validate on the whole split; True for the best adapter so far."""
        progress = self.progress
        cases = self.splits.valid.cases
        scores = score_cases(self.scoring, self.splits.valid, self.choice.tokens_at_once)

        value, (label_loss, other_loss, cost) = validation_value(scores, cases, self.objective)
        if not math.isfinite(value):
            raise Diverged(
                f"The validation value became {value} at update {progress.update}; "
                "lower the learning rate."
            )

        ed_share, specificity = _always_ed(scores, cases)
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

    def _is_at_pause(self) -> bool:
        """Whether the newest update has a checkpoint, and the training pauses there."""
        update = self.progress.update
        at_checkpoint = not self.started and update % self.spec.training.evaluate_every == 0
        return self.pause_at is not None and at_checkpoint and update >= max(self.pause_at, 1)


def macro_f1_of(scores: Scores, cases: Cases) -> float:
    """Macro-F1 of the most probable labels, over the three labels."""
    answers = scores.label_logp.argmax(axis=1)
    table = (
        point_metrics.confusion_cells(np.asarray(cases.labels), answers).sum(axis=0).reshape(3, 3)
    )
    return float(point_metrics.macro_f1(table))


def _always_ed(scores: Scores, cases: Cases) -> tuple[float, float | None]:
    """Share of cases answered ED by argmax, and the share of non-ED cases not answered ED
    (specificity).
    """
    answers = scores.label_logp.argmax(axis=1)
    answers_to_others = answers[cases.labels != 0]
    ed_share = float((answers == 0).mean())
    return ed_share, float((answers_to_others != 0).mean()) if len(answers_to_others) else None
