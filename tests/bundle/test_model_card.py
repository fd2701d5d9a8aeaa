"""Cells of a model card: why a figure has no interval, and the sizes of small files."""

from __future__ import annotations

import pytest

from tasks.bundle.card_figures import Metric
from tasks.bundle.model_card import _figure, _megabytes


@pytest.mark.parametrize("note", ["no interval: 1 group is too few", "1 group is too few"])
def test_the_reason_for_no_interval_stands_once(note):
    metric = Metric("ED recall", "recall", 0.5, None, None, "none", 8, note)
    assert _figure(metric) == "0.500 (no interval: 1 group is too few)"


def test_small_files_are_in_kilobytes():
    assert [_megabytes(size) for size in (120, 49_999, 90_300_000)] == ["0.1 kB", "50.0 kB", "90.3 MB"]
