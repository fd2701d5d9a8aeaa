"""What a plan calls trained is what a sweep would find done: after a smoke sweep, with one ingredient changed each time."""

import shutil
from io import StringIO

import duckdb
import pytest
from rich.console import Console

from flows.cli.plan import print_plan
from flows.plan import PlannedCell, assumed_speeds, plan_cells, planned_cases, trained_elsewhere
from flows.power import expected
from flows.selection import Narrowing, Selection, select
from tasks.corpus import prepare
from tasks.runtime.home import home
from tasks.spec import short_digest
from tests.place import shown
from tests.warehouse.rows import land_arm
from warehouse.connect import warehouse_path
from warehouse.load import load_all


def planned(selection: Selection) -> list[PlannedCell]:
    with planned_cases(selection) as cases:
        return plan_cells(selection, cases)


def printed(selection: Selection, width: int = 200) -> str:
    return shown(print_plan, selection, width=width)


@pytest.fixture
def offline(monkeypatch):
    """A plan asks no networks, and measures nothing, which takes seconds; what the sources answer."""
    answers: dict[str, list[tuple[str, str]]] = {}
    monkeypatch.setattr("flows.cli.plan.availabilities", lambda models, home: answers)
    monkeypatch.setattr("flows.cli.plan.this_machine", lambda: ("not measured", assumed_speeds()))
    return answers


def test_without_the_variants_nothing_counts_as_trained_and_a_plan_writes_nothing(smoke, tmp_path, monkeypatch):
    shutil.copytree(smoke[0].home / "experiments", tmp_path / "bare" / "experiments")
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "bare"))
    assert {cell.state for cell in planned(select("smoke"))} == {"to train"}
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"experiments"}


def test_what_is_done_scored_or_trained_again_under_other_settings_or_cases_is_said_with_its_time(
    smoke, offline, monkeypatch
):
    monkeypatch.setenv("TRIAGE_HOME", str(smoke[0].home))
    for *overrides, state in (
        ("done",),
        ("training.memory='4GB'", "scoring.passes=20", "to score"),
        ("data.limits.test=12", "to score"),
        ("recipe.iterations=4", "to train"),
        ("data.limits.train=40", "to train"),
        ("training.num_layers=1", "to train"),
        ("seeds=[7]", "to train"),
    ):
        cells = planned(select("smoke", overrides))
        assert [cell.state for cell in cells] == [state] * 8
        assert all((cell.seconds > 0) == bool(overrides) for cell in cells)

    text = printed(select("smoke", only=Narrowing(bits=[4])))
    assert "4 experiments, 4 trained, 0 to train, 0 to score: about 0 s" in text
    assert "time " not in text and "prefixes " not in text, "a plan of what is done says no time"


def test_a_plan_names_the_primary_claim_alone_where_the_grid_has_one(offline):
    claim = ["seeds=[42, 43]", "primary.recipe=baseline", "primary.base_model=tiny-llama"]
    selection = select("smoke", claim, Narrowing(bits=[4]))
    (line,) = [line for line in printed(selection).splitlines() if line.startswith("primary ")]
    start = "primary  tiny-llama baseline, 4bit against 8bit, seeds 42, 43: accuracy and ed_recall, margin 0.02; "
    assert line.startswith(start) and line.endswith(f"as {short_digest(selection.grid.registration)}")
    assert "primary " not in printed(select("smoke", only=Narrowing(bits=[4])))


def test_a_seed_whose_results_came_from_another_machine_is_named_before_it_is_trained_again(offline):
    recipe = {"recipe": "baseline", "learning_rate": 1e-3, "batch_size": 4, "rank": 4, "scale": 20.0, "iterations": 8}
    land_arm(home() / "landing", "merged", cell_id="tiny-llama-4bit-baseline-s43", seed=43, **recipe)
    load_all(home() / "landing")
    only = Narrowing(models=["tiny-llama"], recipes=["baseline"])
    told = "The warehouse has the results of seeds that this trains again (baseline: 43), since their adapters are on"
    for override, is_told in (("seeds=[43]", True), ("seeds=[44]", False), ("recipe.seeds=[42, 43]", True)):
        assert (told in printed(select("smoke", [override], only))) == is_told
    assert told not in printed(select("smoke", ["seeds=[43]", "recipe.rank=8"], only)), "another experiment"


def test_a_warehouse_without_tables_stops_no_plan(offline):
    home().mkdir(parents=True)
    duckdb.connect(str(warehouse_path())).close()  # its process was killed before it made them
    assert trained_elsewhere(select("smoke")) is None
    assert expected("smol", "r1", "accuracy", 66.0)[1] == "tuned and tuned_safe in the published study"


def test_a_plan_says_cases_time_and_disk(offline, monkeypatch):
    text = printed(select("paper", only=Narrowing(bits=[4])))
    assert "cases    train 3,000, valid 600, calibration 1,200, test 1,500, test_adversarial 300" in text
    assert "30 experiments, 0 trained, 30 to train, 0 to score: about " in text
    for words in ("time     preparing ", "training ", "scoring ", "dropout passes ", "on this machine (not measured)"):
        assert words in text
    assert "prefixes about 2.84 GB for what frozen blocks compute, of a budget of " in text

    monkeypatch.setenv("TRIAGE_PREFIX_BYTES", "300MB")
    selection = select("paper", only=Narrowing(bits=[4]))
    text = printed(selection)
    assert all(spec.cell_id in text for spec in selection.cells)
    console = Console(file=(out := StringIO()), width=80, height=24, force_terminal=True, color_system=None)
    print_plan(console, selection)
    assert sum(spec.cell_id in out.getvalue() for spec in selection.cells) == 20
    assert "and 10 more; all of them: the same command, followed by | cat" in out.getvalue()
    assert "prefixes not enough room: 2.84 GB are needed, and 0.30 GB are left of the budget" in text


def test_a_plan_ends_with_the_models_that_no_source_offers_now(offline):
    silent = [("Hub a/b", "the Hub cannot be reached"), ("package c 1", "the package index did not answer in time")]
    offline |= {"tiny-llama": silent, "tiny-gemma3": [silent[0], ("package d 1", "reachable")]}
    selection = select("smoke", only=Narrowing(bits=[4], recipes=["baseline"]))
    end = "tiny-llama answers now: connect to a network, or list a source with kind = 'folder' in the grid."
    assert " ".join(printed(selection, width=60).split()).endswith(f"No source of {end}")
    offline["tiny-llama"] = [*silent, ("folder e", "here")]
    assert "No source of" not in printed(selection)
    first_alone = select("smoke", ["any_weights=false"], Narrowing(bits=[4], recipes=["baseline"]))
    end = "The first source of tiny-llama, tiny-gemma3 fails now: connect to a network, or list a source with kind ="
    assert end in printed(first_alone) and "weights  tiny-llama: folder e: here" in printed(first_alone)


def test_a_plan_prepares_own_cases_once_and_leaves_none(offline, smoke, tmp_path, monkeypatch):
    """They are compared with the prompt's examples, with what is trained, and counted for the verdicts."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TRIAGE_HOME", str(smoke[0].home))
    built = []
    build = prepare._build
    monkeypatch.setattr(prepare, "_build", lambda *args: built.append(args[0].source) or build(*args))
    rows = (f"about complaint {i} of {i * 7919} days,{('ED', 'GP', 'HOME')[i % 3]},g{i % 30}\n" for i in range(240))
    (tmp_path / "own.csv").write_text("text,label,group\n" + "".join(rows))
    data = f'data={{ source = "{tmp_path / "own.csv"}", group_column = "group" }}'
    text = printed(select("smoke", [data, "prompt.version=2"], Narrowing(models=["tiny-llama"], recipes=["baseline"])))
    assert "power    " in text and built == [str(tmp_path / "own.csv")]
    assert not list((tmp_path / "temporary").iterdir())
