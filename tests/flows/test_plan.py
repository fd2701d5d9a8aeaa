"""The estimate of a plan: operations counted by hand, by step, beside what a stored demo sweep took; and time limits."""

from types import SimpleNamespace

import pytest

from flows import plan
from flows.plan import (
    SCORING,
    TRAINING,
    PlannedCell,
    Steps,
    operations,
    planned_cases,
    seconds_of,
    set_sizes,
    speeds_at,
    this_machine,
    time_limits,
    work_left,
)
from flows.selection import moves_of, select
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.vignettes.sets import sets_of
from tasks.identity import scores_from
from tasks.runtime.backend import METAL
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import Data

# SmolLM2-135M: 30 blocks of 576 x (576 + 192 + 192 + 576) + 3 x 576 x 1536 weights.
BLOCK = 576 * (576 + 192 + 192 + 576) + 3 * 576 * 1536
TRAIN, VALID, JUDGED = 400, 30, 80 + 160  # cases of the demo
CASES = TRAIN + VALID + JUDGED
PASSES = ("recipe.dropout=0.05", "scoring.mc_cases=30")


def work(grid: str, *overrides: str, trained: bool = False) -> Steps:
    selection = select(grid, list(overrides))
    with planned_cases(selection) as cases:
        sizes = set_sizes(selection.grid, cases)
    return work_left(selection, [PlannedCell(spec, trained) for spec in selection.cells], sizes)[0]


def test_operations_are_those_of_the_blocks_counted_by_hand():
    """The demo trains 1 of 30 blocks, and moves the 8-bit adapter to mxfp4; with dropout it drops out on 30 cases."""
    demo = select("demo", [*PASSES])
    quick = operations(demo.cells[0], set_sizes(demo.grid))
    updates = 2 * 256 * (50 + 8 * 70)
    checks = 70 * 1 * VALID
    passes = 50 * 30
    parts = {"training": updates + checks, "scoring": 70 * JUDGED, "dropout": 70 * passes}
    assert quick == Steps(**{name: 2 * 1 * BLOCK * tokens for name, tokens in parts.items()})
    whole = work("demo")
    assert whole.preparing == 2 * 29 * BLOCK * 70 * (2 * CASES + JUDGED), "once a precision"
    of_moved = 2 * 1 * BLOCK * 70 * JUDGED
    assert whole.scoring == 2 * quick.scoring + of_moved
    assert work("demo", "scoring.untuned=true").scoring - whole.scoring == 2 * quick.scoring, "once a precision"
    assert whole.dropout == 0


def test_each_depth_of_activations_is_counted_once():
    selection = select("demo", ["training.num_layers=8", "scoring.untuned=true"])  # at which untuned models are scored
    specs = [select("demo", [f"training.num_layers={count}"]).cells[1] for count in (4, 8, 4)]
    left, *_ = work_left(selection, list(map(PlannedCell, specs)), set_sizes(selection.grid))
    assert left.preparing == pytest.approx(2 * BLOCK * 70 * (26 + 22) * (CASES + JUDGED))


def test_what_is_trained_is_only_scored_and_larger_sets_and_more_passes_take_longer():
    assert work("demo", trained=True).training == 0
    assert work("demo", trained=True).preparing == 2 * 29 * BLOCK * 70 * 3 * JUDGED
    assert work("demo", *PASSES, trained=True).dropout == work("demo", *PASSES).dropout > 0
    assert work("paper", "data.test_cases=3000").dropout == 2 * work("paper").dropout
    assert work("paper", "scoring.mc_cases=300").dropout == pytest.approx(work("paper").dropout / 5)


def test_further_sets_and_other_precisions_are_counted_once_an_adapter_and_their_activations_once_a_variant():
    sets = 'evaluation_set=[{ name = "test_adversarial", source = "embedded" }]'
    passes = (*PASSES, 'scoring.moved_from=["4bit", "8bit"]')
    own_work = work("demo", *passes)
    further = work("demo", *passes, sets)
    assert further.preparing - own_work.preparing == pytest.approx(3 * 2 * 29 * BLOCK * 70 * 300)
    assert further.scoring - own_work.scoring == pytest.approx((2 + 2) * 2 * BLOCK * 70 * 300)
    moved = work("demo", *passes, sets, 'scoring.move_adapters=["8bit", "mxfp4", "nvfp4"]')
    assert moved.preparing - further.preparing == pytest.approx(2 * 29 * BLOCK * 70 * (JUDGED + 300)), "of nvfp4 alone"
    assert moved.scoring - further.scoring == pytest.approx((2 + 1) * 2 * BLOCK * 70 * (JUDGED + 300))
    assert moved.dropout == pytest.approx(own_work.dropout * (2 + 2 + 2 + 1) / (2 + 2))
    assert work("demo", "scoring.moved_passes=false", *passes).dropout == own_work.dropout / 2


def test_an_adapter_moves_to_the_other_width_only_where_the_sweep_has_it():
    grid = select("tuned", ["scoring.move_adapters=true"]).grid
    spec = next(spec for spec in select("tuned").cells if spec.bits == 4)
    both = {("smollm2-135m", "4bit"), ("smollm2-135m", "8bit")}
    assert [precision.name for precision in moves_of(grid, spec, both)] == ["8bit"]
    assert moves_of(grid, spec, {("smollm2-135m", "4bit"), ("gemma-3-270m", "8bit")}) == []


def test_a_grid_may_move_the_adapters_of_some_precisions_and_seeds_alone_which_changes_no_id():
    registered = select("registered")
    moves = {spec.cell_id: moves_of(registered.grid, spec, set()) for spec in registered.cells}
    names = {cell: [precision.name for precision in to] for cell, to in moves.items() if to}
    to = ["bf16", "6bit", "mxfp4", "nvfp4"]
    recipe = registered.grid.primary.recipe
    assert names == {f"smollm2-135m-8bit-{recipe}-s{seed}": to for seed in (101, 102, 103)}

    everywhere = select("registered", ["scoring.moved_from=['4bit', '8bit']", "scoring.moved_seeds=[106]"])
    ids = [scores_from(one.cells[0], "t", SimpleNamespace(digest_of=str)) for one in (registered, everywhere)]
    assert ids[0] == ids[1]
    with pytest.raises(BadInput, match="scoring.moved_from: unknown precision '9bit'"):
        select("registered", ["scoring.moved_from=['9bit']"])


def written_file(path, rows: int) -> str:
    """The path of a table of so many cases."""
    name = path.stem
    lines = (f"{name} complaint {i} of {i * 7919} days,{('ED', 'GP', 'HOME')[i % 3]}\n" for i in range(rows))
    path.write_text("text,label\n" + "".join(lines))
    return str(path)


def test_own_cases_and_further_sets_are_counted_as_they_are_prepared_and_nothing_is_kept(tmp_path):
    further = f'evaluation_set=[{{ name = "clinic", source = "{written_file(tmp_path / "clinic.csv", 50)}" }}]'
    selection = select("demo", [f'data={{ source = "{written_file(tmp_path / "cases.csv", 60)}" }}', further])
    with planned_cases(selection) as cases:
        sizes = set_sizes(selection.grid, cases)
    assert sizes == {"train": 36, "valid": 6, "calibration": 6, "test": 12, "clinic": 50}
    assert not cases.exists() and not home().exists()
    assert set_sizes(selection.grid)["train"] > 36, "a guess, where nothing is prepared"


def test_the_embedded_sets_have_as_many_cases_as_a_plan_counts():
    few = ["data.train_cases=200", "data.calibration_cases=100", "data.test_cases=100", "data.limits.test=50"]
    grid = select("paper", [*few, "data.contrast_share=0.15", "evaluation_set=[]"]).grid
    written = {name: len(cases) for name, cases in sets_of(grid.data).items()}
    assert set_sizes(grid) == written | {"test": 50}


FIRST_DEMO = (
    'models=["smollm2-135m"]', "evaluation_set=[]", "data.limits={train=1000, valid=60, calibration=160, test=400}",
    "training.num_layers=1", "training.evaluate_every=640", "recipe.iterations=640", "scoring.mc_cases=30",
)  # fmt: skip


def test_a_sweep_took_about_as_long_by_step_as_is_estimated_for_its_machine():
    """Seconds of the demo of 0.1.0 on two Linux cores with MKL at 215 GFLOP/s, as its warehouse and its output have them."""
    measured_steps = Steps(preparing=107 + 19 + 43 + 113 + 65, training=50.6 + 49.4 + 51.7 + 52.7,
                 scoring=6 * 2.5, dropout=7.7 + 6.9)  # fmt: skip
    estimate = work("tuned", *FIRST_DEMO).at(speeds_at(215))
    for name in ("preparing", "training", "scoring", "dropout", "total"):
        print(f"{name:9} told {getattr(estimate, name):4.0f} s   seen {getattr(measured_steps, name):4.0f} s")
        assert getattr(estimate, name) == pytest.approx(getattr(measured_steps, name), rel=0.25)


def test_this_machine_is_measured_in_a_process_of_its_own_once_a_home_or_assumed(monkeypatch):
    monkeypatch.setenv("TRIAGE_BACKEND", "cpu")
    machine, speeds = this_machine()
    assert speeds.training > 0 and machine.endswith("GFLOP/s") and not home().exists()
    home().mkdir()
    noted = this_machine()
    monkeypatch.setattr(plan, "run_child", None)
    assert this_machine() == noted
    monkeypatch.setenv("TRIAGE_BACKEND", "cpu-packed")  # its shares of the speed are not known
    assert this_machine()[0] == "not measured: assumed for cpu-packed"


@pytest.mark.parametrize(("tflops", "hours", "dropout"), [(2.7, 13, 8), (12.4, 4, 2.7)])
def test_the_study_takes_as_long_on_macs_as_is_expected_of_their_speed(tflops, hours, dropout, monkeypatch):
    """Speeds of 16-bit products. M4 Max: 12.3 to 12.5 in bfloat16 by torch, zzc0721/torch-performance-test-data #65.
    M2: 76 % of 3.58 (philipturner/applegpuinfo #6), as an M1 Max reaches in llama.cpp's discussion 4167."""
    monkeypatch.setattr(plan, "backend", lambda: METAL)
    monkeypatch.setattr(plan, "run_child", lambda *args: {"device": {"gflops": 1000 * tflops}})
    machine, speeds = this_machine()
    estimate = work("paper").at(speeds)
    print(f"{machine}: {estimate.total / 3600:.1f} h, of which dropout {estimate.dropout / 3600:.1f} h")
    assert machine == f"{1000 * tflops:.0f} GFLOP/s"
    assert estimate.total / 3600 == pytest.approx(hours, rel=0.3)
    assert estimate.dropout / 3600 == pytest.approx(dropout, rel=0.3)


def test_activations_that_are_cached_take_disk_where_they_save_enough():
    """The demo's cases have 70 tokens, 576 float32 wide, and each set has the instruction; at mxfp4 those that are judged."""

    def left(*overrides: str):
        selection = select("demo", list(overrides))
        return work_left(selection, list(map(PlannedCell, selection.cells)), set_sizes(selection.grid))

    needed = (2 * (CASES * 70 + 4 * 50) + JUDGED * 70 + 2 * 50) * 576 * 4
    assert left()[1] == left("training.num_layers=8")[1] == needed, "the size is that of any block"
    assert left()[2] == 29 / 31
    assert left("training.num_layers=28")[1] == 0, "two frozen blocks are not worth it"


def test_a_long_step_has_a_factor_times_its_estimate_scoring_a_limit_of_its_own_and_a_short_step_the_floor():
    paper = [select("paper", [f"time_limit.factor={factor}", "time_limit.floor_seconds=1"]) for factor in (3, 6)]
    limit, twice = map(time_limits, paper)
    spec = paper[0].cells[0]
    expected = seconds_of(spec, set_sizes(paper[0].grid))
    assert limit(spec, TRAINING) > 3 * expected.training > 1
    assert limit(spec, SCORING) > 3 * (expected.scoring + expected.dropout)
    assert twice(spec, TRAINING) == pytest.approx(2 * limit(spec, TRAINING))

    smoke = select("smoke")
    short = time_limits(smoke)
    assert {short(smoke.cells[0], kinds) for kinds in (TRAINING, SCORING)} == {3600}, "the floor"


def test_cases_of_the_hub_are_counted_in_a_time_limit(tmp_path, monkeypatch):
    rows = [f"{('ED', 'GP', 'HOME')[i % 3]},message {i} about {i * i}" for i in range(90)]
    (tmp_path / "cases.csv").write_text("\n".join(["label,text", *rows]))
    cases = prepare_dataset(Data(source=str(tmp_path / "cases.csv")), tmp_path / "home")
    paper = select("paper", ["data.source=owner/name", "time_limit.floor_seconds=1"])
    limits = []
    for prepared in (None, cases):
        monkeypatch.setattr(plan, "prepare_dataset", lambda *_, prepared=prepared: prepared)
        limits.append(time_limits(paper)(paper.cells[0], SCORING))
    assert limits[1] < limits[0] / 2
