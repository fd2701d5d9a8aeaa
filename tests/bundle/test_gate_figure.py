"""Figures of gates never read as what they are not: what fails a threshold is not rounded to it."""

from __future__ import annotations

import math

import pytest

from tasks.bundle.bundle import gate_figure


@pytest.mark.parametrize(
    ("value", "threshold", "text"),
    [
        (1077 / 1134, 0.95, "0.9497"),
        (57 / 1134, 0.05, "0.0503"),
        (0.94999996, 0.95, "0.94999996"),
        (0.9503, 0.95, "0.9503"),
        (0.9496, 0.9497, "0.9496"),  # 0.950 would be beyond the threshold
        (0.9, 0.95, "0.900"),
        (0.95, 0.95, "0.950"),
        (1 - 0.95, 0.05, "0.050"),
        (1.0, 0.95, "1.000"),
        (0.0, 0.05, "0.000"),
        (None, 0.95, "n/a"),
        (math.nan, 0.95, "n/a"),
    ],
)
def test_a_figure_has_the_digits_that_tell_it_from_the_threshold(value, threshold, text):
    assert gate_figure(value, threshold) == text
