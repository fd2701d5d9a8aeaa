"""Training learns, keeps the best adapter, resumes exactly, and stops at NaN."""

import dataclasses
import itertools
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from sklearn.metrics import f1_score

from tasks.runtime.errors import Diverged
from tasks.runtime.events import StepWarning, TrainingReport
from tasks.spec import BaseModelSpec, Data, ExperimentSpec, RandomSource, Scoring, Training
from tasks.tuning import step
from tasks.tuning.data import epoch_batches, make_cases, padding_share, sorted_batches, training_batches
from tasks.tuning.loss import make_objective
from tasks.tuning.step import clip_gradients, score_cases, validation_value
from tasks.tuning.trainer import Progress, Splits, restore_checkpoint, train
from tasks.tuning.updates import learning_rate, make_optimizer
from tests.tuning import tiny

MODEL = BaseModelSpec(name="tiny", licence="none", sources=(RandomSource(kind="random", shape="tiny-llama"),))


def experiment(a_recipe, **training) -> ExperimentSpec:
    values = {"num_layers": 2, "report_every": 2, "evaluate_every": 2} | training
    return ExperimentSpec(
        model=MODEL, bits=4, recipe=a_recipe, seed=42, training=Training(**values), data=Data(), scoring=Scoring()
    )


def separable(count=24):
    """Cases whose last prompt token names the label: learnable by any working trainer."""
    some = tiny.cases(count)
    encoded = [dataclasses.replace(c, prompt=(*c.prompt, 100 + c.label)) for c in some.encoded]
    return make_cases(tiny.SINGLE, encoded)


def run(
    a_recipe,
    folder,
    some=None,
    emit=lambda e: None,
    choice=None,
    architecture="llama",
    dense=True,
    valid=None,
    **training,
):
    """(best adapters, progress, the model, its prefix) of a training, validated on its own cases if no others are given."""
    own_result = tiny.adapted(architecture, 4, dense, a_recipe)
    prefix = tiny.no_store(own_result, some or separable())
    splits = Splits(prefix, tiny.no_store(own_result, valid) if valid else prefix)
    best, progress = train(own_result, experiment(a_recipe, **training), splits, folder, emit, choice)
    return best, progress, own_result, prefix


@pytest.mark.parametrize("make", [tiny.recipe, tiny.safety])
def test_a_planted_separable_set_is_learned_and_does_not_collapse(make, tmp_path):
    a_recipe = make(iterations=80, batch_size=6, learning_rate=1e-2)
    _, _, own_result, prefix = run(a_recipe, tmp_path, separable(12), evaluate_every=80)
    answers = score_cases(own_result, prefix).label_logp.argmax(axis=1)
    assert (answers == prefix.cases.labels).mean() > 0.95


def test_a_killed_and_resumed_run_equals_one_that_never_stopped(tmp_path):
    a_recipe = tiny.safety(dropout=0.1, iterations=6)
    whole, progress, *_ = run(a_recipe, tmp_path / "whole")

    with pytest.raises(tiny.Killed):
        run(a_recipe, tmp_path / "killed", emit=tiny.die_at(6))

    assert [p.name for p in (tmp_path / "killed/checkpoint").iterdir() if p.is_dir()] == ["0000004"]
    resumed, again, *_ = run(a_recipe, tmp_path / "killed")
    assert all((np.array(whole[k]) == np.array(resumed[k])).all() for k in whole)
    strip = [dataclasses.replace(point, tokens_per_second=None) for point in progress.curve]
    assert strip == [dataclasses.replace(point, tokens_per_second=None) for point in again.curve]


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(recipe, folder, best adapters) of a training that has ended."""
    a_recipe = tiny.recipe(dropout=0.1, iterations=4)
    folder = tmp_path_factory.mktemp("ended")
    return a_recipe, folder, run(a_recipe, folder)[0]


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    """The best adapters of a training by a safety recipe."""
    return run(tiny.safety(), tmp_path_factory.mktemp("safe"))[0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, flipped) for name in ("state.safetensors", "best.safetensors", "progress.json", "manifest.json")),
        ("state.safetensors", lambda content: content[:-100]),
        ("manifest.json", lambda content: b""),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_the_training_ends_the_same(damage, name, ended, tmp_path):
    a_recipe, folder, whole = ended
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damaged = next((tmp_path / "checkpoint").glob(f"*/{name}"))
    damaged.write_bytes(damage(damaged.read_bytes()))
    events = []
    again, *_ = run(a_recipe, tmp_path, emit=events.append)
    assert all((np.array(whole[k]) == np.array(again[k])).all() for k in whole)
    assert any(isinstance(e, StepWarning) and "The checkpoint of update 4" in e.message for e in events)


def test_a_resumed_run_keeps_the_largest_peak_of_all_its_processes():
    for before in (1, 1 << 60):
        progress = Progress(peak_memory_bytes=before, peak_rss_bytes=before)
        progress.keep_peaks()
        assert (progress.peak_memory_bytes == before) == (progress.peak_rss_bytes == before) == (before > 1)


@pytest.mark.parametrize(
    "change",
    [
        {"cost_matrix": tiny.COST | {"GP": tiny.COST["GP"] | {"HOME": 7}}},
        {"class_weights": tiny.WEIGHTS | {"GP": 3.0}},
        {"cost_weight": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_costs_and_weights_of_a_recipe_reach_the_adapter_that_is_trained(change, safe, tmp_path):
    """The defect of an earlier attempt: the cost matrix was read and never reached the loss."""
    other = run(tiny.safety(**change), tmp_path)[0]
    assert tiny.largest_difference(tiny.flat(other), tiny.flat(safe)) > 1e-6


def test_the_same_training_twice_ends_with_the_same_bits(safe, tmp_path):
    again = run(tiny.safety(), tmp_path)[0]
    assert all((np.array(again[k]) == np.array(safe[k])).all() for k in safe)


def test_the_best_adapter_is_kept_not_the_last(tmp_path):
    a_recipe = tiny.recipe(iterations=40, learning_rate=5e-2, batch_size=4)
    adapted = tiny.adapted("llama", 4, True, a_recipe)
    # It is validated on other cases, so that it overfits.
    learned, validated = (tiny.no_store(adapted, tiny.cases(9, seed=seed)) for seed in (0, 1))
    best, progress = train(adapted, experiment(a_recipe), Splits(learned, validated), tmp_path, lambda event: None)
    assert progress.best_update < progress.update, "else this shows nothing"

    optimizer = make_optimizer(experiment(a_recipe))
    stored, _ = restore_checkpoint(tmp_path / "checkpoint", adapted, optimizer, lambda event: None)
    assert all((np.array(best[name]) == np.array(stored[name])).all() for name in best)

    adapted.stack.model.load_weights(list(best.items()), strict=False)
    objective = make_objective(a_recipe, learned.cases.labels)
    value, _ = validation_value(score_cases(adapted, validated), validated.cases, objective)
    assert value == pytest.approx(progress.best_value, rel=1e-6)
    values = {p.iteration: p.loss for p in progress.curve if p.split == "valid"}
    assert progress.best_value == min(values.values()) and values[progress.best_update] == progress.best_value


def test_a_recipe_may_keep_the_adapter_of_the_highest_macro_f1():
    by_loss = Progress()
    by_macro_f1 = Progress()
    for update, value, macro_f1 in ((1, 0.2, 0.3), (2, 0.3, 0.5), (3, 0.29, 0.5), (4, 0.1, 0.4)):
        by_loss.update = by_macro_f1.update = update
        by_loss.note_validation(value)
        by_macro_f1.note_validation(value, macro_f1)

    assert (by_loss.best_update, by_loss.best_value) == (4, 0.1)
    assert (by_macro_f1.best_update, by_macro_f1.best_value, by_macro_f1.best_macro_f1) == (3, 0.29, 0.5)


def test_selection_by_macro_f1_evaluates_that_of_valid(tmp_path):
    some = tiny.cases(9)
    recipe = tiny.recipe(iterations=12, learning_rate=5e-2, batch_size=4, select_by="macro_f1")
    best, progress, adapted, prefix = run(recipe, tmp_path, some=some)
    adapted.stack.model.load_weights(list(best.items()), strict=False)
    answers = score_cases(adapted, prefix).label_logp.argmax(axis=1)
    expected = f1_score(some.labels, answers, labels=[0, 1, 2], average="macro", zero_division=0)
    assert progress.best_macro_f1 == pytest.approx(expected)


def test_evaluation_cadence_does_not_change_the_training(tmp_path):
    a_recipe = tiny.recipe(dropout=0.1, iterations=6)
    ends = []
    for cadence in (2, 3, 6):
        run_ = run(a_recipe, tmp_path / str(cadence), evaluate_every=cadence)
        ends.append({k: np.array(v) for k, v in tiny.flat(run_[2].stack.model.trainable_parameters()).items()})
    assert all((ends[0][k] == other[k]).all() for other in ends[1:] for k in ends[0])


def test_nan_stops_the_run_with_the_last_good_checkpoint_kept(tmp_path):
    a_recipe = tiny.recipe(iterations=6)
    own_result = tiny.adapted("llama", 4, True, a_recipe)
    some = separable()
    prefix = tiny.no_store(own_result, some)

    def poison(event):
        if isinstance(event, TrainingReport) and event.iteration == 4:
            own_result.stack.model.model.norm.weight = own_result.stack.model.model.norm.weight * mx.array(float("nan"))

    with pytest.raises(Diverged, match="update"):
        train(own_result, experiment(a_recipe, evaluate_every=2), Splits(prefix, prefix), tmp_path, poison)

    assert [p.name for p in (tmp_path / "checkpoint").iterdir() if p.is_dir()] == ["0000002"]


def test_every_case_is_seen_once_an_epoch_and_the_order_depends_on_seed_and_epoch_alone():
    some = tiny.cases(23)
    first = epoch_batches(some, 4, 42, 0)
    assert sorted(c for b in first for c in b) == list(range(23))
    assert first == epoch_batches(some, 4, 42, 0) != epoch_batches(some, 4, 42, 1)
    stream = training_batches(some, 4, 42, 0)
    ahead = [next(stream) for _ in range(15)]
    resumed = training_batches(some, 4, 42, 8)
    assert [next(resumed) for _ in range(7)] == ahead[8:]
    assert sorted(c for b in sorted_batches(some, 200) for c in b) == list(range(23))
    assert padding_share(some, [[0]]) < 0.3


def test_padding_is_counted_where_it_is_computed_which_the_common_instruction_is_not():
    short, long = (tiny.cases(2, shared=shared) for shared in (6, 46))
    lengths = [len(row.inputs) - 6 for row in short.rows]
    padded = -(-(max(lengths) + 6) // 8) * 8 - 6
    assert padding_share(short, [[0, 1]]) == pytest.approx(1 - sum(lengths) / 2 / padded)
    assert padding_share(long, [[0, 1]]) == padding_share(short, [[0, 1]])


@pytest.mark.parametrize(
    ("decay", "middle", "last"), [("none", 1, 1), ("linear", 0.5, 1 / 90), ("cosine", 0.5, 3.05e-4)]
)
def test_the_rate_rises_over_the_first_tenth_and_then_falls_as_the_grid_says_counted_in_updates(decay, middle, last):
    spec = experiment(tiny.recipe(learning_rate=0.5, iterations=100, batch_size=3), decay=decay)
    rates = [2 * learning_rate(spec, u) for u in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (u + 1) for u in range(10)]) and rates[10] == 1
    assert rates[55] == pytest.approx(middle) and rates[99] == pytest.approx(last, rel=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


def test_a_clipped_gradient_keeps_its_direction_and_a_short_one_is_left_alone():
    gradients = {"a": mx.array([3.0, 0.0]), "b": {"c": mx.array([[4.0]])}}
    same, norm = clip_gradients(gradients, 5.1)
    assert norm == 5 and same is gradients and clip_gradients(gradients, None)[0] is gradients
    short, norm = clip_gradients(gradients, 1.0)
    assert norm == 5 and short["a"].tolist() == pytest.approx([0.6, 0]) and short["b"]["c"].item() == pytest.approx(0.8)


def test_clipping_and_decay_change_the_training(tmp_path):
    a_recipe = tiny.recipe(learning_rate=1e-2)
    ends = [run(a_recipe, tmp_path / str(i), **kind)[1].curve[-1].loss for i, kind in enumerate(
        ({}, {"max_gradient_norm": 1e-12}, {"decay": "cosine"})
    )]  # fmt: skip
    assert len(set(ends)) == 3


def test_an_exploding_gradient_stops_the_run_with_the_last_good_checkpoint_kept(tmp_path, monkeypatch):
    exploding = step.update_gradients

    def explode(*args):
        loss, parts, gradients = exploding(*args)
        return loss, parts, tree_map(lambda g: g * 1e12, gradients) if (tmp_path / "checkpoint").exists() else gradients

    monkeypatch.setattr(step, "update_gradients", explode)
    with pytest.raises(Diverged, match="The gradient's norm became .* at update 3"):
        run(tiny.recipe(iterations=6), tmp_path)

    assert [p.name for p in (tmp_path / "checkpoint").iterdir() if p.is_dir()] == ["0000002"]


def test_patience_stops_after_evaluations_that_are_no_better_and_again_when_resumed(tmp_path):
    a_recipe = tiny.recipe(iterations=60, learning_rate=1e-30, batch_size=4)
    run_ = lambda: run(a_recipe, tmp_path, some=tiny.cases(9), patience=3)[1]  # noqa: E731
    stopped = run_()
    again = run_()
    later = [p.iteration for p in stopped.curve if p.split == "valid" and p.iteration > stopped.best_update]
    assert len(later) == 3 and stopped.update == later[-1] < 60 and again.update == stopped.update
