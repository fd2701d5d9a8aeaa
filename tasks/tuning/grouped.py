"""The trained tensors of one kind and shape as one array, so that an
optimizer treats all of them at once.

LoRA of two modules has three or four shapes and, in 16 blocks, 64 tensors: clipped and updated one
by one, they are an eighth of a compiled step's graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

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
