"""Search spaces of the smoke grid, for tests."""

from __future__ import annotations

from flows.selection import Narrowing, set_up
from tasks.search.space import Space


def space(*overrides: str, recipe: str = "baseline", bits: int = 4) -> Space:
    """The space of a search of the smoke grid on tiny-llama, with changes of its grid."""
    return set_up("smoke", list(overrides), Narrowing(models=["tiny-llama"], bits=[bits], recipes=[recipe]))


def grid_text(search: str, more: str = "") -> str:
    """A small grid file with this [search] table, and more lines of its recipe."""
    return f"""
name = "mine"
models = ["tiny-llama"]
bits = [4]
[training]
num_layers = 2
evaluate_every = 4
[data]
limits = {{ train = 48, valid = 12, calibration = 24, test = 24 }}
{search}
[[recipe]]
name = "plain"
kind = "standard"
learning_rate = 1e-3
batch_size = 4
rank = 4
scale = 20
dropout = 0.0
iterations = 8
{more}
"""
