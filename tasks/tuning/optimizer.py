"""What a training step is on every machine: the parts of its effective batch and their dropout
masks, its result, its learning rate and its optimizer. How it is computed: `step.py` and
`compiled.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from tasks.spec import ExperimentSpec
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch, EncodedCases, make_batch, padded_length
from tasks.tuning.dropout import Key, MaskRequest
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective

# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6
# The place of the leading tokens in a dropout key: no case of a batch has it.
LEADING = (1 << 31) - 1

DropoutKey = tuple[int, int]  # (seed, update)


@dataclass(frozen=True)
class UpdateResult:
    """The loss of an update, the parts (3,) of it, and the norm of its gradient before clipping.

    Reading a value waits for the device.
    """

    loss: mx.array
    parts: mx.array
    norm: mx.array

    @property
    def value(self) -> float:
        """The loss."""
        return float(np.array(self.loss))

    @property
    def problem(self) -> str | None:
        """Why the training diverged here: a loss that is not finite, or an exploding gradient."""
        norm = float(np.array(self.norm))
        if not math.isfinite(self.value):
            return f"The loss became {self.value}"
        # `not <`: NaN is refused too.
        return None if norm < EXPLODED else f"The gradient's norm became {norm:.3g}"


@dataclass(frozen=True)
class Part:
    """Cases of an effective batch that are computed at once, from its case `start` on."""

    batch: Batch
    start: int
    per_case: int
    key: DropoutKey | None

    @property
    def leading_key(self) -> Key | None:
        """The dropout key of the leading tokens, which have one mask per update."""
        return (*self.key, LEADING) if self.key else None

    @property
    def case_keys(self) -> list[Key] | None:
        """The dropout key of each row, by the place of its case in the effective batch."""
        if self.key is None:
            return None
        return [(*self.key, self.start + i // self.per_case) for i in range(len(self.batch.rows))]


def parts_of(
    cases: EncodedCases, case_numbers: Sequence[int], micro_batch: int, key: DropoutKey | None
) -> list[Part]:
    """The parts of an effective batch, `micro_batch` cases each, padded to one length."""
    length = padded_length(cases.rows_of(case_numbers))
    parts = []
    for start in range(0, len(case_numbers), micro_batch):
        batch = make_batch(cases, case_numbers[start : start + micro_batch], length)
        parts.append(Part(batch, start, cases.per_case, key))
    return parts


@dataclass
class Updates:
    """The updates of a model. `limit`: the largest norm of a gradient, or None.

    `micro_batch`: cases computed at once.
    """

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    optimizer: optim.Optimizer
    micro_batch: int
    limit: float | None

    are_compiled = False
    # The cases and the key of the update whose masks were asked for last, and its parts with them.
    _described: tuple[Any, list[tuple[Part, list[MaskRequest]]]] = (None, [])

    def start(
        self,
        case_numbers: Sequence[int],
        rate: float,
        dropout_key: DropoutKey | None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> UpdateResult:
        """Make an update; `meanwhile` is called once it has taken its dropout masks."""
        raise NotImplementedError

    def hand_back(self) -> None:
        """Put the trained tensors and the optimizer's state where validation and checkpoints read
        them.
        """

    def mask_requests(
        self, case_numbers: Sequence[int], dropout_key: DropoutKey | None
    ) -> list[MaskRequest]:
        """The dropout masks that an update takes, in their order."""
        return [r for _, requests in self.parts(case_numbers, dropout_key) for r in requests]

    def parts(
        self, case_numbers: Sequence[int], dropout_key: DropoutKey | None
    ) -> list[tuple[Part, list[MaskRequest]]]:
        """The parts of an update, each with its masks; kept, since they are drawn ahead of it."""
        update = (tuple(case_numbers), dropout_key)
        if self._described[0] != update:
            parts = parts_of(self.prefix.cases, case_numbers, self.micro_batch, dropout_key)
            self._described = (update, [(part, list(self._requests(part))) for part in parts])
        return self._described[1]

    def _requests(self, part: Part) -> Iterator[MaskRequest]:
        if part.leading_key is None or part.case_keys is None:
            return

        adapted = self.adapted
        common = self.prefix.cases.leading
        is_joined = not adapted.stack.cpu_kernels
        if not is_joined:
            for module in filter(adapted.is_everywhere, adapted.dropouts):
                yield module.request([part.leading_key], common)

        for module in adapted.dropouts:
            if adapted.is_everywhere(module):
                leading = (part.leading_key, common) if is_joined else None
                yield module.request(part.case_keys, part.batch.length - common, leading)
            else:
                # In the pruned last block most modules see the scored rows alone.
                yield module.request(part.case_keys, part.batch.targets.shape[1])


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
