"""Stored trials: proposals that a kill does not change, a file that Optuna reads, and sentences for one that it does not."""

import json
import shutil
import sqlite3

import optuna
import pytest

from tasks.runtime.errors import BadInput
from tasks.search.storage import Storage
from tasks.search.trial import Cost, Reached, best_of
from tests.search.spaces import setup


def opened(folder, *overrides: str, recipe: str = "baseline") -> Storage:
    a_setup = setup(*overrides, recipe=recipe)
    return Storage(folder, a_setup.space, a_setup.objective, a_setup.identity)


def reached(update: int, value: float) -> Reached:
    return Reached(update, value, value, 2.0, 1.0)


def value_of(values) -> float:
    """A made-up validation value: a high rate is better."""
    return 1 / (1 + 100 * values["recipe.learning_rate"])


def add(storage: Storage) -> int:
    values = storage.propose()
    number = storage.add(values, f"t{len(storage.trials())}")
    storage.reach(number, reached(4, value_of(values)))
    return number


def test_proposals_follow_from_the_seed_and_the_values_alone(tmp_path):
    """One search is reopened before each proposal, as after a kill; the other never is."""
    whole = opened(tmp_path / "whole")
    for number in range(9):
        add(whole)
        assert add(opened(tmp_path / "killed")) == number

    killed = opened(tmp_path / "killed")
    assert [trial.values for trial in killed.trials()] == [trial.values for trial in whole.trials()]
    assert killed.trials() == whole.trials()
    other = opened(tmp_path / "other", "search.seed=7")

    for _ in range(9):
        add(other)

    assert other.trials()[0] == whole.trials()[0], "the grid's own recipe comes first"
    assert other.trials()[1].values != whole.trials()[1].values


def test_the_sampler_learns_from_the_values_at_the_first_rung(tmp_path):
    storage = opened(tmp_path, "search.start_up_trials=4")
    for _ in range(14):
        add(storage)
    rates = [trial.values["recipe.learning_rate"] for trial in storage.trials()]
    assert sum(rates[8:]) / 6 > sum(rates[:8]) / 8, "the later ones are where it is better"


def test_no_recipe_is_proposed_twice_and_a_space_without_another_one_ends_the_proposals(tmp_path):
    names = ("learning_rate", "scale")
    fixed = [f"search.recipe.{name}=[{value}]" for name, value in zip(names, (1e-3, 20), strict=True)]

    storage = opened(
        tmp_path, *fixed, "search.recipe.rank={low=2,high=4}",
        'search.training.target_modules=[["self_attn.q_proj"]]',
    )  # fmt: skip
    calls = set()
    while values := storage.propose():
        number = storage.add(values, f"t{len(calls)}")
        storage.reach(number, reached(4, value_of(values)))
        calls.add((values["recipe.rank"], values["training.num_layers"]))

    assert calls == {(rank, layers) for rank in (2, 3, 4) for layers in (1, 2)} and len(storage.trials()) == 6


def test_a_trial_stays_running_until_it_is_trained_to_its_end_or_fails(tmp_path):
    storage = opened(tmp_path)
    for _ in range(3):
        add(storage)

    storage.reach(0, reached(8, 0.25))
    storage.fail(1, "The loss became NaN.")
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{storage.path}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "RUNNING"]
    assert study.best_value == 0.25 and study.trials[0].intermediate_values.keys() == {4, 8}
    assert study.trials[2].user_attrs["state"] == "paused at update 4 of 8"
    assert [trial.state for trial in storage.trials()] == ["finished", "failed", "paused"]
    assert best_of(storage.trials()).number == 0


def test_what_a_killed_search_recorded_but_did_not_show_is_shown_when_it_is_opened(tmp_path):
    storage = opened(tmp_path)
    add(storage)
    with sqlite3.connect(storage.path) as connection:
        rungs = [vars(reached(4, 0.5)), vars(reached(8, 0.25))]
        connection.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'rungs'", [json.dumps(rungs)])

    connection.close()
    opened(tmp_path)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{storage.path}")
    assert study.trials[0].state.name == "COMPLETE" and study.trials[0].value == 0.25


def test_another_space_is_refused_with_what_changed_and_what_to_do(tmp_path):
    add(opened(tmp_path))
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, "search.recipe.rank={low=2,high=16}", "recipe.batch_size=8", "search.seed=7")

    sentence = str(caught.value)
    assert (
        'recipe.rank was {"high":8,"log":false,"low":2} and is {"high":16,"log":false,"low":2}' in sentence
        and "search.seed was 42 and is 7" in sentence
    )
    assert "recipe.batch_size was 4 and is 8" in sentence and sentence.endswith(".")
    assert "move this file away" in sentence and "\n" not in sentence
    opened(tmp_path, "recipe.learning_rate=0.002", "training.memory=4GB", "training.report_every=1")


def test_other_cases_are_refused_by_name(tmp_path):
    storage = opened(tmp_path)
    storage.agree_on_foundation({"cases of valid": "abc", "weights": "1"})
    storage.agree_on_foundation({"cases of valid": "abc", "weights": "1"})
    with pytest.raises(BadInput, match='cases of valid was "abc" and is "def"'):
        opened(tmp_path).agree_on_foundation({"cases of valid": "def", "weights": "1"})


def test_a_file_of_another_version_or_a_damaged_one_is_refused_in_a_sentence(tmp_path):
    storage = opened(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with sqlite3.connect(storage.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")

    connection.close()
    (tmp_path / "b" / "search.db").write_bytes(b"no database at all, but long enough to be read as one" * 50)

    for name in "ab":
        with pytest.raises(
            BadInput, match=r"^\S*search.db cannot be used as the storage of a search \(.*trainings are kept\.$"
        ):
            opened(tmp_path / name)


def test_a_study_of_another_program_is_refused_in_a_sentence_and_left_as_it_is(tmp_path):
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = optuna.create_study(storage=storage, study_name="search")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)

    with pytest.raises(
        BadInput, match=r"^\S*search.db holds trials of another program, .* Move it away to start over; "
    ):
        opened(tmp_path)

    assert optuna.load_study(storage=storage, study_name="search").user_attrs == {}


def test_a_trial_without_what_we_store_of_it_is_named_in_a_sentence(tmp_path):
    storage = opened(tmp_path)
    storage._study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(BadInput, match=r"of a search \(a trial there has no recipe\.learning_rate\); another version"):
        storage.trials()


def test_the_cost_counts_what_each_trial_would_take_to_its_end(tmp_path):
    """The first step, which stores the frozen prefix, is not taken for the pace of the others."""
    storage = opened(tmp_path)
    for seconds in (500.0, 2.0, 2.0, 2.0):
        number = storage.add(storage.propose(), "t")
        storage.reach(number, Reached(4, 1.0, 1.0, seconds, 1.0))
    storage.reach(1, Reached(8, 0.5, 0.5, 2.0, 2.0))
    storage.fail(2, "It diverged.")
    assert Cost.of(storage.trials()) == Cost(20, 508.0, 28, 508.0 + 2 * 2.0)


@pytest.mark.parametrize(("recipe", "select_by"), [("balanced_safe", "loss"), ("baseline", "macro_f1")])
def test_ed_recall_and_macro_f1_are_higher_when_better(recipe, select_by, tmp_path):
    storage = opened(tmp_path, f"recipe.select_by={select_by}", recipe=recipe)
    for value, validation in ((0.5, 2.0), (0.75, 3.0), (0.75, 2.5)):
        number = storage.add(storage.propose(), "t")
        storage.reach(number, Reached(4, value, validation, 1.0, 1.0))
    assert best_of(storage.trials()).number == 2, "of equal ones the lower validation value"
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{storage.path}")
    assert study.direction.name == "MAXIMIZE"
