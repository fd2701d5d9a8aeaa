"""A model card: its gates, why a figure has no interval, and the sizes of small files."""

from __future__ import annotations

import math

import pytest

from tasks.bundle.bundle import Bundle, Catch, GateStatus, Rule, gate_figure
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
    figures = {
        "metrics": [],
        "baselines": {},
        "conformal_miss": metric(),
        "review": "no",
        "data": "embedded",
        "sets": [],
    }
    licensing = {"name": "Apache-2.0", "link": None, "texts": [], "notice": ""}
    return render_card(card_bundle, figures, licensing, {}, VARIANT, MODEL, {})


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


def flag(load, error_flagged, error_kept, missed_ed, missed_ed_flagged) -> Catch:
    """Of a row of 1,200 cases as an earlier version has landed it, without what wrong_flagged holds."""
    return Catch.of(
        {"cases": 1200, "load": load, "error_flagged": error_flagged, "error_kept": error_kept, "missed_ed": missed_ed,
         "missed_ed_flagged": missed_ed_flagged}
    )  # fmt: skip


SENT = "the review flag sends 25.0% of 1,200 decisions to review"
ONE_PASS = "as large a flag by the largest probability of one pass catches"


@pytest.mark.parametrize(
    ("votes", "one_pass", "words"),
    [
        (
            flag(0.25, 0.5, 1.0, 24, 0.125),
            flag(0.25, 1.0, 750 / 900, 24, 0.1),
            f"{SENT} and catches 3 of 24 missed emergencies and 150 of 1,050 wrong decisions; {ONE_PASS} 2.4 of 24 missed "
            "emergencies and 300 of 1,050 wrong decisions, a random one 25.0% of each",
        ),
        (
            flag(0.25, 0.0, 0.1, 0, None),
            flag(0.25, 0.3, 0.0, 0, None),
            f"{SENT} and catches 0 of 90 wrong decisions; {ONE_PASS} 90 of 90 wrong decisions, a random one 25.0% of each",
        ),
        (flag(0.25, 0.0, 0.0, 0, None), flag(0.25, 0.0, 0.0, 0, None), f"{SENT}; no decision is wrong"),
    ],
)
def test_the_catch_of_a_flag_stands_beside_its_load_and_one_as_large_by_one_pass(votes, one_pass, words):
    assert votes.beside(one_pass) == words


@pytest.mark.parametrize(("load", "error_flagged", "error_kept"), [(0, None, 0.5), (1, 0.5, None)])
def test_a_flag_of_no_case_catches_nothing_and_one_of_all_cases_everything(load, error_flagged, error_kept):
    caught = flag(load, error_flagged, error_kept, 6, float(load))
    assert (caught.wrong, caught.wrong_caught, caught.missed_caught) == (600, 600 * load, 6 * load)
