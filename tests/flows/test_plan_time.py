"""The estimate of a plan: operations counted by hand, split by step, and beside what a stored demo sweep took."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from flows.cli.sweeps.plan_time import print_time
from flows.plan import PlannedCell
from flows.plan_operations import all_operations, operations
from flows.plan_time import MachineSpeeds, Steps, assumed_machine, measured_machine
from flows.selection import moves_of, select
from flows.set_sizes import set_size
from tasks.corpus.case import SETS
from tasks.corpus.vignettes.sets import sets_of
from tasks.spec import Data

# SmolLM2-135M: 30 blocks of 576 x (576 + 192 + 192 + 576) + 3 x 576 x 1536 weights.
BLOCK = 576 * (576 + 192 + 192 + 576) + 3 * 576 * 1536


def work(grid: str, *overrides: str, trained: bool = False) -> Steps:
    selection = select(grid, list(overrides))
    cells = selection.cells
    variants = {(spec.model.name, spec.precision.name) for spec in cells}
    return all_operations(selection.grid, cells, [trained] * len(cells), variants)


def test_operations_are_those_of_the_blocks_counted_by_hand():
    """The demo trains 1 of 30 blocks on 1,000 and 60 cases, scores 160 and 400, and drops out on 30."""
    quick, quick_safe = [operations(spec) for spec in select("demo").cells[:2]]
    updates = 2 * 640 * (50 + 8 * 70)
    checks = 70 * 1 * 60
    assert quick == Steps(training=2 * 1 * BLOCK * (updates + checks), scoring=2 * 1 * BLOCK * 70 * 560, dropout=0)
    assert quick_safe.dropout == 2 * 1 * BLOCK * 70 * 50 * 30
    whole = work("demo")
    assert whole.preparing == 2 * (2 * 29 * BLOCK * 70 * (1000 + 60 + 160 + 400)), "once a precision"
    assert whole.scoring == (4 + 2) * quick.scoring, "the untuned model of each precision, too"


def test_the_frozen_blocks_of_recipes_of_two_depths_are_counted_once_in_any_order():
    """The blocks below the deeper recipe are among those below the shallower one."""
    first, second = (select("demo", [f"training.num_layers={layers}"]).cells[0] for layers in (4, 8))
    variants = {(first.model.name, first.precision.name)}
    for specs in ((first, second), (second, first)):
        both = all_operations(select("demo").grid, specs, [False] * 2, variants)
        assert both.preparing == 2 * 26 * BLOCK * 70 * (1000 + 60 + 160 + 400)


def test_what_is_trained_is_only_scored_and_larger_sets_and_more_passes_take_longer():
    assert work("demo", trained=True).training == 0
    assert work("demo", trained=True).preparing == 2 * (2 * 29 * BLOCK * 70 * (160 + 400))
    assert work("demo", trained=True).dropout == work("demo").dropout
    assert work("paper", "data.test_cases=3000").dropout == 2 * work("paper").dropout
    assert work("paper", "scoring.mc_cases=300").dropout == pytest.approx(work("paper").dropout / 5)


def test_further_sets_and_other_precisions_are_counted_once_an_adapter_and_their_activations_once_a_variant():
    sets = 'evaluation_set=[{ name = "test_adversarial", source = "embedded" }]'
    own_work = work("demo")
    further = work("demo", sets)
    assert further.preparing - own_work.preparing == pytest.approx(2 * (2 * 29 * BLOCK * 70 * 300))
    assert further.scoring - own_work.scoring == pytest.approx((4 + 2) * (2 * BLOCK * 70 * 300))
    moved = work("demo", sets, 'scoring.move_adapters=["8bit", "mxfp4"]')
    assert moved.preparing - further.preparing == pytest.approx(2 * 29 * BLOCK * 70 * 700), "of mxfp4 alone"
    assert moved.scoring - further.scoring == pytest.approx((2 * 2 + 2) * (2 * BLOCK * 70 * 700))
    assert moved.dropout == own_work.dropout + 3 * own_work.dropout / 2
    without_passes = ("scoring.move_adapters=true", "scoring.moved_passes=false")
    assert work("demo", *without_passes).dropout == own_work.dropout
    assert work("demo", "scoring.move_adapters=true").scoring - own_work.scoring == pytest.approx(
        4 * 2 * BLOCK * 70 * 400
    )


def written_file(path, rows: int) -> str:
    """The path of a table with a text of two lines in each row."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\n" + "".join(f'"case {row}\nand more",GP\n' for row in range(rows)))
    return str(path)


def test_own_cases_are_counted_in_their_files_by_the_shares_of_the_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    table = written_file(tmp_path / "cases.csv", 60)

    def sizes(source: str, *overrides: str) -> list[int]:
        data = select("demo", [f'data={{ source = "{source}" }}', *overrides]).grid.data
        return [set_size(data, name) for name in ("train", "valid", "calibration", "test")]

    assert sizes(table) == [36, 6, 6, 12]
    shares = "data.set_shares={ train = 0.7, valid = 0.1, calibration = 0.1, test = 0.1 }"
    assert sizes(table, shares, "data.limits.train=20") == [20, 6, 6, 6]
    written_file(tmp_path / "sets" / "test.csv", 9)
    written_file(tmp_path / "sets" / "train.csv", 40)
    assert sizes(str(tmp_path / "sets")) == [30, 5, 5, 9], "valid and calibration are split off train"
    written_file(tmp_path / "sets" / "valid.csv", 7)
    assert sizes(str(tmp_path / "sets")) == [34, 7, 6, 9]
    assert not (tmp_path / "home").exists(), "nothing is prepared"


@pytest.mark.parametrize("contrast_share", [0.0, 0.15])
def test_the_embedded_sets_have_as_many_cases_as_a_plan_counts(contrast_share):
    data = Data(train_cases=200, contrast_share=contrast_share)
    assert {name: set_size(data, name) for name in SETS} == {name: len(cases) for name, cases in sets_of(data).items()}


def test_a_plan_of_own_cases_tells_the_time_of_those_and_of_its_further_sets(tmp_path):
    source = f'data={{ source = "{written_file(tmp_path / "cases.csv", 60)}" }}'
    assert work("demo", source).scoring == (4 + 2) * 2 * BLOCK * 70 * (6 + 12)
    further = f'evaluation_set=[{{ name = "clinic", source = "{written_file(tmp_path / "clinic.csv", 50)}" }}]'
    assert work("demo", source, further).scoring == (4 + 2) * 2 * BLOCK * 70 * (6 + 12 + 50)


def test_an_adapter_moves_to_the_other_width_only_where_the_sweep_has_it():
    grid = select("demo", ["scoring.move_adapters=true"]).grid
    spec = next(spec for spec in select("demo").cells if spec.bits == 4)
    both = {("smollm2-135m", "4bit"), ("smollm2-135m", "8bit")}
    assert [precision.name for precision in moves_of(grid, spec, both)] == ["8bit"]
    assert moves_of(grid, spec, {("smollm2-135m", "4bit"), ("gemma-3-270m", "8bit")}) == []


def test_a_sweep_took_about_as_long_by_step_as_is_estimated_for_its_machine():
    """Seconds of the demo on two Linux cores with MKL at 215 GFLOP/s, as its warehouse and its output have them."""
    measured_steps = Steps(preparing=107 + 19 + 43 + 113 + 65, training=50.6 + 49.4 + 51.7 + 52.7,
                 scoring=6 * 2.5, dropout=7.7 + 6.9)  # fmt: skip
    estimate = work("demo").at(MachineSpeeds.of("that machine", 215).speeds)
    for name in ("preparing", "training", "scoring", "dropout", "total"):
        print(f"{name:9} told {getattr(estimate, name):4.0f} s   seen {getattr(measured_steps, name):4.0f} s")
        assert getattr(estimate, name) == pytest.approx(getattr(measured_steps, name), rel=0.25)


def printed(grid: str, machine: MachineSpeeds, scored: bool = False) -> str:
    selection = select(grid)
    cells = [PlannedCell(spec, scored, scored, 1.0) for spec in selection.cells]
    print_time(Console(file=(out := StringIO()), width=160), selection.grid, cells, machine)
    return " ".join(out.getvalue().split())


def test_a_plan_prints_each_step_here_and_elsewhere_and_what_fewer_dropout_cases_would_save():
    text = printed("paper", MachineSpeeds.of("this machine", 144))
    for column in ("preparing", "training", "scoring", "dropout passes", "all"):
        assert column in text

    assert "two Linux cores, MKL, 288 GFLOP/s" in text and text.count("not measured") == 10
    # 130.1 h at 288 GFLOP/s, 104.5 of them dropout, of which four fifths are saved.
    assert "--set scoring.mc_cases=300 would save about 167.2 h of 260.2 h" in text
    assert "mc_cases" not in printed("demo", MachineSpeeds.of("this machine", 144)), "it has 30"
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
