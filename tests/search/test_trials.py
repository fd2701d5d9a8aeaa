"""Stored trials: proposals and pruning that a kill does not change, a file that Optuna reads, and sentences for one that
it does not.
"""

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest

from tasks.runtime.errors import BadInput
from tasks.search import trials as module
from tasks.search.trials import Reached, Trials, best_of, has_time
from tests.search.spaces import space

THREE = ("recipe.iterations=16", "search.rungs=[0.25, 0.5]")  # rungs 4, 8 and 16


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    """A storage without studies, to be copied: to make one takes most of a test's time."""
    path = tmp_path_factory.mktemp("storage") / "search.db"
    module.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def storages_start_as_copies(empty_file, monkeypatch):
    real = module.RDBStorage

    def copied(url: str, **options):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.exists():
            shutil.copy(empty_file, path)
        return real(url, **options)

    monkeypatch.setattr(module, "RDBStorage", copied)


def opened(*overrides: str, recipe: str = "baseline") -> Trials:
    return Trials(space(*overrides, recipe=recipe))


def reached(update: int, value: float) -> Reached:
    return Reached(update, value, value, 2.0, 1.0)


def study_of(trials: Trials) -> optuna.Study:
    (name,) = optuna.get_all_study_names(f"sqlite:///{trials.path}")
    return optuna.load_study(study_name=name, storage=f"sqlite:///{trials.path}")


def value_of(values) -> float:
    """A made-up validation value: a high rate is better."""
    return 1 / (1 + 100 * values["recipe.learning_rate"])


def add(trials: Trials) -> None:
    values = trials.propose()
    number = len(trials.all())
    trials.add(values, f"t{number}")
    for update in (4, 8):
        if trials.all()[number].state == "running":
            trials.reach(number, reached(update, value_of(values)))


def run(a_space, curves: list[list[float]], failing=(), kills=()) -> list[int]:
    """Rungs that each trial of a search reaches whose trial n has the values curves[n], opened anew where it is killed."""
    trials = Trials(a_space)
    step = 0
    while True:
        step += 1
        if step in kills:
            trials = Trials(a_space)
        *_, last = trials.all() or [None]
        if last is None or last.state != "running":
            number = len(trials.all())
            if number == len(curves):
                return [len(trial.rungs) for trial in trials.all()]
            trials.add(trials.propose(), f"t{number}")
        elif (last.number, len(last.rungs)) in failing:
            trials.fail(last.number, "The loss became NaN.")
        else:
            rung = len(last.rungs)
            trials.reach(last.number, reached(a_space.rungs[rung], curves[last.number][rung]))


def test_proposals_follow_from_the_seed_and_the_values_alone(monkeypatch, tmp_path):
    """One search is opened anew before each proposal, as after a kill; the other never is."""
    few = "search.start_up_trials=3"  # then come the sampler's own proposals
    whole = opened(few)
    for _ in range(5):
        add(whole)

    monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "killed"))
    for _ in range(5):
        add(opened(few))
    assert opened(few).all() == whole.all()

    other = opened(few, "search.seed=7")
    for _ in range(2):
        add(other)
    assert other.all()[0] == whole.all()[0], "the grid's own recipe comes first"
    assert other.all()[1].values != whole.all()[1].values
    assert len(opened(few).all()) == 5, "another space is another study in the same file"


def test_no_recipe_is_proposed_twice_and_a_space_without_another_one_ends_the_proposals():
    names = ("learning_rate", "scale")
    fixed = [f"search.recipe.{name}=[{value}]" for name, value in zip(names, (1e-3, 20), strict=True)]
    trials = opened(
        *fixed, "search.recipe.rank={low=2,high=4}", 'search.training.target_modules=[["self_attn.q_proj"]]'
    )
    calls = set()
    while values := trials.propose():
        trials.add(values, f"t{len(calls)}")
        trials.reach(len(calls), reached(4, value_of(values)))
        calls.add((values["recipe.rank"], values["training.num_layers"]))
    assert calls == {(rank, layers) for rank in (2, 3, 4) for layers in (1, 2)} and len(trials.all()) == 6


def test_of_the_trials_at_a_rung_the_best_third_goes_on():
    """Optuna's successive halving: the first is the best so far, and of later ones those that are among the best third."""
    worse = [[float(n)] * 3 for n in range(6)]
    assert run(space(*THREE), worse) == [3, 1, 1, 1, 1, 1]
    assert run(space(*THREE, "search.seed=1"), worse[::-1]) == [3] * 6
    curves = [[value] * 3 for value in (2.0, 3.0, 4.0, 2.5)]
    assert run(space(*THREE, "search.seed=2", "search.keep=0.5"), curves) == [3, 1, 1, 2]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 12))])
def test_killed_after_any_write_a_search_goes_on_as_if_it_never_was(seed):
    rng = random.Random(seed)
    curves = [[rng.random() for _ in range(3)] for _ in range(5)]
    failing = {(rng.randrange(5), rng.randrange(2))}
    whole = run(space(*THREE, "search.seed=1"), curves, failing)
    assert run(space(*THREE, "search.seed=2"), curves, failing, kills=set(rng.sample(range(10), 4))) == whole


def test_a_kill_between_the_rung_and_its_decision_changes_nothing(monkeypatch):
    a_space = space()
    trials = Trials(a_space)
    add(trials)
    with monkeypatch.context() as killed:
        killed.setattr(Trials, "_settle", lambda self, trial: None)
        trials.add(trials.propose(), "t1")
        trials.reach(1, reached(4, 100.0))
        assert [trial.state for trial in trials.all()] == ["finished", "running"]
    assert [trial.state for trial in Trials(a_space).all()] == ["finished", "paused"]


def test_a_trial_is_running_until_it_is_at_its_end_pruned_or_failed():
    trials = opened()
    for value in (0.5, 0.75, 0.25, 0.2):
        trials.add(trials.propose(), "t")
        trials.reach(len(trials.all()) - 1, reached(4, value))
    trials.reach(0, reached(8, 0.25))
    trials.fail(2, "The loss became NaN.")
    study = study_of(trials)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert study.best_value == 0.25 and study.trials[0].intermediate_values.keys() == {4, 8}
    assert [trial.state for trial in trials.all()] == ["finished", "paused", "failed", "running"]
    assert best_of(trials.all()).number == 0


@pytest.mark.parametrize(("recipe", "select_by"), [("balanced_safe", "loss"), ("baseline", "macro_f1")])
def test_ed_recall_and_macro_f1_are_higher_when_better_and_the_validation_value_breaks_ties(recipe, select_by):
    trials = opened(f"recipe.select_by={select_by}", recipe=recipe)
    for value, validation in ((0.75, 3.0), (0.75, 3.5), (0.75, 2.5)):
        trials.add(trials.propose(), "t")
        trials.reach(len(trials.all()) - 1, Reached(4, value, validation, 1.0, 1.0))
    assert [trial.state for trial in trials.all()] == ["running", "paused", "running"]
    assert best_of(trials.all()).number == 2 and study_of(trials).direction.name == "MAXIMIZE"


def damage(trials: Trials) -> None:
    trials.path.write_bytes(b"no database at all, but long enough to be read as one" * 50)


def of_another_version(trials: Trials) -> None:
    with contextlib.closing(sqlite3.connect(trials.path, isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def of_another_program(trials: Trials) -> None:
    study_of(trials).add_trial(optuna.trial.create_trial(value=1.0))


@pytest.mark.parametrize("change", [damage, of_another_version, of_another_program])
def test_a_file_that_is_not_ours_is_refused_in_a_sentence(change):
    change(opened())
    with pytest.raises(
        BadInput, match=r"^\S*search.db cannot be used as the storage .*move it away .*trainings are kept\.$"
    ):
        opened()


def test_a_file_that_another_program_holds_is_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    trials = opened()
    add(trials)
    values = trials.propose()
    with contextlib.closing(sqlite3.connect(trials.path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        for use in (trials.all, lambda: trials.add(values, "t"), lambda: trials._record(0, "error", "NaN")):
            with pytest.raises(BadInput, match=r"search\.db cannot be used .*database is locked"):
                use()


def test_no_trial_is_added_that_could_not_be_finished_in_time(monkeypatch):
    """Of 8 updates, which took 2 seconds a rung of 4."""
    trials = opened()
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)
    assert has_time([], None) and has_time([], 1000.1) and not has_time([], 1000.0)
    add(trials)
    assert has_time(trials.all(), None) and has_time(trials.all(), 1004.1) and not has_time(trials.all(), 1004.0)
