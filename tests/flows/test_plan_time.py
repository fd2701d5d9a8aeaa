"""The estimate of a plan: operations counted by hand, split by step, and beside what a stored demo sweep took."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from flows.cli.plan_time import print_time
from flows.plan import PlannedCell
from flows.plan_time import OTHERS, Machine, Steps, all_operations, assumed_machine, measured_machine, operations
from flows.selection import select

# SmolLM2-135M: 30 blocks of 576 x (576 + 192 + 192 + 576) + 3 x 576 x 1536 weights.
BLOCK = 576 * (576 + 192 + 192 + 576) + 3 * 576 * 1536


def work(grid: str, *overrides: str, trained: bool = False) -> Steps:
    cells = select(grid, list(overrides)).cells
    return all_operations(cells, [trained] * len(cells))


def test_operations_are_those_of_the_blocks_counted_by_hand():
    """The demo trains 1 of 30 blocks on 1,000 and 60 cases, scores 160 and 400, and drops out on 30."""
    quick, quick_safe = [operations(spec) for spec in select("demo").cells[:2]]
    updates, checks = 2 * 120 * 640 * 8, 70 * 1 * 60
    assert quick == Steps(training=2 * 1 * BLOCK * (updates + checks), scoring=2 * 1 * BLOCK * 70 * 560, dropout=0)
    assert quick_safe.dropout == 2 * 1 * BLOCK * 70 * 50 * 30
    whole = work("demo")
    assert whole.preparing == 2 * (2 * 29 * BLOCK * 70 * (1000 + 60 + 160 + 400)), "once a precision"
    assert whole.scoring == (4 + 2) * quick.scoring, "the untuned model of each precision, too"


def test_what_is_trained_is_only_scored_and_larger_sets_and_more_passes_take_longer():
    assert work("demo", trained=True).training == work("demo", trained=True).preparing == 0
    assert work("demo", trained=True).dropout == work("demo").dropout
    assert work("paper", "data.test_cases=3000").dropout == 2 * work("paper").dropout
    assert work("paper", "scoring.mc_cases=300").dropout == pytest.approx(work("paper").dropout / 5)


def test_a_sweep_took_about_as_long_by_step_as_is_estimated_for_its_machine():
    """Seconds of a sweep on two Linux cores with MKL at 288 GFLOP/s, as its warehouse has them."""
    smaller = [
        "training.num_layers=3", "recipe.iterations=100", "recipe.batch_size=4", "training.evaluate_every=50",
        "data.limits={train=240, valid=60, calibration=120, test=200}", "scoring.mc_cases=60",
    ]  # fmt: skip
    seen = Steps(preparing=46.5 + 78.4 + 33.2 + 62.7, training=21.6 + 18.5 + 31.8 + 23.2,
                 scoring=8.6 + 6.3 + 9.8 + 6.5 + 2 * 6.3, dropout=63.2 + 43.7)  # fmt: skip
    told = work("demo", *smaller).at(OTHERS[0].speeds)
    for name in ("preparing", "training", "scoring", "dropout", "total"):
        print(f"{name:9} told {getattr(told, name):4.0f} s   seen {getattr(seen, name):4.0f} s")
        assert getattr(told, name) == pytest.approx(getattr(seen, name), rel=0.25)


def printed(grid: str, here: Machine, scored: bool = False) -> str:
    cells = [PlannedCell(spec, scored, scored, 1.0) for spec in select(grid).cells]
    print_time(Console(file=(out := StringIO()), width=160), cells, here)
    return " ".join(out.getvalue().split())


def test_a_plan_prints_each_step_here_and_elsewhere_and_what_fewer_dropout_cases_would_save():
    text = printed("paper", Machine.of("this machine", 144))
    for column in ("preparing", "training", "scoring", "dropout passes", "all"):
        assert column in text
    assert "two Linux cores, MKL, 288 GFLOP/s" in text and text.count("not measured") == 10
    # 218.97 h at 288 GFLOP/s, 163.7 of them dropout, of which four fifths are saved.
    assert "--set scoring.mc_cases=300 would save about 261.9 h of 437.9 h" in text
    assert "mc_cases" not in printed("demo", Machine.of("this machine", 144)), "it has 30"
    assert printed("demo", assumed_machine(), scored=True) == "", "nothing is left to do"


def test_without_a_measurement_the_plan_says_that_it_assumes(monkeypatch):
    monkeypatch.setenv("TRIAGE_BACKEND", "cpu-packed")
    assert measured_machine() is None, "its shares of the speed are not known"
    assert "this machine, not measured: assumed for cpu-packed" in printed("demo", assumed_machine())


def test_this_machine_is_measured_in_a_process_of_its_own_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_BACKEND", "cpu")
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    machine = measured_machine()
    assert machine.speeds.training > 0 and machine.name.endswith("GFLOP/s")
    assert not (tmp_path / "home").exists()
