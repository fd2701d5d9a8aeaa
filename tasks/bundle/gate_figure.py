"""A gate's figure as every table, card and sentence prints it beside the gate's state."""

from __future__ import annotations

import math

DIGITS = 3
SAME = 1e-9  # figures that differ by less differ by how a computer counts


def gate_figure(value: float | None, threshold: float, digits: int = DIGITS) -> str:
    """A figure that a gate judges, with `digits` after the point; `n/a` if there is none.

    It has more digits where these would round it to the threshold or beyond: 1077 of 1134 fails
    0.95 and reads 0.9497, not 0.950.
    """
    if value is None or math.isnan(value):
        return "n/a"
    if abs(value - threshold) < SAME:
        return f"{value:.{digits}f}"

    # This ends, since the two differ by SAME at least.
    while (round(value, digits) - threshold) * (value - threshold) <= 0:
        digits += 1
    return f"{value:.{digits}f}"
