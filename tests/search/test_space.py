"""What can be searched, what is refused in which sentence, and which training a choice of values gives."""

import json
import re

import pytest

from flows.cli.main import app
from flows.search_setup import Limits, refuse_unsearchable, set_up
from flows.selection import Narrowing, select
from tasks.runtime.errors import BadInput
from tasks.search.check_space import LEFT_ALONE, OF_SAFETY
from tasks.search.objective import SearchObjective
from tasks.spec import ExperimentSpec, Recipe, Training
from tests.search.spaces import RECIPE, grid_text, setup


def refusal(tmp_path, search: str) -> str:
    """The sentence for a grid with this [search] table, without the place that it begins with."""
    path = tmp_path / "mine.toml"
    path.write_text(grid_text(search))
    with pytest.raises(BadInput) as caught:
        set_up(str(path), None, Narrowing())
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith((".", "?")) and "\n" not in sentence
    return sentence.removeprefix(f"{path}")


KEY = '[search]\n"recipe.rank" = '
SECOND = RECIPE.format(name="safe", kind="safety", more="target_ed_recall = 0.9")
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
        ("", r" has no \[search\] table, which says what to search; add one, e\.g\. .*"),
        ("[search]\nrungs = [0.5]", r", line 10: the table \[search\] names no setting to search; add one, e\.g\. .*"),
        (f"{KEY}{{ low = 4, high = 4 }}", r", line 11: search.recipe.rank: the range is empty, since low and high are "
         r"both 4; widen it, or give the list \[4\]\."),
        (f"{KEY}{{ low = 8, high = 4 }}", r", line 11: search.recipe.rank: the range is reversed: low = 8 is above "
         r"high = 4; exchange them\."),
        (f"{KEY}{{ low = 0, high = 4, log = true }}", r".*: log = true needs low above 0, and low is 0\."),
        (f"{KEY}{{ low = nan, high = 4 }}", r".*: low and high must be finite numbers\."),
        (f"{KEY}[]", r", line 11: search.recipe.rank = \[\] is not allowed: the list is empty; name at least one value\."),
        (f"{KEY}[4, 4]", r".*: the list names 4 twice\."),
        ('[search]\n"recipe.scale" = [20, 20.0]', r".*: the list names 20\.0 twice\."),
        (f"{KEY}4", r", line 11: search.recipe.rank = 4 is not allowed: give a list of values, e\.g\. \[1, 2\], or a range, "
         r"e\.g\. { low = 1, high = 8 }\."),
        (f'{KEY}"high"', r".*: search.recipe.rank = \"high\" is not allowed: give a list of values, .*"),
        (f"{KEY}[true, 4]", r", line 11: recipe.rank cannot be true: it takes numbers\."),
        (f'{KEY}["4", 8]', r", line 11: recipe.rank cannot be \"4\": it takes numbers\."),
        ("[search]\nlearning_rate = { low = 1e-4, high = 1e-2 }", r", line 11: 'learning_rate' is no setting; did you mean "
         r"recipe.learning_rate\?"),
        ("[search]\nlearning_rate = [1e-4]", r", line 11: 'learning_rate' is no setting; did you mean recipe.learning_rate\?"),
        ("[search]\nlearning_rat = { lo = 1e-4, high = 1e-2 }", r".*'search.learning_rat.lo'; did you mean 'low'\? .*"),
        ('[search]\n"recipe.seeds" = [[1, 2], [3]]', r", line 11: recipe.seeds cannot be searched: all trials have one seed, .*"),
        ('[search]\n"recipe.kind" = ["safety"]', r".*: recipe.kind cannot be searched: it decides what the search aims at\."),
        ('[search]\n"recipe.cost_weight" = [1, 2]', r".*: recipe.cost_weight cannot be searched for a standard recipe, which "
         r"does not use it; plain is one\."),
        ('[search]\n"recipe.decay" = ["none"]\n"training.decay" = ["linear"]', r".*: training.decay cannot be searched beside "
         r"recipe.decay, which replaces it; leave one of them out\."),
        (f"{KEY}{{ lo = 4, high = 8 }}", r".*'search.recipe.rank.lo'; did you mean 'low'\? Allowed are high, log, low\."),
        (f"{KEY}{{ low = 4, high = 300 }}", r", line 11: recipe.rank cannot be 300: input should be less than or equal to "
         r"256\."),
        (f"{KEY}{{ low = 4.0, high = 8.0 }}", r".*: recipe.rank takes whole numbers; .*"),
        ('[search]\n"recipe.learning_rat" = [0.1]', r", line 11: 'recipe.learning_rat' is no setting; did you mean "
         r"recipe.learning_rate\?"),
        ('[search]\nrecipe.learning_rat = [0.1]', r".*'recipe.learning_rat' is no setting; .*"),
        ('[search]\n"recipe.iterations" = [8, 16]', r".*: recipe.iterations cannot be searched: trials of different .*"),
        ('[search]\n"data.train_cases" = [100, 200]', r".*cannot be searched: all trials learn from the same cases .*"),
        ('[search]\n"training.decay" = ["square"]', r".*: training.decay cannot be \"square\": input should be 'none'.*"),
        ('[search]\n"recipe.label_smoothing" = [0, 0.1]', r".*cannot be searched for a standard recipe, whose .*"),
        ('[search]\n"recipe.evaluate_every" = [2, 4]', r".*: recipe.evaluate_every cannot be searched: it decides at .*"),
        ('[search]\n"training.num_layers" = [2, 9]', r".*: training.num_layers = 9, but tiny-llama has . blocks; .*"),
        ('[search]\n"training.target_modules" = [["mlp.no"]]', r", line 11: The settings do not fit tiny-llama: .*"),
        (f"{KEY}[4]\nover_triag = 0.2", r".*unknown key 'search.over_triag'; did you mean 'over_triage'\? Allowed are keep, .*"),
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
        assert f"{key} cannot be searched: {LEFT_ALONE[key]}." in refusal(tmp_path, f'[search]\n"{key}" = [1, 2]')
        return

    values = VARIED[key.partition(".")[2]]
    text = grid_text(f'[search]\n"{key}" = {json.dumps(values).replace(": ", " = ")}', 'select_by = "macro_f1"')
    if key in OF_SAFETY:
        text = text.replace('"standard"', '"safety"\ntarget_ed_recall = 0.9')

    path = tmp_path / "mine.toml"
    path.write_text(text)
    space = set_up(str(path), None, Narrowing()).space
    specs = [space.experiment({key: value}) for value in values]
    assert specs[0].model_dump() != specs[1].model_dump()


def test_a_sweep_refuses_a_search_table_that_suits_no_recipe_as_the_search_does(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(grid_text('[search]\n"recipe.rnk" = [2, 4]'))
    with pytest.raises(BadInput) as caught:
        app(["sweep", str(path), "--plan"], standalone_mode=False)
    assert str(caught.value) == f"{path}, line 11: 'recipe.rnk' is no setting; did you mean recipe.rank?"
    path.write_text(grid_text('[search]\n"recipe.cost_weight" = [1, 2]') + SECOND)
    refuse_unsearchable(select(str(path)), str(path), None)  # it suits the second


def test_a_search_aims_at_what_chooses_the_adapter_of_a_standard_recipe_and_at_ed_recall_for_a_safety_recipe():
    by_macro_f1 = 'recipe.select_by="macro_f1"'
    assert setup().objective == SearchObjective("validation value") and not setup().objective.is_higher_better
    assert setup(by_macro_f1).objective == SearchObjective("macro-F1") and setup(by_macro_f1).objective.is_higher_better
    for override in ([], [by_macro_f1]):
        assert setup(*override, recipe="balanced_safe").objective.name == "ED recall at over-triage 0.3"


def test_what_makes_validation_values_incomparable_is_searched_where_macro_f1_is_compared():
    smoothing = "search.recipe.label_smoothing=[0, 0.1]"
    assert "recipe.label_smoothing" in setup(smoothing, 'recipe.select_by="macro_f1"').space.settings
    with pytest.raises(BadInput, match=r'incomparable; leave it out, give the recipe select_by = "macro_f1", or'):
        setup(smoothing)


def test_the_recipes_that_the_project_ships_can_be_searched():
    aims = {r: set_up("tuned", None, Narrowing(recipes=[r])).objective.metric for r in ("tuned", "tuned_safe")}
    assert aims == {"tuned": "macro-F1", "tuned_safe": "ED recall"}


def test_a_grid_without_a_checkpoint_before_its_end_is_refused():
    with pytest.raises(
        BadInput, match=r"^training.evaluate_every = 8 leaves no checkpoint before the end of 8 updates"
    ):
        setup("training.evaluate_every=8")


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"trials": 0}, "--trials 0 is not possible; give 1 to 10,000 trials."),
        ({"trials": -3}, "--trials -3 is not possible; give 1 to 10,000 trials."),
        ({"hours": 0.0}, "--hours 0 leaves no time to search; give more than 0."),
        ({"hours": float("nan")}, "--hours nan leaves no time to search; give more than 0."),
    ],
)
def test_limits_that_leave_nothing_to_do_are_refused(limits, sentence):
    with pytest.raises(BadInput) as caught:
        Limits(**limits)
    assert str(caught.value) == sentence


def test_values_make_the_experiment_that_a_grid_with_them_has():
    space = setup().space
    values = {
        "recipe.learning_rate": 0.005, "recipe.rank": 8, "recipe.scale": 3.0, "training.num_layers": 1,
        "training.target_modules": ["self_attn.q_proj", "self_attn.v_proj"],
    }  # fmt: skip
    overrides = [f"{key}={value}".replace("'", '"') for key, value in values.items()]
    (same,) = (
        spec
        for spec in select("smoke", overrides, Narrowing(["tiny-llama"], [4], ["baseline"])).cells
        if spec.recipe.name == "baseline"
    )
    assert isinstance(same, ExperimentSpec) and space.experiment(values) == same


def test_dotted_keys_may_be_quoted_or_not_and_an_override_wins(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        grid_text('[search]\n"recipe.rank" = [2]\nrecipe.scale = { low = 2, high = 4 }\ntraining.decay = ["none"]')
    )

    for override in ("search.recipe.rank=[8]", 'search."recipe.rank"=[8]', 'search . "recipe.rank" = [8]'):
        space = set_up(str(path), [override], Narrowing()).space
        assert list(space.settings) == ["recipe.rank", "recipe.scale", "training.decay"]
        assert space.settings["recipe.rank"] == (8,)


def test_the_grids_own_recipe_is_the_first_trial_where_it_lies_in_the_ranges():
    assert setup().space.starting_values()["recipe.learning_rate"] == 1e-3
    assert setup("search.recipe.rank=[2, 8]").space.starting_values() is None


def test_a_number_is_the_grids_own_however_the_space_writes_it():
    """A real setting may be searched by whole numbers, of which its own value need not be one."""
    scale = {value: setup(f"recipe.scale={value}", "search.recipe.scale={low=2, high=40}") for value in (2.5, 20)}
    assert scale[2.5].space.starting_values() is None
    own_value = scale[20].space.starting_values()["recipe.scale"]
    assert (own_value, type(own_value)) == (20, int)

    choices = setup("recipe.scale=20", "search.recipe.scale=[10, 20]").space.starting_values()
    assert choices is not None and choices["recipe.scale"] == 20


def test_no_id_depends_on_the_search():
    with_search = select("smoke").cells
    without = select("smoke", ["search.seed=7", "search.recipe.rank=[2]"]).cells
    assert with_search == without and all("search" not in spec.model_dump_json() for spec in without)


@pytest.mark.parametrize(
    ("key", "recipe_line"), [("training.num_layers", "num_layers = 1"), ("prompt.version", "prompt = { version = 2 }")]
)
def test_what_the_recipe_sets_itself_is_not_searched_where_it_would_change_nothing(key, recipe_line, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(grid_text(f'[search]\n"{key}" = [1, 2]', recipe_line))
    words = f"the recipe plain sets {recipe_line.split()[0]} itself; take it out of the recipe."
    with pytest.raises(BadInput, match=words):
        set_up(str(path), None, Narrowing())


def test_settings_of_the_recipe_itself_are_searched():
    space = setup("search.recipe.lora_plus=[1, 16]", 'search.recipe.decay=["none", "linear"]').space
    plain, changed = (space.experiment({"recipe.lora_plus": ratio, "recipe.decay": "linear"}) for ratio in (1, 16))
    assert (plain.recipe.lora_plus, changed.recipe.lora_plus, changed.training.decay) == (1, 16, "linear")
