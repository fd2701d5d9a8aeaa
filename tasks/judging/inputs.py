"""Inputs as arrays: labels, label probabilities and cost matrices.

Labels and probabilities are checked: BadInput names the first unusable value.
"""

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
    """Position of each label in LABELS, shape (cases,)."""
    position = {str(label): i for i, label in enumerate(LABELS)}
    for number, label in enumerate(labels, 1):
        if label not in position:
            raise BadInput(
                f"Case {number} has the unknown label {label!r}; use one of {', '.join(LABELS)}."
            )
    return np.array([position[label] for label in labels], dtype=np.int64)


def label_probabilities(p: ArrayLike) -> Floats:
    """Label probabilities, shape (..., 3) in the order LABELS: finite, and each row sums to 1."""
    values = np.asarray(p, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != len(LABELS):
        raise BadInput(
            f"Label probabilities have shape {values.shape}; "
            f"they need one column each for {', '.join(LABELS)}."
        )

    rows = values.reshape(-1, len(LABELS))
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise BadInput(
            f"Row {np.argmin(finite) + 1} of the label probabilities holds NaN or infinity: "
            "score again."
        )

    sound = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3)
    if not sound.all():
        raise BadInput(
            f"Row {np.argmin(sound) + 1} of the label probabilities is negative "
            "or does not sum to 1: score again."
        )

    return values


def cost_array(costs: Costs) -> Floats:
    """Costs as an array, shape (3, 3), from an array or a nested mapping.

    Row = truth, column = decision, both in the order LABELS.
    """
    if isinstance(costs, Mapping):
        costs = [[costs[truth][decision] for decision in LABELS] for truth in LABELS]
    return np.asarray(costs, dtype=np.float64)
