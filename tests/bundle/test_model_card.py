"""A model card: its gates, why a figure has no interval, and the sizes of small files."""

from __future__ import annotations

import math

import pytest

from tasks.bundle.bundle import Bundle, ExportResult, GateStatus, Rule, gate_figure
from tasks.bundle.model_card import _figure, _megabytes, render_card
from tasks.models.manifest import Origin, VariantManifest
from tasks.spec import BaseModelSpec
from tests.bundle.test_decide import bundle

VARIANT = VariantManifest.model_construct(
    source=Origin(kind="random"),
    weights_source="random weights",
    original_precision="bf16",
    bits_per_weight=4.5,
    stored_bytes=100,
)
MODEL = BaseModelSpec.model_validate(
    {"name": "m", "licence": "Apache-2.0", "sources": [{"kind": "random", "shape": "tiny-llama"}]}
)


def metric(**values) -> dict:
    return dict.fromkeys(("value", "low", "high", "note")) | {"name": "m", "method": "none", "n": 0} | values


def card(card_bundle: Bundle) -> str:
    figures = {"metrics": [], "conformal_miss": metric(), "data": "embedded", "sets": []}
    licensing = {"name": "Apache-2.0", "link": None, "texts": [], "notice": ""}
    return render_card(card_bundle, figures, licensing, ExportResult(), VARIANT, MODEL, {})


def test_what_fails_a_gate_does_not_stand_there_as_what_passes_it():
    """1077 of 1134 emergencies are 0.9497, and 0.950 to three digits."""
    gates = (
        GateStatus(gate="ed_recall", state="FAIL", threshold=0.95, value=1077 / 1134, bound=0.9351, n=1134),
        GateStatus(gate="ed_f2", state="PROVISIONAL", threshold=0.9, value=0.91, bound=0.89981, n=1134),
        GateStatus(gate="ed_false_negative_rate", state="NOT AVAILABLE", threshold=0.05, value=None, bound=None, n=0),
    )
    text = card(bundle(Rule(name="argmax"), gates=gates))
    assert "| ed_recall | at least 0.95 | 0.9497 | 0.935 | FAIL |" in text
    assert "| ed_f2 | at least 0.9 | 0.910 | 0.8998 | PROVISIONAL |" in text
    assert "| ed_false_negative_rate | at most 0.05 | n/a | n/a | NOT AVAILABLE |" in text
    assert gates[0].reason == "ED recall 0.9497 (at least 0.95 is required)"


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


def test_the_reason_for_no_interval_stands_once_and_small_files_are_in_kilobytes():
    for note in ("no interval: 1 group is too few", "1 group is too few"):
        assert _figure(metric(value=0.5, note=note)) == "0.500 (no interval: 1 group is too few)"
    assert [_megabytes(size) for size in (120, 49_999, 90_300_000)] == ["0.1 kB", "50.0 kB", "90.3 MB"]
