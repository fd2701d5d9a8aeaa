"""What can be searched, what is refused in which sentence, and which training a choice of values gives."""

import re

import pytest

from flows.search_setup import Limits, set_up
from flows.selection import Narrowing, select
from tasks.runtime.errors import BadInput
from tasks.spec import ExperimentSpec
from tests.search.spaces import grid_text, setup


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
        (f"{KEY}4", r", line 11: search.recipe.rank = 4 is not allowed: input should be a list\."),
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


def test_a_recipe_that_selects_by_macro_f1_is_refused():
    with pytest.raises(BadInput, match=r"^The recipe \S+ has select_by = 'macro_f1', while a search compares trials"):
        setup('recipe.select_by="macro_f1"')


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


def test_no_id_depends_on_the_search():
    with_search, without = select("smoke").cells, select("smoke", ["search.seed=7", "search.recipe.rank=[2]"]).cells
    assert with_search == without and all("search" not in spec.model_dump_json() for spec in without)


@pytest.mark.parametrize(
    ("key", "own"), [("training.num_layers", "num_layers = 1"), ("prompt.version", "prompt = { version = 2 }")]
)
def test_what_the_recipe_sets_itself_is_not_searched_where_it_would_change_nothing(key, own, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(grid_text(f'[search]\n"{key}" = [1, 2]', own))
    said = f"the recipe plain sets {own.split()[0]} itself; take it out of the recipe."
    with pytest.raises(BadInput, match=said):
        set_up(str(path), None, Narrowing())


def test_settings_of_the_recipe_itself_are_searched():
    space = setup("search.recipe.lora_plus=[1, 16]", "search.recipe.num_layers=[1, 2]").space
    plain, changed = (space.experiment({"recipe.lora_plus": ratio, "recipe.num_layers": 1}) for ratio in (1, 16))
    assert (plain.recipe.lora_plus, changed.recipe.lora_plus, changed.training.num_layers) == (1, 16, 1)
