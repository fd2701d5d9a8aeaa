"""The winner's grid file: any folder, both precisions, and the very training that the search made."""

import tomllib

from flows.selection import Narrowing, select, set_up
from tasks.corpus.prepare import prepare_dataset
from tasks.search.trials import Reached, Trial
from tasks.spec import Columns
from tasks.trial import _from_anywhere, write_winner
from tests.search.spaces import grid_text, space

VALUES = {
    "recipe.learning_rate": 0.00512, "recipe.rank": 8, "recipe.scale": 3, "training.num_layers": 1,
    "training.target_modules": ["self_attn.q_proj"],
}  # fmt: skip


def trial(values, a_space) -> Trial:
    rungs = (Reached(8, 0.5, 0.5, 1.0, 1.0),)
    return Trial(3, values, "t", rungs, None, 8, a_space.objective, "finished")


def test_a_sweep_of_the_file_has_the_trials_experiment_and_its_twin_of_the_other_precision():
    for recipe, bits in (("baseline", 4), ("balanced_safe", 8)):
        a_space = space(recipe=recipe, bits=bits)
        path = write_winner(a_space, trial(VALUES, a_space))
        cells = {spec.bits: spec.model_dump() for spec in select(str(path)).cells}
        assert set(cells) == {4, 8} and cells[bits] == a_space.experiment(VALUES).model_dump()
        assert path.read_text().startswith(
            "# The best recipe of a search over 5 settings of the grid smoke, on tiny-llama"
        )
        assert tomllib.loads(path.read_text())["name"] == "smoke-best"


def test_the_primary_claim_of_the_searched_study_is_not_copied():
    a_space = space("seeds=[42, 43]", "primary.recipe=baseline", "primary.base_model=tiny-llama")
    assert a_space.grid.primary is not None
    assert select(str(write_winner(a_space, trial(VALUES, a_space)))).grid.primary is None


def test_own_cases_in_the_users_folder_are_named_as_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cases.csv").write_text("text,label\n")
    assert _from_anywhere("~/cases.csv", Columns()) == str(tmp_path / "cases.csv")


def test_own_cases_beside_the_grid_are_the_same_ones_from_the_winners_folder(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    rows = [f"message number {n} about a {word},{label}" for n in range(40) for word, label in
            (("chest pain", "ED"), ("cough", "GP"), ("splinter", "HOME"))]  # fmt: skip
    (folder / "mine.csv").write_text("\n".join(["text,label", *rows]))
    (folder / "grid.toml").write_text(
        grid_text('[search]\n"recipe.rank" = [2, 4]').replace("[data]", '[data]\nsource = "mine.csv"')
    )
    a_space = set_up(str(folder / "grid.toml"), None, Narrowing())
    path = write_winner(a_space, trial({"recipe.rank": 2}, a_space))
    monkeypatch.chdir(tmp_path)

    digests = []
    for grid in (select(str(folder / "grid.toml")).grid, select(str(path)).grid):
        data = prepare_dataset(grid.data, tmp_path / "home", grid.evaluation_sets)
        digests.append([(data / f"{name}.jsonl").read_bytes() for name in ("train", "valid")])

    assert digests[0] == digests[1]
