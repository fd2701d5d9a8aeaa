"""`triage init DIR`: what it writes runs as it is, from inside the folder."""

import subprocess
from pathlib import Path

import pytest

from flows.cli.init import FILES, write_examples
from flows.cli.main import app
from flows.plan import assumed_speeds
from flows.selection import Narrowing, select
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.reading.tables import read_set
from tasks.corpus.splits import near_duplicates
from tasks.identity import scores_folder, training_of
from tasks.models.convert import run_quantize
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.store import verify

TINY = ['models=["tiny-llama"]', "recipe.iterations=3", "training.num_layers=2"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Inside a freshly written folder."""
    folder = tmp_path / "study"
    write_examples(folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_written_grid_can_be_planned_from_inside_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app(["init", "study"], standalone_mode=False)
    assert "cd study && triage sweep my_grid.toml --plan" in capsys.readouterr().out
    monkeypatch.chdir("study")
    monkeypatch.setattr("flows.cli.plan.this_machine", lambda: ("", assumed_speeds()))  # measured for seconds
    app(
        ["sweep", "my_grid.toml", *(word for item in TINY for word in ("--set", item)), "--plan"], standalone_mode=False
    )
    plan = capsys.readouterr().out
    assert "tiny-llama-8bit-safe-s42" in plan and "4 experiments" in plan


def test_the_grid_is_small_and_compares_both_precisions_under_two_recipes(study):
    cells = select("my_grid.toml").cells
    assert [(c.model.name, c.bits, c.recipe.kind) for c in cells] == [
        ("smollm2-135m", bits, kind) for bits in (4, 8) for kind in ("standard", "safety")
    ]
    assert all(c.recipe.cost_matrix for c in cells if c.recipe.kind == "safety")


def test_every_set_of_the_cases_has_every_label_and_whole_groups_and_no_near_copies(study):
    for seed in (42, 0):
        data = select("my_grid.toml", [f"data.seed={seed}"]).grid.data
        manifest = verify(prepare_dataset(data, home()))
        assert sum(s["cases"] for s in manifest["sets"].values()) == 60 and manifest["has_groups"]
        assert all(min(s["labels"].values()) >= 2 for s in manifest["sets"].values())
    cases = read_set([Path("my_cases.csv")], select("my_grid.toml").grid.data)
    assert near_duplicates({case.case_id: [case] for case in cases}, threshold=0.1) == []


@pytest.mark.nightly  # the smoke sweep trains and scores at every change
def test_the_examples_train_and_score(study):
    from tasks.scoring import job as scoring
    from tasks.tuning import job as training

    data = prepare_dataset(select("my_grid.toml").grid.data, home())
    for spec in select("my_grid.toml", TINY, Narrowing(bits=[4], recipes=["safe"])).cells:
        source = fetch_base(spec.model, home())
        variant = run_quantize({"source": str(source), "root": str(home()), "bits": 4, "group_size": 64})["folder"]
        name = training_of(spec, Path(variant), data)
        args = {"experiment": spec.model_dump(mode="json"), "training_id": name, "variant": variant, "data": str(data),
                "home": str(home()), "folder": str(home() / "experiments" / name)}  # fmt: skip
        training.run(args, lambda event: None)
        scores = scores_folder(spec, name, data)
        shared = {key: args[key] for key in ("experiment", "variant", "data", "home")}
        scoring.run(shared | {"adapter": args["folder"], "sets": {"test": str(scores)}}, lambda event: None)
        verify(scores)


def test_a_file_that_is_there_is_never_overwritten_and_nothing_is_written_beside_it(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text("mine")
        with pytest.raises(BadInput, match=f"{name} already exists"):
            write_examples(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_git_ignores_the_cases_and_the_home_and_an_own_gitignore_is_kept(tmp_path, monkeypatch, capsys):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    app(["init", "study"], standalone_mode=False)
    assert "study/.gitignore: keeps cases out of git" in capsys.readouterr().out
    (tmp_path / "study" / ".triage").mkdir()
    for name in (".triage/a", "clinic.jsonl", "clinic.parquet"):
        (tmp_path / "study" / name).write_text("x")
    status = ["git", "-C", tmp_path, "status", "--porcelain", "--untracked-files=all"]
    untracked = subprocess.run(status, check=True, capture_output=True, text=True).stdout.split()[1::2]
    assert untracked == ["study/.gitignore", "study/my_grid.toml"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".gitignore").write_text("mine")
    app(["init", "other"], standalone_mode=False)
    assert "other/.gitignore: is kept as it is" in capsys.readouterr().out
    assert (tmp_path / "other" / ".gitignore").read_text() == "mine"
