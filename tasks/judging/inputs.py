"""Checked inputs of scoring: labels, label probabilities, cost matrices. What cannot be used is refused in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.point_metrics import Floats, Ints
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

Costs = Mapping[Any, Mapping[Any, float]] | ArrayLike  # Any: mappings are invariant in their key


def label_codes(labels: Sequence[str]) -> Ints:
    """Position of each label in LABELS, shape (cases,). BadInput names the first unknown one."""
    position = {str(label): i for i, label in enumerate(LABELS)}
    for row, label in enumerate(labels):
        if label not in position:
            raise BadInput(
                f"Case {row + 1} has the unknown label {label!r}; use one of {', '.join(LABELS)}."
            )
    return np.array([position[label] for label in labels], dtype=np.int64)


def label_probabilities(p: ArrayLike) -> Floats:
    """Checked label probabilities, shape (..., 3) in the order LABELS; BadInput on NaN or rows that do not sum to 1."""
    values = np.asarray(p, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != len(LABELS):
        raise BadInput(
            f"Label probabilities have shape {values.shape}; they need one column each for {', '.join(LABELS)}."
        )
    rows = values.reshape(-1, len(LABELS))
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise BadInput(
            f"Row {np.argmin(finite) + 1} of the label probabilities holds NaN or infinity: score again."
        )
    sound = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3)
    if not sound.all():
        raise BadInput(
            f"Row {np.argmin(sound) + 1} of the label probabilities is negative or does not sum to 1."
        )
    return values


def cost_array(costs: Costs) -> Floats:
    """Costs as a 3x3 array (row = truth, column = decision, order LABELS) from an array or nested mapping."""
    if isinstance(costs, Mapping):
        missing = [f"{t} -> {a}" for t in LABELS for a in LABELS if a not in costs.get(t, {})]
        if missing:
            raise BadInput(f"The cost matrix has no entry for {', '.join(missing)}.")
        values = np.array([[costs[t][a] for a in LABELS] for t in LABELS], dtype=np.float64)
    else:
        values = np.asarray(costs, dtype=np.float64)
    if values.shape != (3, 3) or not np.isfinite(values).all():
        raise BadInput(
            "The cost matrix needs 3 x 3 finite numbers (row = truth, column = decision)."
        )
    return values
