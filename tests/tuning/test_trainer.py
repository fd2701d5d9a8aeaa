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
from tasks.runtime.events import StepWarning
from tasks.tuning import step
from tasks.tuning.checkpoint import Progress, restore_checkpoint
from tasks.tuning.data import epoch_batches, make_cases, padding_share, sorted_batches, training_batches
from tasks.tuning.job import TrainingRun
from tasks.tuning.loss import make_objective
from tasks.tuning.step import clip_gradients, learning_rate, make_optimizer, score_cases, validation_value
from tests.tuning import tiny


def separable(count=12):
    """Cases whose last prompt token names the label: learnable by any working trainer."""
    encoded = [dataclasses.replace(c, prompt=(*c.prompt, 100 + c.label)) for c in tiny.cases(count).encoded]
    return make_cases(tiny.SINGLE, encoded)


def run(a_recipe, folder, **values) -> TrainingRun:
    return tiny.train(a_recipe, folder, separable(), **values)


def checkpoints(folder):
    return [path.name for path in (folder / "checkpoint").iterdir() if path.is_dir()]


def without_speed(curve):
    return [dataclasses.replace(point, tokens_per_second=None) for point in curve]


def test_a_planted_separable_set_is_learned_and_does_not_collapse(tmp_path):
    a_recipe = tiny.safety(iterations=60, batch_size=6, learning_rate=1e-2)
    training = run(a_recipe, tmp_path, evaluate_every=60)
    answers = score_cases(training.adapted, training.train).label_logp.argmax(axis=1)
    assert (answers == training.train.cases.labels).mean() > 0.95


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(recipe, folder, training) that has run without a stop, with dropout."""
    a_recipe = tiny.safety(dropout=0.1, iterations=6)
    folder = tmp_path_factory.mktemp("whole")
    return a_recipe, folder, run(a_recipe, folder)


def test_a_killed_and_resumed_run_equals_one_that_never_stopped(whole, tmp_path):
    a_recipe, _, training = whole
    with pytest.raises(tiny.Killed):
        run(a_recipe, tmp_path, emit=tiny.die_at(6))

    assert checkpoints(tmp_path) == ["0000004"]
    resumed = run(a_recipe, tmp_path)
    assert tiny.same_bits(training.best, resumed.best)
    assert without_speed(training.progress.curve) == without_speed(resumed.progress.curve)
    for before in (1, 1 << 60):  # the largest peak of all its processes is kept
        progress = Progress(peak_memory_bytes=before, peak_rss_bytes=before)
        progress.keep_peaks()
        assert (progress.peak_memory_bytes == before) == (progress.peak_rss_bytes == before) == (before > 1)


def test_evaluation_cadence_does_not_change_the_training_and_the_same_one_twice_has_the_same_bits(whole, tmp_path):
    a_recipe, _, training = whole
    other = run(a_recipe, tmp_path, evaluate_every=6)
    ends = [one.adapted.stack.model.trainable_parameters() for one in (training, other)]
    assert tiny.same_bits(*map(tiny.flat, ends))


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, flipped) for name in ("state.safetensors", "progress.json")),
        ("manifest.json", lambda content: b""),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_the_training_ends_the_same(damage, name, whole, tmp_path):
    a_recipe, folder, training = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damaged = next((tmp_path / "checkpoint").glob(f"*/{name}"))
    damaged.write_bytes(damage(damaged.read_bytes()))
    events = []
    assert tiny.same_bits(training.best, run(a_recipe, tmp_path, emit=events.append).best)
    assert any(isinstance(e, StepWarning) and "checkpoint/0000006 is damaged" in e.message for e in events)


def test_the_best_adapter_is_kept_not_the_last(tmp_path):
    a_recipe = tiny.recipe(iterations=40, learning_rate=5e-2)
    # It is validated on other cases, so that it overfits.
    learned, validated = (tiny.cases(9, seed=seed) for seed in (0, 1))
    training = tiny.train(a_recipe, tmp_path, learned, validated, evaluate_every=4)
    progress = training.progress
    assert progress.best_update < progress.update, "else this shows nothing"

    adapted = training.adapted
    optimizer = make_optimizer(training.spec)
    stored, _ = restore_checkpoint(tmp_path / "checkpoint", adapted, optimizer, lambda event: None)
    assert tiny.same_bits(training.best, stored)

    adapted.stack.model.load_weights(list(training.best.items()), strict=False)
    objective = make_objective(a_recipe, learned.labels)
    value, _ = validation_value(score_cases(adapted, training.valid), validated, objective)
    assert value == pytest.approx(progress.best_value, rel=1e-6)
    values = {p.iteration: p.loss for p in progress.curve if p.split == "valid"}
    assert progress.best_value == min(values.values()) and values[progress.best_update] == progress.best_value


def test_a_recipe_may_keep_the_adapter_of_the_highest_macro_f1_of_valid(tmp_path):
    by_loss = Progress()
    by_macro_f1 = Progress()
    for update, value, macro_f1 in ((1, 0.2, 0.3), (2, 0.3, 0.5), (3, 0.29, 0.5), (4, 0.1, 0.4)):
        by_loss.update = by_macro_f1.update = update
        by_loss.note_validation(value)
        by_macro_f1.note_validation(value, macro_f1)

    assert (by_loss.best_update, by_loss.best_value) == (4, 0.1)
    assert (by_macro_f1.best_update, by_macro_f1.best_value, by_macro_f1.best_macro_f1) == (3, 0.29, 0.5)

    some = tiny.cases(9)
    training = tiny.train(tiny.recipe(iterations=6, learning_rate=5e-2, select_by="macro_f1"), tmp_path, some)
    training.adapted.stack.model.load_weights(list(training.best.items()), strict=False)
    answers = score_cases(training.adapted, training.valid).label_logp.argmax(axis=1)
    expected = f1_score(some.labels, answers, labels=[0, 1, 2], average="macro", zero_division=0)
    assert training.progress.best_macro_f1 == pytest.approx(expected)


@pytest.mark.parametrize(("factor", "words"), [(1e12, "gradient's norm became"), (float("nan"), "became nan")])
def test_an_exploding_gradient_or_nan_stops_the_run_at_the_last_good_checkpoint(factor, words, tmp_path, monkeypatch):
    exploding = step.update_gradients

    def explode(*args):
        loss, parts, gradients = exploding(*args)
        by = factor if (tmp_path / "checkpoint").exists() else 1.0
        return loss * (by if np.isnan(by) else 1.0), parts, tree_map(lambda g: g * by, gradients)

    monkeypatch.setattr(step, "update_gradients", explode)
    with pytest.raises(Diverged, match=f"{words}.* at update 3"):
        run(tiny.recipe(iterations=6), tmp_path)

    assert checkpoints(tmp_path) == ["0000002"]


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
    short, long = (tiny.cases(2, shared=shared) for shared in (6, 46))
    lengths = [len(row.inputs) - 6 for row in short.rows]
    padded = -(-(max(lengths) + 6) // 8) * 8 - 6
    assert padding_share(short, [[0, 1]]) == pytest.approx(1 - sum(lengths) / 2 / padded)
    assert padding_share(long, [[0, 1]]) == padding_share(short, [[0, 1]]), "the common instruction is not padded"


@pytest.mark.parametrize(
    ("decay", "middle", "last"), [("none", 1, 1), ("linear", 0.5, 1 / 90), ("cosine", 0.5, 3.05e-4)]
)
def test_the_rate_rises_over_the_first_tenth_and_then_falls_as_the_grid_says_counted_in_updates(decay, middle, last):
    spec = tiny.experiment(tiny.recipe(learning_rate=0.5, iterations=100, batch_size=3), decay=decay)
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


CHANGES = {
    "cost_matrix": {"cost_matrix": tiny.COST | {"GP": tiny.COST["GP"] | {"HOME": 7}}},
    "class_weights": {"class_weights": tiny.WEIGHTS | {"GP": 3.0}},
    "cost_weight": {"cost_weight": 2.0},
    "max_gradient_norm": {"training": {"max_gradient_norm": 1e-12}},
    "decay": {"training": {"decay": "cosine"}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_settings_of_a_recipe_and_of_a_grid_reach_the_adapter_that_is_trained(name, whole, tmp_path):
    """The defect of an earlier attempt: the cost matrix was read and never reached the loss."""
    a_recipe, _, training = whole
    changes = dict(CHANGES[name])
    grid = changes.pop("training", {})
    changed = run(a_recipe.model_copy(update=changes), tmp_path, **grid)
    assert tiny.largest_difference(*(tiny.flat(one.best) for one in (changed, training))) > 1e-6


def test_patience_stops_after_evaluations_that_are_no_better_and_again_when_resumed(tmp_path):
    a_recipe = tiny.recipe(iterations=60, learning_rate=1e-30)
    stopped, again = (tiny.train(a_recipe, tmp_path, tiny.cases(9), patience=3).progress for _ in range(2))
    later = [p.iteration for p in stopped.curve if p.split == "valid" and p.iteration > stopped.best_update]
    assert len(later) == 3 and stopped.update == later[-1] < 60 and again.update == stopped.update
    assert np.isfinite(stopped.best_value)
