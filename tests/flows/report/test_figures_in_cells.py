"""Figures in the cells of tables: ED recall is never rounded to its gate or beyond."""

import math

import pytest

from flows.report.figures import ed_recall_figure, figure


@pytest.mark.parametrize(
    ("numbers", "digits", "text"),
    [
        ((0.9, 0.85, 0.93), 3, "0.900 [0.850, 0.930]"),
        ((0.94974, 0.9, 0.97), 3, "0.9497 [0.900, 0.970]"),
        ((0.97, 0.9503, 0.98), 3, "0.970 [0.9503, 0.980]"),
        ((0.948, 0.91, 0.97), 2, "0.948 [0.91, 0.97]"),
        ((0.95, None, None), 2, "0.95"),
        ((0.94974, None, None), 3, "0.9497"),
        ((None, None, None), 3, "n/a"),
        ((math.nan, 0.9, 0.97), 3, "n/a"),
    ],
)
def test_ed_recall_stays_on_its_side_of_the_gate(numbers, digits, text):
    assert ed_recall_figure(*numbers, digits=digits) == text


def test_a_figure_without_a_gate_is_rounded():
    assert figure(0.94974, 0.9, 0.97) == "0.950 [0.900, 0.970]"
    assert figure(0.94974, 0.9, 0.97, below=True) == "0.950\n[0.900, 0.970]"
    assert figure(math.nan, 0.9, 0.97) == "n/a"
