"""A named check of the self-test: what is measured, its bound, and what to do if it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from tasks.runtime.home import without_folders

DIFFERENCE = "relative difference"
WRONG = (
    "run `uv sync` to get the versions that the study was tested with; if it stays, report it "
    "with the file below"
)
LONGEST_ERROR = 300


@dataclass(frozen=True)
class Result:
    """How a check went. `value` is None where it ended in an error, whose words `error` holds.

    `seconds`: how long the check took.
    """

    name: str
    ok: bool
    value: float | None
    limit: float
    unit: str
    level: str
    remedy: str
    seconds: float
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SelfTestCheck:
    """A check that passes if `measure` returns at most `limit`, or with `at_least`, no less."""

    name: str
    measure: Callable[[], float]
    limit: float
    unit: str = DIFFERENCE
    level: Literal["warning", "error"] = "error"
    remedy: str = WRONG
    at_least: bool = False

    def run(self) -> Result:
        """Measure and judge. An error is a result too: the other checks go on."""
        start = time.perf_counter()
        value = None
        error = ""
        try:
            value = float(self.measure())
        # Whatever a kernel that this machine lacks raises.
        except Exception as exception:
            error = without_folders(f"{type(exception).__name__}: {exception}")[:LONGEST_ERROR]

        # JSON has no NaN, which no check passes.
        if value is not None and not math.isfinite(value):
            error = f"the result is {value}"
            value = None

        ok = value is not None and (value >= self.limit if self.at_least else value <= self.limit)
        seconds = round(time.perf_counter() - start, 3)
        return Result(
            self.name, ok, value, self.limit, self.unit, self.level, self.remedy, seconds, error
        )


def distance(a: Any, b: Any) -> float:
    """Root mean square difference of two arrays, relative to the second, in float64."""
    first, second = (np.array(x.astype(mx.float32), np.float64) for x in (a, b))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def relative_to_spread(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two arrays, relative to how far the rows of the second, along
    its first axis, lie from their mean.
    """
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - b.mean(axis=0)))


def farthest(tensors: dict[str, Any], other_tensors: dict[str, Any]) -> float:
    """The largest `distance` over arrays of the same names."""
    if tensors.keys() != other_tensors.keys():
        raise ValueError(f"different tensors: {sorted(tensors.keys() ^ other_tensors.keys())[:3]}")
    return max(distance(tensors[name], other_tensors[name]) for name in other_tensors)
