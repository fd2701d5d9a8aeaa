"""The optimizer updates of a training, one by one: made at once, or handed to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from tasks.spec import ExperimentSpec
from tasks.tuning.compiled import CompiledUpdates, UpdateResult, compiles
from tasks.tuning.dropout_masks import DRAW_NOW, MaskRequest, MasksAhead, drawn_ahead
from tasks.tuning.fit import with_checkpoints
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.gradients import mask_requests, parts_of, update_gradients
from tasks.tuning.lora import Adapted
from tasks.tuning.losses import make_objective
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.optimizer import clip_gradients, make_optimizer


class Updates:
    """Makes the updates of a training, and draws the dropout masks of each while the one before it
    is computed.

    `adapted`: the model that they train, whose blocks may be computed again in the backward pass.
    """

    def __init__(
        self, adapted: Adapted, spec: ExperimentSpec, train: Prefix, choice: MemoryChoice
    ) -> None:
        self.adapted = with_checkpoints(adapted, choice.checkpointing)
        self.objective = make_objective(spec.recipe, train.cases.labels)
        self.optimizer = make_optimizer(spec)
        self.optimizer.init(adapted.stack.model.trainable_parameters())

        self._spec = spec
        self._train = train
        self._micro_batch = choice.micro_batch
        self._masks: MasksAhead | None = None
        self._started: deque[tuple[list[int], UpdateResult]] = deque()
        self._compiled = None
        if compiles():
            self._compiled = CompiledUpdates(
                self.adapted,
                train,
                self.objective,
                self.optimizer,
                choice.micro_batch,
                spec.training.max_gradient_norm,
            )

    @property
    def are_compiled(self) -> bool:
        """Whether the device makes an update while the host prepares the next."""
        return self._compiled is not None

    @property
    def are_pending(self) -> bool:
        """Whether an update was started whose result is not taken yet."""
        return bool(self._started)

    @contextmanager
    def drawing_masks(self) -> Iterator[None]:
        """Within the block a thread draws the dropout masks that are expected."""
        try:
            with drawn_ahead(copied=self.are_compiled) as self._masks:
                self.adapted.take_masks_from(self._masks)
                yield
        finally:
            self.adapted.take_masks_from(DRAW_NOW)

    def expect(self, case_numbers: list[int], number: int) -> None:
        """Have the dropout masks of an update drawn in their thread, if there is such an update."""
        key = self._dropout_key(number)
        if self._masks is None or key is None or number >= self._spec.recipe.iterations:
            return

        if self._compiled is not None:
            requests: Iterable[MaskRequest] = self._compiled.mask_requests(case_numbers, key)
        else:
            parts = parts_of(self._train.cases, case_numbers, self._micro_batch)
            requests = mask_requests(self.adapted, self._train, parts, key)

        self._masks.expect(requests)

    def start(
        self, number: int, case_numbers: list[int], rate: float, following: list[int]
    ) -> None:
        """Make update `number`, or have the device make it.

        `following`: the cases of the next update, whose dropout masks are drawn meanwhile. Raises
        Diverged where the host makes it.
        """
        if self._compiled is None:
            step = self._update(number, case_numbers, rate, following)
        else:
            step = self._compiled.start(case_numbers, rate, self._dropout_key(number))
            self.expect(following, number + 1)
        self._started.append((case_numbers, step))

    def results(self, but_the_newest: bool) -> Iterator[tuple[list[int], UpdateResult]]:
        """The cases and the result of each update that was started, in their order."""
        while len(self._started) > int(but_the_newest):
            yield self._started.popleft()

    def hand_back(self) -> None:
        """Put the trained tensors and the optimizer's state where validation and checkpoints read
        them.
        """
        if self._compiled is not None:
            self._compiled.hand_back()

    def _update(
        self, number: int, case_numbers: list[int], rate: float, following: list[int]
    ) -> UpdateResult:
        """Make one update with two evaluations: one before the host decides on clipping, and that
        of the optimizer.
        """
        loss, parts, gradients = update_gradients(
            self.adapted,
            self._train,
            case_numbers,
            self.objective,
            self._micro_batch,
            self._dropout_key(number),
        )
        # This update took its masks while its graph was built: the thread draws those of the next
        # one while this one is computed.
        self.expect(following, number + 1)
        limit = self._spec.training.max_gradient_norm
        gradients, norm = clip_gradients(gradients, limit, (loss, parts))
        step = UpdateResult(loss, parts, mx.array(norm))
        # Before the optimizer: weights and moments stay those of the last good update.
        step.refuse_divergence(number + 1)

        model = self.adapted.stack.model
        self.optimizer.learning_rate = rate
        self.optimizer.update(model, gradients)
        mx.eval(model.trainable_parameters(), self.optimizer.state)

        return step

    def _dropout_key(self, number: int) -> tuple[int, int] | None:
        return (self._spec.seed, number) if self._spec.recipe.dropout > 0 else None
