"""`triage bench corpus`: differences to the baseline are paired by case, with intervals over whole conditions."""

from __future__ import annotations

import pytest

from flows.bench_corpus import Decided, _difference, _row, _verdict

TRUTH = ["ED", "GP", "HOME", "ED", "GP", "HOME"] * 20
LABELS = {f"c{i}": label for i, label in enumerate(TRUTH)}
GROUPS: dict[str, str | None] = {f"c{i}": f"g{i // 3}" for i in range(len(TRUTH))}


def decided(**wrong: str) -> Decided:
    return Decided(LABELS, GROUPS, LABELS | wrong)


def test_a_model_without_an_error_beats_a_baseline_with_some_by_the_difference_of_their_figures() -> None:
    baseline = decided(**{f"c{i}": "GP" for i in range(0, 120, 12)})
    shown = _row("test", "baseline", baseline, None)
    assert shown["set"] == "test, 120 cases" and shown["ED F2, difference"] == ""
    row = _row("test", "model", decided(), baseline)
    assert row["macro F1"] == row["ED F2"] == "1.000"
    # Baseline: 30 of 40 ED found, none in vain: F2 = 5 x 1 x 0.75 / (4 x 1 + 0.75) = 0.789.
    point, interval = row["ED F2, difference"].split("\n")
    low, high = map(float, interval.split(" to "))
    assert point == "+0.211" and 0 < low < 0.211 < high <= 1
    assert row["earns its place?"] == "yes, by 0.05" and shown["earns its place?"] == ""


def test_no_difference_gives_zero_and_an_interval_of_zero() -> None:
    same = decided(c0="GP")
    assert _difference("macro_f1", same, same, list(LABELS)) == (0, 0, 0)


@pytest.mark.parametrize("metric", ["macro_f1", "ed_f2"])
def test_the_order_of_the_models_turns_the_sign(metric: str) -> None:
    good, bad = decided(), decided(c0="GP", c6="HOME", c12="GP")
    assert _difference(metric, good, bad, list(LABELS))[0] > 0 > _difference(metric, bad, good, list(LABELS))[0]


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([(0.06, 0.01, 0.11), (0.05, 0.02, 0.08)], 0.05, "yes, by 0.05"),
        ([(0.06, 0.01, 0.11), (0.04, 0.02, 0.08)], 0.05, "cannot conclude"),
        ([(0.06, -0.01, 0.11), (0.06, 0.02, 0.08)], 0.05, "cannot conclude"),
        ([(0.06, 0.01, 0.11), (0.01, -0.02, 0.04)], 0.05, "no, not by 0.05"),
        ([(0.02, 0.01, 0.03), (0.04, 0.01, 0.08)], 0.0, "yes"),
        ([(0.02, 0.01, 0.03), (-0.04, -0.08, 0.0)], 0.0, "no"),
        ([(0.06, None, None), (0.06, 0.02, 0.08)], 0.05, "cannot conclude"),
    ],
)
def test_a_model_earns_its_place_by_the_margin_in_both_figures_with_intervals_above_zero(
    differences, margin, verdict
) -> None:
    assert _verdict(differences, margin) == verdict
