"""What can be searched, what is refused, which training a choice of values gives, and the grid file of the winner."""

import json
import re
import tomllib

import pytest

from flows.selection import Narrowing, select, set_up
from tasks.corpus.prepare import prepare_dataset
from tasks.runtime.errors import BadInput
from tasks.search.space import LEFT_ALONE, OF_SAFETY, Objective, Space
from tasks.search.trials import Reached, Trial
from tasks.spec import Recipe, Training
from tasks.trial import write_winner
from tests.search.spaces import grid_text, space


def set_up_grid(tmp_path, text: str, *overrides: str) -> Space:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return set_up(str(path), list(overrides), Narrowing())


def refusal(tmp_path, search: str) -> str:
    """The sentence for a grid with this [search] table, without the place that it begins with."""
    with pytest.raises(BadInput) as caught:
        set_up_grid(tmp_path, grid_text(search))
    path = tmp_path / "mine.toml"
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith((".", "?")) and "\n" not in sentence
    return sentence.removeprefix(f"{path}")


KEY = '[search]\n"recipe.rank" = '
WEIGHTS = [{"ED": 5, "GP": 2, "HOME": 1}, {"ED": 2, "GP": 1, "HOME": 1}]
COSTS = {
    "ED": {"ED": 0, "GP": 9, "HOME": 9},
    "GP": {"ED": 2, "GP": 0, "HOME": 2},
    "HOME": {"ED": 2, "GP": 1, "HOME": 0},
}
VARIED = {
    "learning_rate": [1e-3, 2e-3], "batch_size": [2, 4], "rank": [2, 4], "scale": [2, 4], "dropout": [0.0, 0.1],
    "cost_weight": [0.5, 1], "class_weights": WEIGHTS, "cost_matrix": [COSTS, {**COSTS, "GP": {"ED": 3, "GP": 0, "HOME": 2}}],
    "lora_plus": [1, 16], "label_weight": [1, 2], "label_smoothing": [0, 0.1], "sampling": ["natural", "balanced"],
    "num_layers": [1, 2], "target_modules": [["self_attn.q_proj"], ["self_attn.v_proj"]], "decay": ["none", "linear"],
    "warmup_ratio": [0, 0.1], "max_gradient_norm": [1, 2], "weight_decay": [0, 0.1], "max_tokens": [256, 512],
}  # fmt: skip


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ("", r": no \[search\] table names a setting to search; add one, e\.g\. .*"),
        ("[search]\nrungs = [0.5]", r", line 10: no \[search\] table names a setting to search; add one, .*"),
        (f"{KEY}{{ low = 8, high = 4 }}", r", line 11: .*recipe.rank: low = 8 is not below high = 4; exchange .*"),
        (f"{KEY}{{ low = 0, high = 4, log = true }}", r".*: log = true needs low above 0, and low is 0\."),
        (f"{KEY}{{ low = nan, high = 4 }}", r".*finite number.*\."),
        (f"{KEY}[]", r", line 11: search.recipe.rank = \[\] is not allowed: .*at least one.*\."),
        (f"{KEY}4", r", line 11: search.recipe.rank = 4 is not allowed: input should be a list, .*, or a range, .*"),
        ("[search]\nlearning_rate = [1e-4]", r", line 11: 'learning_rate' cannot .* mean recipe.learning_rate\?"),
        ('[search]\nrecipe.learning_rat = [0.1]', r".*'recipe.learning_rat' cannot be searched; .*"),
        ('[search]\n"recipe.cost_weight" = [1, 2]', r".* cannot be searched: it changes nothing in the recipe plain, .*"),
        ('[search]\n"recipe.decay" = ["none"]\n"training.decay" = ["linear"]', r".*: training.decay cannot be searched: it "
         r"changes nothing in the recipe plain, which does not use it or has a setting in its place\."),
        (f"{KEY}{{ lo = 4, high = 8 }}", r".*'search.recipe.rank.lo'; did you mean 'low'\? Allowed are high, log, low\."),
        (f"{KEY}{{ low = 4, high = 300 }}", r", line 11: recipe.rank cannot be 300: .* less than or equal to 256\."),
        (f"{KEY}{{ low = 4.0, high = 8.0 }}", r".*: recipe.rank cannot be 5.48: .* valid integer.*"),
        ('[search]\n"data.train_cases" = [100, 200]', r".*'data.train_cases' cannot be searched; .*"),
        ('[search]\n"training.decay" = ["square"]', r".*: training.decay cannot be \"square\": input should be 'none'.*"),
        ('[search]\n"recipe.label_smoothing" = [0, 0.1]', r".*cannot be searched: it makes .* incomparable; leave it out, .*"),
        ('[search]\n"training.num_layers" = [2, 9]', r".*: training.num_layers = 9, but tiny-llama has . blocks; .*"),
        ('[search]\n"training.target_modules" = [["mlp.no"]]', r", line 11: The settings do not fit tiny-llama: .*"),
        (f"{KEY}[4]\nover_triag = 0.2", r", line 12: search.over_triag = 0.2 is not allowed: .*"),
        (f"{KEY}[4]\nrungs = [0.4, 0.2]", r".*rungs must rise, e\.g\. \[0\.125, 0\.375\]\."),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_in_a_sentence_with_its_place(search, sentence, tmp_path):
    assert re.fullmatch(sentence, refusal(tmp_path, search)), refusal(tmp_path, search)


@pytest.mark.parametrize("key", sorted({f"recipe.{name}" for name in Recipe.model_fields}
                                       | {f"training.{name}" for name in Training.model_fields}))  # fmt: skip
def test_each_setting_varies_the_experiment_or_is_refused_with_a_reason(key, tmp_path):
    """Two values of a setting that can be searched give two experiments."""
    if key in LEFT_ALONE:
        assert f"'{key}' cannot be searched; " in refusal(tmp_path, f'[search]\n"{key}" = [1, 2]')
        return

    values = VARIED[key.partition(".")[2]]
    text = grid_text(f'[search]\n"{key}" = {json.dumps(values).replace(": ", " = ")}', 'select_by = "macro_f1"')
    if key in OF_SAFETY:
        text = text.replace('"standard"', '"safety"\ntarget_ed_recall = 0.9')

    space = set_up_grid(tmp_path, text)
    specs = [space.experiment({key: value}) for value in values]
    assert specs[0].model_dump() != specs[1].model_dump()


def test_a_search_aims_at_what_chooses_the_adapter_of_a_standard_recipe_and_at_ed_recall_for_a_safety_recipe():
    by_macro_f1 = 'recipe.select_by="macro_f1"'
    assert space().objective == Objective("validation value") and not space().objective.is_higher_better
    assert space(by_macro_f1).objective == Objective("macro-F1") and space(by_macro_f1).objective.is_higher_better
    for override in ([], [by_macro_f1]):
        assert space(*override, recipe="balanced_safe").objective.name == "ED recall at over-triage 0.3"

    aims = {r: set_up("tuned", None, Narrowing(recipes=[r])).objective.metric for r in ("tuned", "tuned_safe")}
    assert aims == {"tuned": "macro-F1", "tuned_safe": "ED recall"}, "the recipes that the project ships"
    smoothing = "search.recipe.label_smoothing=[0, 0.1]"  # it makes validation values incomparable, not macro-F1
    assert "recipe.label_smoothing" in space(smoothing, by_macro_f1).settings


@pytest.mark.parametrize(
    ("iterations", "every", "shares", "expected"),
    [
        (120, 6, "0.15, 0.4", (18, 48, 120)),
        (500, 200, "0.15, 0.4", (200, 500)),
        (8, 4, "0.5", (4, 8)),
        (9, 4, "0.01, 0.99", (4, 8, 9)),
        (10, 1, "0.999", None),
        (4, 4, "0.5", None),
    ],
)
def test_rungs_are_checkpoints_before_the_end(iterations, every, shares, expected):
    changes = (f"recipe.iterations={iterations}", f"training.evaluate_every={every}", f"search.rungs=[{shares}]")
    if expected is None:
        with pytest.raises(BadInput, match="leaves no checkpoint before the end"):
            space(*changes)
    else:
        assert space(*changes).rungs == expected


def test_dotted_keys_may_be_quoted_or_not_and_an_override_wins(tmp_path):
    text = grid_text('[search]\n"recipe.rank" = [2]\nrecipe.scale = { low = 2, high = 4 }\ntraining.decay = ["none"]')
    for override in ("search.recipe.rank=[8]", 'search."recipe.rank"=[8]', 'search . "recipe.rank" = [8]'):
        settings = set_up_grid(tmp_path, text, override).settings
        assert list(settings) == ["recipe.rank", "recipe.scale", "training.decay"]
        assert settings["recipe.rank"] == (8,)


def test_the_grids_own_recipe_is_the_first_trial_where_it_lies_in_the_ranges():
    assert space().starting_values()["recipe.learning_rate"] == 1e-3
    assert space("search.recipe.rank=[2, 8]").starting_values() is None


def test_no_id_depends_on_the_search():
    with_search = select("smoke").cells
    without = select("smoke", ["search.seed=7", "search.recipe.rank=[2]"]).cells
    assert with_search == without and all("search" not in spec.model_dump_json() for spec in without)


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
