"""An optimizer update as a compiled graph, for backends on which starting operations costs
more than compiling them once.

One graph per padded length holds the gradients, clipping and AdamW. The host hands it over and goes
on: it prepares the next batch while the device computes, and reads the loss a step later. On a CPU
`mx.compile` costs more than it gains, and the trainer makes its updates step by step.

The trained tensors of one kind and shape are one array, so that the optimizer treats all of them at
once: LoRA of two modules has three or four shapes and, in 16 blocks, 64 tensors, which clipped and
updated one by one are an eighth of the graph.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from tasks.runtime.backend import backend
from tasks.runtime.errors import Diverged
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch
from tasks.tuning.dropout import MaskRequest
from tasks.tuning.forward import PartInputs
from tasks.tuning.gradients import EffectiveBatch, mask_requests, parts_of
from tasks.tuning.lora import Adapted
from tasks.tuning.loss import Objective, scored_tokens

Tree = Any  # a tree of arrays


@dataclass(frozen=True)
class Groups:
    """Which tensors are in one array: `names` of all, those of the groups, and the places in
    `names` of each group's tensors.

    A group holds the factors A or the factors B, whose rates may
    differ: its name ends as theirs do.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, mx.array]) -> Groups:
        """The groups of some tensors by name."""
        places: dict[Any, list[int]] = defaultdict(list)
        for place, (name, tensor) in enumerate(tensors.items()):
            factor = name.rpartition(".")[2]
            places[factor, tensor.shape, tensor.dtype].append(place)

        groups = tuple(f"group_{number}.{key[0]}" for number, key in enumerate(places))
        members = tuple(map(tuple, places.values()))
        return cls(tuple(tensors), groups, members)

    def join(self, tensors: Sequence[mx.array]) -> list[mx.array]:
        """An array per group, of the tensors in the order of `names`."""
        return [mx.concatenate([tensors[place] for place in places]) for places in self.places]

    def split(self, joined_arrays: Sequence[mx.array]) -> list[mx.array]:
        """The tensors in the order of `names`, of an array per group."""
        tensors = {
            place: tensor
            for places, array in zip(self.places, joined_arrays, strict=True)
            for place, tensor in zip(places, mx.split(array, len(places)), strict=True)
        }
        return [tensors[place] for place in range(len(self.names))]

    def tree(self, joined_arrays: Sequence[mx.array]) -> Tree:
        """An array per group as the tree of parameters that an optimizer takes."""
        return tree_unflatten(list(zip(self.groups, joined_arrays, strict=True)))

    def arrays(self, tree: Tree) -> list[mx.array]:
        """An array per group, of such a tree: an optimizer may give it back in another order."""
        by_name = dict(tree_flatten(tree))
        return [by_name[name] for name in self.groups]

    def join_state(self, state: Tree) -> Tree:
        """An optimizer's state with moments per group instead of per tensor."""
        joined_moments = {}
        remaining = dict(tree_flatten(state))
        for group, places in zip(self.groups, self.places, strict=True):
            names = [self.names[place] for place in places]
            for path in [path for path in remaining if _is_of(path, names[0])]:
                paths = [path.replace(names[0], name) for name in names]
                moments = [remaining.pop(member) for member in paths]
                joined_moments[path.replace(names[0], group)] = mx.concatenate(moments)

        return tree_unflatten(list((remaining | joined_moments).items()))

    def split_state(self, state: Tree) -> Tree:
        """An optimizer's state as it was before `join_state`."""
        by_tensor = {}
        remaining = dict(tree_flatten(state))
        for group, places in zip(self.groups, self.places, strict=True):
            for path in [path for path in remaining if _is_of(path, group)]:
                moments = mx.split(remaining.pop(path), len(places))
                for place, moment in zip(places, moments, strict=True):
                    by_tensor[path.replace(group, self.names[place])] = moment

        return tree_unflatten(list((remaining | by_tensor).items()))


def _is_of(path: str, name: str) -> bool:
    """Whether a path in an optimizer's state, `states.0.NAME.m`, leads to a moment of a tensor."""
    return f".{name}." in f".{path}"


# Norm of an exploding gradient: in healthy runs it stays below a thousand.
EXPLODED = 1e6

# The arrays of a batch.
ARRAYS = ("first", "targets", "scored", "is_label", "truth", "labels")

# The cases of an update and the key of its dropout masks.
Update = tuple[tuple[int, ...], tuple[int, int] | None]


def compiles() -> bool:
    """Whether a compiled step is faster than its operations one by one."""
    return backend().compiles


@dataclass(frozen=True)
class UpdateResult:
    """What an update gives: its loss, the parts (3,) of it, and the norm of its gradient before
    clipping. Reading a value waits for the device.
    """

    loss: mx.array
    parts: mx.array
    norm: mx.array

    @property
    def value(self) -> float:
        """The loss."""
        return float(np.array(self.loss))

    def refuse_divergence(self, update: int) -> None:
        """Raise Diverged for a loss that is not finite, or an exploding gradient."""
        norm = float(np.array(self.norm))
        if not math.isfinite(self.value):
            problem = f"The loss became {self.value}"
        # `not <`: NaN is refused too.
        elif not norm < EXPLODED:
            problem = f"The gradient's norm became {norm:.3g}"
        else:
            return

        raise Diverged(f"{problem} at update {update}; lower the learning rate or the scale.")


@dataclass(frozen=True)
class _Part:
    """A part of an effective batch, of which a graph depends on the shapes alone."""

    batch: Batch
    start: int
    key: tuple[int, int] | None
    requests: tuple[MaskRequest, ...]


class CompiledUpdates:
    """Optimizer updates of a model as compiled graphs.

    `limit`: the largest norm of a gradient, or None. From the first update on the trained tensors
    and the optimizer's state are here, by group, until they are handed back.
    """

    def __init__(
        self,
        adapted: Adapted,
        prefix: Prefix,
        objective: Objective,
        optimizer: optim.Optimizer,
        micro_batch: int,
        limit: float | None,
    ) -> None:
        self._adapted = adapted
        self._prefix = prefix
        self._objective = objective
        self._optimizer = optimizer
        self._micro_batch = micro_batch
        self._limit = limit
        self._part: _Part | None = None
        self._next: tuple[Update, list[_Part]] | None = None
        # Walking the whole model for its few trained tensors would
        # take longer than to start a step.
        trained_tensors = dict(tree_flatten(adapted.stack.model.trainable_parameters()))
        self._groups = Groups.of(trained_tensors)
        self._places = [_place(adapted.stack.model, name) for name in trained_tensors]
        # An array per group; None while the tensors are in the model.
        self._parameters: list[mx.array] | None = None
        self._graph = mx.compile(self._build)

    def start(
        self, case_numbers: Sequence[int], rate: float, dropout_key: tuple[int, int] | None
    ) -> UpdateResult:
        """Hand an update over to the device."""
        cases = self._prefix.cases
        parameters = self._gathered()
        # The rate is an array of the state, and so an argument of the graph and no constant.
        self._optimizer.learning_rate = rate
        state = self._optimizer.state
        # An array: a number would be a constant, and each new one would need a graph of its own.
        sizes = mx.array([scored_tokens(cases, case_numbers), len(case_numbers)], mx.float32)

        previous: Tree = None
        parts = self._parts(case_numbers, dropout_key)
        for part in parts:
            if previous is not None:
                # The batch is in parts because its memory would not fit: one after the other.
                mx.eval(previous)
            # Read where a graph is traced; later parts of the same shapes only bring other arrays.
            self._part = part
            last = part is parts[-1]
            batch = part.batch
            inputs = PartInputs.read(self._prefix, batch)
            arguments = {
                "leading": inputs.leading,
                "own": inputs.own_rows,
                "batch": {name: mx.array(getattr(batch, name)) for name in ARRAYS},
                "masks": [self._adapted.mask_source(request) for request in part.requests],
            }
            previous = self._graph(parameters, state, sizes, arguments, previous, last)

        # Building a graph leaves its placeholders in the optimizer.
        self._parameters, self._optimizer.state, loss, parts, norm = previous
        mx.async_eval(previous)  # type: ignore[no-untyped-call]
        return UpdateResult(loss, parts, norm)

    def hand_back(self) -> None:
        """Put the trained tensors into the model and the state by tensor into the optimizer, where
        evaluation and checkpoints read them.
        """
        if self._parameters is not None:
            self._set_tensors(self._groups.split(self._parameters))
            self._optimizer.state = self._groups.split_state(self._optimizer.state)
            self._parameters = None

    def _gathered(self) -> list[mx.array]:
        """The trained tensors by group, and the optimizer's state too."""
        if self._parameters is None:
            self._parameters = self._groups.join(self._tensors())
            self._optimizer.state = self._groups.join_state(self._optimizer.state)
        return self._parameters

    def mask_requests(
        self, case_numbers: Sequence[int], dropout_key: tuple[int, int] | None
    ) -> list[MaskRequest]:
        """The dropout masks that an update takes. If it is the next, it starts sooner."""
        return [r for part in self._parts(case_numbers, dropout_key) for r in part.requests]

    def _parts(
        self, case_numbers: Sequence[int], dropout_key: tuple[int, int] | None
    ) -> list[_Part]:
        update = (tuple(case_numbers), dropout_key)
        if self._next is None or self._next[0] != update:
            parts = parts_of(self._prefix.cases, case_numbers, self._micro_batch)
            described = []
            for start, batch in parts:
                requests: tuple[MaskRequest, ...] = ()
                if dropout_key is not None:
                    part = [(start, batch)]
                    requests = tuple(mask_requests(self._adapted, self._prefix, part, dropout_key))
                described.append(_Part(batch, start, dropout_key, requests))
            self._next = (update, described)
        return self._next[1]

    def _build(
        self,
        parameters: list[mx.array],
        state: Tree,
        sizes: mx.array,
        arguments: dict[str, Any],
        previous: Tree | None,
        last: bool,
    ) -> Tree:
        """The graph of a part: gradients added to those of the parts before, and after the last
        part the optimizer's update. Parameters, state and gradients are by group.
        """
        loss, parts, gradients = self._gradients(parameters, sizes, arguments)
        if previous is not None:
            loss = loss + previous[0]
            parts = parts + previous[1]
            gradients = [mx.add(*pair) for pair in zip(gradients, previous[2], strict=True)]

        if not last:
            return loss, parts, gradients

        norm = mx.sqrt(mx.stack([mx.square(g).sum() for g in gradients]).sum())
        if self._limit is not None:
            # The norm is not computed yet, so nothing can branch on it. One of 0 gives infinity,
            # and so the factor 1.
            factor = mx.minimum(self._limit / norm, 1)
            gradients = [g * factor for g in gradients]

        # A copy of the tree: the optimizer writes into its state, and `state` is an argument.
        self._optimizer.state = tree_map(lambda value: value, state)
        groups = self._groups
        new_parameters = self._optimizer.apply_gradients(
            groups.tree(gradients), groups.tree(parameters)
        )
        return groups.arrays(new_parameters), self._optimizer.state, loss, parts, norm

    def _gradients(
        self, parameters: list[mx.array], sizes: mx.array, arguments: dict[str, Any]
    ) -> tuple[mx.array, mx.array, list[mx.array]]:
        part = self._part
        assert part is not None
        batch = replace(part.batch, **arguments["batch"])
        inputs = PartInputs(arguments["leading"], arguments["own"])
        adapted = self._adapted
        whole = EffectiveBatch(adapted, self._prefix, self._objective, sizes[0], sizes[1], part.key)

        def loss_of(tensors: list[mx.array]) -> tuple[mx.array, mx.array]:
            self._set_tensors(tensors)
            return whole.loss(batch, part.start, inputs)

        # Tracing puts placeholders into the model, so its own tensors are put back below.
        source = adapted.mask_source
        kept_tensors = self._tensors()
        masks = dict(zip(part.requests, arguments["masks"], strict=True))
        adapted.take_masks_from(masks.__getitem__)
        tensors = self._groups.split(parameters)
        (loss, parts), gradients = mx.value_and_grad(loss_of)(tensors)
        adapted.take_masks_from(source)
        self._set_tensors(kept_tensors)

        return loss, parts, self._groups.join(gradients)

    def _tensors(self) -> list[mx.array]:
        return [module[name] for module, name in self._places]

    def _set_tensors(self, values: Sequence[mx.array]) -> None:
        for (module, name), value in zip(self._places, values, strict=True):
            module[name] = value


def _place(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and the tensor's name in it."""
    *steps, name = path.split(".")
    module: Any = model
    for step in steps:
        module = module[int(step)] if step.isdigit() else module[step]
    return module, name
