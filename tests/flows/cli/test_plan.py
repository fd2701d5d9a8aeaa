"""What a plan calls trained is what a sweep would find done: after a smoke sweep, with one ingredient changed each time."""

import shutil
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.cli.sweeps.plan import print_plan
from flows.plan import plan_cells
from flows.plan_prefixes import PlannedPrefixes, planned_prefixes
from flows.report.names import RANDOM
from flows.selection import Narrowing, Selection, select
from tasks.corpus import prepare
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.spec import FolderSource


@pytest.fixture
def trained(smoke, monkeypatch):
    """Number of the smoke grid's eight cells that are trained, under overrides, in a home with a finished sweep."""
    place, _ = smoke

    def count(*overrides: str, home=place.home) -> int:
        monkeypatch.setenv("TRIAGE_HOME", str(home))
        return sum(cell.trained for cell in plan_cells(select("smoke", list(overrides))))

    return count


def without_variants(place, folder):
    shutil.copytree(place.home / "experiments", folder / "experiments")
    return folder


def test_after_a_sweep_all_is_trained_under_settings_that_change_no_adapter(trained, smoke, tmp_path):
    bare = without_variants(smoke[0], tmp_path / "bare")
    for folder in (smoke[0].home, bare):
        assert trained(home=folder) == 8
        assert trained("training.memory='4GB'", "scoring.passes=20", home=folder) == 8
        assert trained("data.limits.test=12", home=folder) == 8
    assert {p.name for p in bare.iterdir()} == {"experiments"}, "a plan writes nothing"


def test_what_is_trained_and_would_be_scored_again_is_said_with_its_time(smoke, monkeypatch):
    monkeypatch.setenv("TRIAGE_HOME", str(smoke[0].home))

    def cells(*overrides):
        return list(plan_cells(select("smoke", list(overrides))))

    assert {(cell.state, cell.seconds) for cell in cells()} == {("done", 0.0)}
    more = cells("scoring.passes=20")
    assert {cell.state for cell in more} == {"to score"} and all(cell.seconds > 0 for cell in more)
    assert {cell.state for cell in cells("data.limits.test=12")} == {"to score"}
    assert {cell.state for cell in cells("recipe.iterations=4")} == {"to train"}


def test_a_plan_marks_random_weights_those_that_are_here_or_else_all_that_the_grid_names(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.cli.sweeps.plan.sources_of", lambda selection: {})  # asks networks
    monkeypatch.setattr("flows.cli.sweeps.plan.measured_machine", lambda: None)  # takes seconds
    chosen = select("smoke", narrowing=Narrowing(["tiny-llama", "smollm2-135m"], bits=[4], recipes=["baseline"]))
    tiny = chosen.cells[0]
    missing = FolderSource(kind="folder", path=str(tmp_path / "missing"))
    either = tiny.model.model_copy(update={"name": "either", "sources": (missing, *tiny.model.sources)})
    cells = [*chosen.cells, tiny.model_copy(update={"model": either})]

    def marked() -> set[str]:
        out = StringIO()
        print_plan(Console(file=out, width=200), Selection(chosen.grid, cells))
        return {spec.model.name for spec in cells if f"{spec.cell_id}{RANDOM}" in out.getvalue()}

    assert marked() == {"tiny-llama"}, "what either gets is not known yet"
    print_plan(Console(file=(wide := StringIO()), width=200), Selection(chosen.grid, cells))
    limits = chosen.grid.data.limits
    assert f"cases    train {limits['train']}, valid {limits['valid']}, calibration " in wide.getvalue()
    assert "that their budget leaves." in wide.getvalue().partition("prefixes ")[2].splitlines()[0]
    fetch_base(either, home())
    assert marked() == {"tiny-llama", "either"}
    print_plan(Console(file=(narrow := StringIO()), width=60), Selection(chosen.grid, cells))
    assert narrow.getvalue().count("weights)") == 2 and "…" not in narrow.getvalue(), "nothing is cut"


def test_a_plan_ends_with_the_models_that_no_source_offers_now(monkeypatch):
    silent = [("Hub a/b", "the Hub cannot be reached"), ("package c 1", "the package index did not answer in time")]
    answers = {"tiny-llama": silent, "tiny-gemma3": [silent[0], ("package d 1", "reachable")]}
    monkeypatch.setattr("flows.cli.sweeps.plan.sources_of", lambda selection: answers)
    monkeypatch.setattr("flows.cli.sweeps.plan.measured_machine", lambda: None)  # takes seconds

    def printed() -> str:
        print_plan(
            Console(file=(out := StringIO()), width=60), select("smoke", narrowing=Narrowing(recipes=["baseline"]))
        )
        return " ".join(out.getvalue().split())

    end = "tiny-llama answers now: try again, connect to a network, or list a source with kind = 'folder' in the grid."
    assert printed().endswith(f"No source of {end}")
    answers["tiny-llama"] = [*silent, ("folder e", "here")]
    assert "No source of" not in printed()


def test_a_plan_says_what_frozen_prefixes_need_and_where_they_have_no_room_what_happens_instead(smoke, monkeypatch):
    """The demo has 1,620 cases of 70 tokens, 576 float32 wide, at two precisions, and the instruction of each set."""
    needed = 2 * (1620 * 70 + 4 * 50) * 576 * 4

    def planned(grid: str, *overrides: str) -> PlannedPrefixes:
        selection = select(grid, list(overrides))
        return planned_prefixes(selection.grid, list(plan_cells(selection)))

    assert planned("demo").needed == needed and planned("demo").have_room
    assert planned("demo", "training.num_layers=8").needed == needed, "the size is that of any block"
    assert planned("demo", "training.num_layers=28").needed == 0, "two frozen blocks are not worth it"
    monkeypatch.setenv("TRIAGE_PREFIX_BYTES", "300MB")
    assert planned("demo").sentence == (
        "not enough room: 0.52 GB are needed, and 0.30 GB are left of the budget (TRIAGE_PREFIX_BYTES) of 0.30 GB. "
        "What has no room is not stored: its frozen blocks are computed in every step, which takes up to 15.5 times as "
        "long. Set TRIAGE_PREFIX_BYTES=1GB, for instance, to make room."
    )
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=200_000_000))
    assert "The disk has 0.20 GB free: make room" in planned("demo").sentence
    monkeypatch.undo()

    monkeypatch.setenv("TRIAGE_HOME", str(smoke[0].home))
    assert planned("smoke").needed == 0, "all is scored"
    assert planned("smoke", "recipe.iterations=4").needed == 0, "all is stored"
    assert planned("smoke", "recipe.iterations=4", "training.num_layers=1").needed > 0


@pytest.mark.parametrize(
    "overrides", [["recipe.iterations=4"], ["data.limits.train=40"], ["training.num_layers=1"], ["seeds=[7]"]]
)
def test_another_setting_or_other_cases_are_not_trained(overrides, trained, smoke, tmp_path):
    assert trained(*overrides) == trained(*overrides, home=without_variants(smoke[0], tmp_path / "bare")) == 0


@pytest.mark.parametrize("ingredient", ["engine", "library", "prompt"])
def test_another_engine_library_or_prompt_trains_again(ingredient, trained, smoke, tmp_path, monkeypatch):
    if ingredient == "engine":
        monkeypatch.setattr("tasks.identity.ENGINE_VERSION", 10**6)
        monkeypatch.setattr("tasks.tuning.training_rows.ENGINE_VERSION", 10**6)

    for module in ("tasks.identity", "tasks.tuning.training_rows"):
        if ingredient == "library":
            monkeypatch.setattr(f"{module}.versions", lambda: {"mlx": "0", "mlx-lm": "0"})
        if ingredient == "prompt":
            other = type("Prompt", (), {"digest": "another"})
            monkeypatch.setattr(f"{module}.load_prompt", lambda _, other=other: other)

    assert trained() == trained(home=without_variants(smoke[0], tmp_path / "bare")) == 0


def test_random_weights_of_another_seed_are_not_those_that_were_trained(trained, smoke, tmp_path, monkeypatch):
    """By the variant, or where it is gone by the sources that the grid names."""
    import flows.plan as plan

    cells = select("smoke").cells
    other = [
        c.model_copy(update={"model": c.model.model_copy(update={"sources": (s.model_copy(update={"seed": 9}),)})})
        for c in cells
        for s in c.model.sources
    ]
    monkeypatch.setenv("TRIAGE_HOME", str(without_variants(smoke[0], tmp_path / "bare")))
    chosen = select("smoke")
    matches = list(plan.plan_cells(type(chosen)(chosen.grid, other)))
    assert len(matches) == 8 and not any(cell.trained for cell in matches)


def test_a_plan_prepares_own_cases_once_and_leaves_none(smoke, tmp_path, monkeypatch):
    """They are compared with the prompt's examples, with what is trained, and counted for the verdicts."""
    monkeypatch.setattr("flows.cli.sweeps.plan.sources_of", lambda selection: {})  # asks networks
    monkeypatch.setattr("flows.cli.sweeps.plan.measured_machine", lambda: None)  # takes seconds
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TRIAGE_HOME", str(smoke[0].home))
    built = []
    build = prepare._build
    monkeypatch.setattr(prepare, "_build", lambda *args: built.append(args[0].source) or build(*args))
    rows = (f"about complaint {i} of {i * 7919} days,{('ED', 'GP', 'HOME')[i % 3]},g{i % 30}\n" for i in range(240))
    (tmp_path / "own.csv").write_text("text,label,group\n" + "".join(rows))
    data = f'data={{ source = "{tmp_path / "own.csv"}", group_column = "group" }}'
    chosen = select("smoke", [data, "prompt.version=2"], Narrowing(["tiny-llama"], recipes=["baseline"]))
    print_plan(Console(file=(out := StringIO()), width=200), chosen)
    assert "4 against 8 bits on test" in out.getvalue() and built == [str(tmp_path / "own.csv")]
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("key", ["data.source", "evaluation_set.source"])
def test_a_plan_refuses_cases_that_do_not_exist(key, tmp_path, monkeypatch):
    """Even where no training is finished, so that nothing has to be compared with them."""
    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    overrides = ["evaluation_set=[{ name = 'ward', source = 'nowhere.csv' }]"]
    if key == "data.source":
        overrides = ["data={ source = 'nowhere.csv' }"]
    with pytest.raises(BadInput, match=rf"There is no file or folder 'nowhere.csv' in {tmp_path}"):
        list(plan_cells(select("smoke", overrides)))
