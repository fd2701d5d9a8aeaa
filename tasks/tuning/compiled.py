"""An optimizer update as a compiled graph, for backends on which starting operations costs
more than compiling them once.

One graph per padded length holds the gradients, clipping and AdamW. The host hands it over and goes
on: it prepares the next batch while the device computes, and reads the loss a step later. On a CPU
`mx.compile` costs more than it gains, and updates are made at once (`update.py`).

The trained tensors of one kind and shape are one array, so that the optimizer treats all of them at
once: LoRA of two modules has three or four shapes and, in 16 blocks, 64 tensors, which clipped and
updated one by one are an eighth of the graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from tasks.runtime.backend import backend
from tasks.tuning.checkpoint import Arrays
from tasks.tuning.lora import adapter_weights
from tasks.tuning.loss import scored_tokens
from tasks.tuning.update import DropoutKey, Part, UpdateResult, Updates, part_loss

Tree = Any  # a tree of arrays

# The arrays of a batch.
ARRAYS = ("first", "targets", "scored", "is_label", "truth", "labels")


def compiles() -> bool:
    """Whether a compiled step is faster than its operations one by one."""
    return backend().compiles


class Groups:
    """Which tensors are in one array: `members` of each group, by its name.

    A group holds the factors A or the factors B, whose rates may differ: its name ends as theirs do.
    """

    def __init__(self, tensors: Mapping[str, mx.array]) -> None:
        by_form: dict[Any, list[str]] = defaultdict(list)
        for name, tensor in tensors.items():
            by_form[name.rpartition(".")[2], tensor.shape, tensor.dtype].append(name)
        self.members = {
            f"group_{number}_{form[0]}": names
            for number, (form, names) in enumerate(by_form.items())
        }

    def join(self, tensors: Arrays) -> Arrays:
        """An array per group, of the tensors by name, or of their moments by their paths."""
        arrays = dict(tensors)
        for group, names in self.members.items():
            for path in _paths_of(arrays, names[0]):
                parts = [arrays.pop(path.replace(names[0], name)) for name in names]
                arrays[path.replace(names[0], group)] = mx.concatenate(parts)
        return arrays

    def split(self, joined_arrays: Arrays) -> Arrays:
        """The tensors by name, or their moments by their paths, of an array per group."""
        arrays = dict(joined_arrays)
        for group, names in self.members.items():
            for path in _paths_of(arrays, group):
                parts = mx.split(arrays.pop(path), len(names))
                arrays |= zip((path.replace(group, name) for name in names), parts, strict=True)
        return arrays

    def join_state(self, state: Tree) -> Tree:
        """An optimizer's state with moments per group instead of per tensor."""
        return tree_unflatten(list(self.join(dict(tree_flatten(state))).items()))

    def split_state(self, state: Tree) -> Tree:
        """An optimizer's state as it was before `join_state`."""
        return tree_unflatten(list(self.split(dict(tree_flatten(state))).items()))


def _paths_of(arrays: Arrays, name: str) -> list[str]:
    """The keys that mean a tensor: its name, or paths to its moments in an optimizer's state, such as
    `states.0.NAME.m`.
    """
    return [path for path in arrays if f".{name}." in f".{path}."]


class CompiledUpdates(Updates):
    """Updates of a model as compiled graphs, handed over to the device.

    From the first update on the trained tensors and the optimizer's state are here, by group, until
    they are handed back.
    """

    are_compiled = True

    # By group; None while the tensors are in the model.
    _parameters: Arrays | None = None
    # Of which a graph depends on the shapes alone.
    _part: Part | None = None

    @cached_property
    def _groups(self) -> Groups:
        return Groups(adapter_weights(self.adapted))

    @cached_property
    def _graph(self) -> Callable[..., Any]:
        return mx.compile(self._build)

    def start(
        self,
        case_numbers: Sequence[int],
        rate: float,
        dropout_key: DropoutKey | None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> UpdateResult:
        """Hand an update over to the device."""
        cases = self.prefix.cases
        parameters = self._gathered()
        # The rate is an array of the state, and so an argument of the graph and no constant.
        self.optimizer.learning_rate = rate
        state = self.optimizer.state
        # An array: a number would be a constant, and each new one would need a graph of its own.
        sizes = mx.array([scored_tokens(cases, case_numbers), len(case_numbers)], mx.float32)

        previous: Tree = None
        parts = self.parts(case_numbers, dropout_key)
        for part in parts:
            if previous is not None:
                # The batch is in parts because its memory would not fit: one after the other.
                mx.eval(previous)
            # Read where a graph is traced; later parts of the same shapes only bring other arrays.
            self._part = part
            batch = part.batch
            arguments = {
                "stored": self.prefix.stored(batch.rows, batch.length),
                "batch": {name: mx.array(getattr(batch, name)) for name in ARRAYS},
                "masks": [self.adapted.mask_source(request) for request in part.requests],
            }
            is_last = part is parts[-1]
            previous = self._graph(parameters, state, sizes, arguments, previous, is_last)

        # Building a graph leaves its placeholders in the optimizer.
        self._parameters, self.optimizer.state, loss, loss_parts, norm = previous
        mx.async_eval(previous)  # type: ignore[no-untyped-call]
        meanwhile()
        return UpdateResult(loss, loss_parts, norm)

    def hand_back(self) -> None:
        """Put the trained tensors into the model and the state by tensor into the optimizer, where
        evaluation and checkpoints read them.
        """
        if self._parameters is not None:
            self._set_tensors(self._groups.split(self._parameters))
            self.optimizer.state = self._groups.split_state(self.optimizer.state)
            self._parameters = None

    def _gathered(self) -> Arrays:
        """The trained tensors by group, and the optimizer's state too."""
        if self._parameters is None:
            self._parameters = self._groups.join(adapter_weights(self.adapted))
            self.optimizer.state = self._groups.join_state(self.optimizer.state)
        return self._parameters

    def _build(
        self,
        parameters: Arrays,
        state: Tree,
        sizes: mx.array,
        arguments: dict[str, Any],
        previous: Tree | None,
        is_last: bool,
    ) -> Tree:
        """The graph of a part: gradients added to those of the parts before, and after the last
        part the optimizer's update. Parameters, state and gradients are by group.
        """
        loss, parts, gradients = self._gradients(parameters, sizes, arguments)
        if previous is not None:
            loss = loss + previous[0]
            parts = parts + previous[1]
            gradients = {group: mx.add(g, previous[2][group]) for group, g in gradients.items()}

        if not is_last:
            return loss, parts, gradients

        norm = mx.sqrt(mx.stack([mx.square(g).sum() for g in gradients.values()]).sum())
        if self.limit is not None:
            # The norm is not computed yet, so nothing can branch on it. One of 0 gives infinity,
            # and so the factor 1.
            factor = mx.minimum(self.limit / norm, 1)
            gradients = {group: g * factor for group, g in gradients.items()}

        # A copy of the tree: the optimizer writes into its state, and `state` is an argument.
        self.optimizer.state = tree_map(lambda value: value, state)
        changed = self.optimizer.apply_gradients(gradients, parameters)
        # An optimizer may give them back in another order, for which a graph would be traced again.
        new_parameters = {group: changed[group] for group in parameters}
        return new_parameters, self.optimizer.state, loss, parts, norm

    def _gradients(
        self, parameters: Arrays, sizes: mx.array, arguments: dict[str, Any]
    ) -> tuple[mx.array, mx.array, Arrays]:
        part = self._part
        assert part is not None
        adapted = self.adapted
        batch = replace(part.batch, **arguments["batch"])
        of_batch = (adapted, self.prefix, self.objective, (sizes[0], sizes[1]), part.key)

        def loss_of(tensors: Arrays) -> tuple[mx.array, mx.array]:
            self._set_tensors(tensors)
            return part_loss(*of_batch, batch, part.start, arguments["stored"])

        # Tracing puts placeholders into the model, so its own tensors are put back below.
        source = adapted.mask_source
        kept_tensors = adapter_weights(adapted)
        masks = dict(zip(part.requests, arguments["masks"], strict=True))
        adapted.take_masks_from(masks.__getitem__)
        tensors = self._groups.split(parameters)
        (loss, parts), gradients = mx.value_and_grad(loss_of)(tensors)
        adapted.take_masks_from(source)
        self._set_tensors(kept_tensors)

        return loss, parts, self._groups.join(gradients)

    def _set_tensors(self, tensors: Arrays) -> None:
        self.adapted.stack.model.load_weights(list(tensors.items()), strict=False)
