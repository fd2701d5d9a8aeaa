"""One update of a training on a GPU from top to bottom: a compiled graph, in which the instruction
and the cases go through the trained blocks as one row.

A small step on a GPU takes as long as it takes to start its operations, so there are few of them,
and the host never waits: it hands a graph over, prepares the next batch while the device computes,
and reads the loss a step later. One graph per padded length holds the gradients, clipping and AdamW.
On a CPU `mx.compile` costs more than it gains (`step.py`).

Joined: products, norms and LoRA work token by token, so that one operation serves the instruction
and the cases; only attention tells them apart. That halves the operations of a step. A CPU gains
nothing by it. The row has no axis for sequences, and attention keeps the heads that share a key
side by side: a view of an array takes the host as long to start as an operation does.

The trained tensors of one kind and shape are one array, so that the optimizer treats all of them at
once: LoRA of two modules has three or four shapes and, in 16 blocks, 64 tensors, which clipped and
updated one by one are an eighth of the graph.

Shapes: P leading tokens, B sequences of T own tokens, S = P + B T; G heads of keys, each with R of
queries, of width d.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from tasks.runtime.backend import backend
from tasks.tuning.activations import Prefix
from tasks.tuning.data import Batch, EffectiveBatch
from tasks.tuning.lora import Adapted, Arrays, adapter_weights
from tasks.tuning.loss import LossTerms, Objective, case_terms, objective_sum
from tasks.tuning.model import HIDDEN, Stack, computed_again, finish_block, last_rows

Tree = Any  # a tree of arrays

# The arrays of a batch.
ARRAYS = ("first", "targets", "scored", "is_label", "truth", "labels")


def compiles() -> bool:
    """Whether a compiled step is faster than its operations one by one."""
    return backend().on_gpu


@dataclass
class CompiledUpdates:
    """Updates of a model as compiled graphs. `limit`: the largest norm of a gradient, or None.

    From the first update on the trained tensors and the optimizer's state are here, by group, until
    they are handed back.
    """

    adapted: Adapted
    prefix: Prefix
    objective: Objective
    optimizer: optim.Optimizer
    limit: float | None

    are_compiled = True

    def __post_init__(self) -> None:
        self._groups = Groups(adapter_weights(self.adapted))
        self._graph = mx.compile(self._build)
        # By group; None while the tensors are in the model.
        self._parameters: Arrays | None = None

    def start(self, batch: EffectiveBatch, rate: float) -> tuple[mx.array, mx.array, mx.array]:
        """Hand an update over to the device: its loss, the parts (3,) of it, and the norm of its
        gradient before clipping. Reading one waits for the device.
        """
        if self._parameters is None:
            self._parameters = self._groups.join(adapter_weights(self.adapted))
            self.optimizer.state = self._groups.join_state(self.optimizer.state)
        # The rate is an array of the state, and so an argument of the graph and no constant.
        self.optimizer.learning_rate = rate
        state = self.optimizer.state
        # An array: a number would be a constant, and each new one would need a graph of its own.
        sizes = mx.array([batch.tokens, batch.cases], mx.float32)

        previous: Tree = None
        for part in batch.parts:
            if previous is not None:
                # The batch is in parts because its memory would not fit: one after the other.
                mx.eval(previous)
            # Read where a graph is traced; later parts of the same shapes only bring other arrays.
            self._traced = part
            arguments = {
                "stored": self.prefix.stored(part.rows, part.length),
                "batch": {name: mx.array(getattr(part, name)) for name in ARRAYS},
                "masks": self._masks(part),
            }
            is_last = part is batch.parts[-1]
            previous = self._graph(self._parameters, state, sizes, arguments, previous, is_last)

        # Building a graph leaves its placeholders in the optimizer.
        self._parameters, self.optimizer.state, loss, loss_parts, norm = previous
        mx.async_eval(previous)  # type: ignore[no-untyped-call]
        return loss, loss_parts, norm

    def hand_back(self) -> None:
        """Put tensors and state where validation and checkpoints read them."""
        if self._parameters is not None:
            self._set_tensors(self._groups.split(self._parameters))
            self.optimizer.state = self._groups.split_state(self.optimizer.state)
            self._parameters = None

    def _masks(self, part: Batch) -> list[mx.array]:
        """The dropout masks of a part, one for each module."""
        if part.leading_key is None or part.case_keys is None:
            return []

        common = self.prefix.cases.leading
        own, scored = part.length - common, part.targets.shape[1]
        return self.adapted.draw_masks(part.case_keys, own, scored, (part.leading_key, common))

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
        traced = self._traced
        part = replace(traced, **arguments["batch"])

        def loss_of(tensors: Arrays) -> tuple[mx.array, mx.array]:
            self._set_tensors(tensors)
            terms = joined_terms(
                self.adapted, self.prefix, part, arguments["stored"], arguments["masks"]
            )
            return objective_sum(terms, part.labels, self.objective, sizes[0], sizes[1])

        # Tracing puts placeholders into the model, so its own tensors are put back below.
        kept_tensors = adapter_weights(self.adapted)
        tensors = self._groups.split(parameters)
        (loss, parts), by_tensor = mx.value_and_grad(loss_of)(tensors)
        self.adapted.set_dropout(None)
        self._set_tensors(kept_tensors)

        gradients = self._groups.join(by_tensor)
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

    def _set_tensors(self, tensors: Arrays) -> None:
        self.adapted.stack.model.load_weights(list(tensors.items()), strict=False)


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
        return tree_unflatten(list(self.join(dict(tree_flatten(state))).items()))

    def split_state(self, state: Tree) -> Tree:
        return tree_unflatten(list(self.split(dict(tree_flatten(state))).items()))


def _paths_of(arrays: Arrays, name: str) -> list[str]:
    """The keys of a tensor and of its moments in an optimizer's state, such as `states.0.NAME.m`."""
    return [path for path in arrays if f".{name}." in f".{path}."]


def joined_terms(
    adapted: Adapted,
    prefix: Prefix,
    batch: Batch,
    stored: tuple[mx.array, mx.array],
    masks: Sequence[mx.array] = (),
) -> LossTerms:
    """Loss terms of a batch, its leading tokens and its own in one row. The dropout keys stay set.

    `stored`: what the prefix stores of them; `masks`: of dropout, where they are drawn already.
    """
    stack = adapted.stack
    common = prefix.cases.leading
    leading_key = batch.leading_key
    adapted.set_dropout(batch.case_keys, (leading_key, common) if leading_key else None, masks)

    row = mx.concatenate([prefix.enter(one).reshape(-1, stack.hidden_size) for one in stored])
    layout = Layout(common, len(batch.rows), batch.length - common)
    positions = layout.positions
    visible = {window: _masks(stack, layout, window) for window in set(stack.windows)}

    for i in range(prefix.boundary, stack.depth - 1):
        run: Callable[..., mx.array] = partial(
            _run_block,
            stack,
            i,
            layout=layout,
            positions=positions,
            masks=visible[stack.windows[i]],
        )
        if stack.checkpointing:
            run = computed_again(stack.layers[i], run)
        row = run(row)

    # Of the last block keys and values are needed at every position, the rest where a row is scored.
    layer = stack.layers[-1]
    normed = layer.input_layernorm(row)
    _, visible_states = _keys_and_values(layer.self_attn, normed, layout, positions)
    keys, values = (by_group.swapaxes(0, 1) for by_group in visible_states)
    own_hidden, own_normed = layout.own_part(row), layout.own_part(normed)
    first = mx.array(batch.first) - common
    rows = batch.targets.shape[1]
    hidden = last_rows(stack, own_hidden, own_normed, keys, values, first, rows)
    return case_terms(stack, hidden, batch, prefix.cases)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a joined row (S, ...) are."""

    leading: int
    count: int
    length: int

    @property
    def positions(self) -> mx.array:
        """(S,) position of each token in its sequence."""
        own_positions = np.arange(self.leading, self.leading + self.length, dtype=np.int32)
        return mx.array(
            np.concatenate([np.arange(self.leading), np.tile(own_positions, self.count)]), mx.int32
        )

    def own_part(self, joined_rows: mx.array) -> mx.array:
        """(S, D) to (B, T, D)."""
        return joined_rows[self.leading :].reshape(self.count, self.length, -1)

    def visible_states(self, joined_states: mx.array) -> tuple[mx.array, mx.array]:
        """(G, 1, S, d) to (G, 1, P, d) of the leading tokens and (G, B, P + T, d) of each sequence."""
        groups, _, _, width = joined_states.shape
        leading, own_states = mx.split(joined_states, [self.leading], axis=2)
        shared = mx.broadcast_to(leading, (groups, self.count, self.leading, width))
        own_states = own_states.reshape(groups, self.count, -1, width)
        return leading, mx.concatenate([shared, own_states], axis=2)


def _run_block(
    stack: Stack,
    i: int,
    row: mx.array,
    layout: Layout,
    positions: mx.array,
    masks: tuple[mx.array, mx.array],
) -> mx.array:
    layer = stack.layers[i]
    module = layer.self_attn
    normed = layer.input_layernorm(row)
    queries = _turned(module.q_proj(normed), positions, module, "q_norm", module.scale)
    past, visible_states = _keys_and_values(module, normed, layout, positions)

    by_head = queries.reshape(len(queries), module.n_kv_heads, -1, queries.shape[-1])
    leading_queries, own_queries = mx.split(by_head.transpose(1, 0, 2, 3), [layout.leading], axis=1)
    leading = _attention(leading_queries, *past, masks[0])
    own_attended = _attention(own_queries, *visible_states, masks[1])
    attended = mx.concatenate([leading, own_attended], axis=1).transpose(1, 0, 2, 3)
    output = module.o_proj(attended.reshape(len(row), -1))

    return finish_block(stack, layer, row, output)


def _masks(stack: Stack, layout: Layout, window: int | None) -> tuple[mx.array, mx.array]:
    """Additive masks of the leading tokens (P R, P) and of the own ones (T R, P + T): the derivative
    of a selection would take two operations more in each block.
    """
    total = layout.leading + layout.length
    query = np.arange(total)[:, None]
    key = np.arange(total)
    is_visible = (key <= query) & (key > query - (window or total))
    additive = np.where(is_visible, 0, HIDDEN).astype(np.float32)

    # Each token has as many rows as a key has queries; those of the leading tokens come first.
    module = stack.layers[-1].self_attn
    queries_per_key = module.n_heads // module.n_kv_heads
    by_head = np.repeat(additive, queries_per_key, axis=0)
    first = queries_per_key * layout.leading
    leading = mx.array(by_head[:first, : layout.leading])
    return leading.astype(stack.dtype), mx.array(by_head[first:]).astype(stack.dtype)


def _attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array) -> mx.array:
    """Attention of scaled queries (G, tokens, R, d) over (G, sequences, keys, d): as the queries.

    The fused function of MLX would take itself apart to be differentiated, with more operations.
    """
    groups, sequences, _, width = keys.shape
    by_sequence = queries.reshape(groups, sequences, -1, width)
    # `precise`: sums are in float32 where the blocks compute in bfloat16.
    weights = mx.softmax(by_sequence @ keys.swapaxes(-1, -2) + mask, axis=-1, precise=True)
    return (weights @ values).reshape(queries.shape)


KeysAndValues = tuple[mx.array, mx.array]


def _keys_and_values(
    module: nn.Module, normed: mx.array, layout: Layout, positions: mx.array
) -> tuple[KeysAndValues, KeysAndValues]:
    """Keys and values of the leading tokens (G, 1, P, d), and those that each sequence sees (G, B,
    P + T, d).
    """
    keys = _turned(module.k_proj(normed), positions, module, "k_norm")
    values = module.v_proj(normed).reshape(keys.shape)
    leading_keys, every_key = layout.visible_states(keys.transpose(1, 2, 0, 3))
    leading_values, every_value = layout.visible_states(values.transpose(1, 2, 0, 3))
    return (leading_keys, leading_values), (every_key, every_value)


def _turned(
    projected: mx.array, positions: mx.array, module: nn.Module, norm: str, scale: float = 1
) -> mx.array:
    """Projected tokens (S, heads d), scaled and turned by their positions: (S, heads, 1, d)."""
    heads = module.n_kv_heads if norm == "k_norm" else module.n_heads
    # rope takes one offset per sequence, so each token is a sequence of length 1 here.
    by_token = projected.reshape(len(positions), heads, 1, -1)
    if norm in module:
        by_token = module[norm](by_token)
    turned: mx.array = module.rope(by_token if scale == 1 else by_token * scale, offset=positions)
    return turned
