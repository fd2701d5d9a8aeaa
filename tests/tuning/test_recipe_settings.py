"""What a recipe may set beyond the protocol does what it says, on every path, and is resumed exactly."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tasks.tuning import job
from tasks.tuning.data import drawn_counts, epoch_batches, make_cases, training_batches
from tasks.tuning.loss import LossTerms, make_objective, objective_sum
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.step import make_optimizer
from tests.tuning import tiny
from tests.tuning.traced import traced_graphs

SETTINGS = {"lora_plus": 4, "label_weight": 3.0, "label_smoothing": 0.2, "sampling": "square_root"}


def uneven(template=tiny.SINGLE, counts=(2, 9, 1)):
    some = tiny.cases(sum(counts), template)
    labels = np.repeat(range(3), counts).tolist()
    encoded = [replace(case, label=label) for case, label in zip(some.encoded, labels, strict=True)]
    return make_cases(template, encoded)


def by_hand(adapted, some, chosen, template, recipe) -> tuple[float, float]:
    """The label's and the other part of the loss, from the whole model's logits, in float64."""
    label_part = 0.0
    other_part = 0.0
    tokens = 0
    for number in chosen:
        case = some.encoded[number]
        label_logp = []
        for label, (completion, length) in enumerate(zip(template.completions, template.label_lengths, strict=True)):
            inputs = mx.array([[*case.prompt, *completion[:-1]]])
            logits = np.array(adapted.stack.model(inputs)[0, len(case.prompt) - 1 :].astype(mx.float32), np.float64)
            logp = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
            logp -= logits.max(1, keepdims=True)
            of_tokens = logp[range(len(completion)), completion]
            label_logp.append(of_tokens[:length].sum())
            if label == case.label:
                other_part -= of_tokens[length:].sum()
                tokens += len(completion)

        e = recipe.label_smoothing
        label_part += recipe.label_weight * (-(1 - e) * label_logp[case.label] - e * np.mean(label_logp))

    return label_part / tokens, other_part / tokens


@pytest.mark.parametrize(
    ("architecture", "dense", "template"),
    [("llama", False, tiny.MULTI), ("gemma3_text", True, tiny.SINGLE)],
)
def test_smoothing_and_the_labels_weight_equal_the_formula_on_the_whole_models_logits(architecture, dense, template):
    recipe = tiny.recipe(label_weight=3.0, label_smoothing=0.2)
    adapted = tiny.adapted(architecture, 4, dense, recipe)
    some = tiny.cases(6, template)

    for micro_batch in (4, 3):
        loss, parts, _ = tiny.gradients(adapted, some, recipe, [0, 1, 2, 4], micro_batch)
        label, other = by_hand(adapted, some, [0, 1, 2, 4], template, recipe)
        assert parts == pytest.approx([label, other, 0], rel=2e-4)
        assert loss == pytest.approx(label + other, rel=2e-4)


def test_the_gradient_of_the_smoothed_loss_is_that_of_finite_differences_and_it_vanishes_at_the_smoothed_target():
    labels = np.array([0, 2], np.int32)
    objective = make_objective(tiny.recipe(label_weight=2.0, label_smoothing=0.3), labels)

    def loss(logits):
        logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        label = -mx.take_along_axis(logp, mx.array(labels)[:, None], axis=1)[:, 0]
        return objective_sum(LossTerms(label, mx.zeros(2), logp), labels, objective, 2, 2)[0]

    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    gradient = np.array(mx.grad(loss)(mx.array(x)))
    for at in np.ndindex(2, 3):
        up = x.copy()
        down = x.copy()
        up[at] += 1e-2
        down[at] -= 1e-2
        assert gradient[at] == pytest.approx((loss(mx.array(up)) - loss(mx.array(down))).item() / 2e-2, abs=1e-3)

    target = np.full((2, 3), 0.1)
    target[[0, 1], labels] = 0.8
    assert np.abs(np.array(mx.grad(loss)(mx.log(mx.array(target))))).max() < 1e-6


def adamw(values, gradients, rates, decay):
    """AdamW in float64: the values after each gradient's update."""
    m = v = np.zeros_like(values)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        values = values - rate * (update + decay * values)
    return values


def test_lora_plus_is_adamw_with_a_higher_rate_for_b_alone():
    rng = np.random.default_rng(1)
    names = [f"model.layers.{i}.self_attn.q_proj.lora_{factor}" for i in (2, 3) for factor in "ab"]
    start = {name: rng.normal(size=(3, 2)) for name in names}
    gradients = [{name: rng.normal(size=(3, 2)) for name in names} for _ in range(4)]
    rates = [1e-2, 3e-2, 2e-2, 1e-3]

    def tree(values):
        return tree_unflatten([(name, mx.array(value.astype(np.float32))) for name, value in values.items()])

    optimizer = make_optimizer(tiny.experiment(tiny.recipe(lora_plus=16), weight_decay=0.1))
    outcome = tree(start)
    optimizer.init(outcome)

    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        outcome = optimizer.apply_gradients(tree(gradient), outcome)

    assert optimizer.learning_rate.item() == pytest.approx(rates[-1])
    for name, value in tree_flatten(outcome):
        ratio = 16 if name.endswith("b") else 1
        expected = adamw(start[name], [g[name] for g in gradients], [ratio * rate for rate in rates], 0.1)
        assert np.array(value) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("sampling", ["balanced", "square_root"])
def test_draws_follow_from_seed_and_epoch_alone_and_leave_no_case_of_a_label_behind(sampling):
    for kind, counts, expected in (
        ("natural", [200, 700, 100], [200, 700, 100]),
        ("balanced", [200, 700, 100], [334, 333, 333]),
        ("square_root", [200, 700, 100], [279, 523, 198]),
        ("balanced", [0, 7, 4], [0, 6, 5]),
    ):
        assert drawn_counts(np.array(counts), kind).tolist() == expected
    some = uneven(counts=(4, 25, 1))
    drawn = np.zeros(30, int)
    for epoch in range(7):
        batches = epoch_batches(some, 4, 42, epoch, sampling)
        assert batches == epoch_batches(some, 4, 42, epoch, sampling) != epoch_batches(some, 4, 43, epoch, sampling)
        flat = [number for batch in batches for number in batch]
        assert [len(batch) for batch in batches].count(4) == 7 and len(flat) == 30
        assert np.bincount(some.labels[flat]).tolist() == drawn_counts(np.array([4, 25, 1]), sampling).tolist()
        drawn += np.bincount(flat, minlength=30)

    assert all(np.ptp(drawn[some.labels == label]) <= 1 for label in range(3))
    stream = training_batches(some, 4, 42, 0, sampling)
    ahead = [next(stream) for _ in range(30)]
    resumed = training_batches(some, 4, 42, 11, sampling)
    assert [next(resumed) for _ in range(19)] == ahead[11:]
    objective = make_objective(tiny.safety(sampling="balanced"), np.array([0, 1, 1, 1, 2, 1]))
    assert objective.weights == pytest.approx(np.array([5, 2, 1]) / (8 / 3)), "a mean of one over what is drawn"


def trained(folder, template=tiny.SINGLE, iterations=6, emit=lambda event: None, choice=None, **settings):
    recipe = tiny.safety(dropout=0.1, iterations=iterations, **settings)
    model = tiny.adapted("llama", 4, False, recipe)
    values = {"valid": tiny.cases(4, template, seed=1), "max_gradient_norm": 0.5, "emit": emit, "choice": choice}
    training = tiny.train(recipe, folder, uneven(template), model=model, **values)
    return tiny.flat(training.best), [replace(point, tokens_per_second=None) for point in training.progress.curve]


@pytest.fixture(scope="module")
def without_settings(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("without"), iterations=2)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_reaches_the_adapter(name, without_settings, tmp_path):
    changed, _ = trained(tmp_path, iterations=2, **{name: SETTINGS[name]})
    assert tiny.largest_difference(changed, without_settings[0]) > 1e-4


def test_compiled_updates_with_all_settings_learn_the_same_and_resume_with_the_same_bits(tmp_path, monkeypatch):
    values = {"choice": MemoryChoice(3), "template": tiny.MULTI, **SETTINGS}
    plain, plain_curve = trained(tmp_path / "plain", **values)
    monkeypatch.setattr(job, "compiles", lambda: True)
    with traced_graphs():
        whole, curve = trained(tmp_path / "whole", **values)
        with pytest.raises(tiny.Killed):
            trained(tmp_path / "killed", emit=tiny.die_at(6), **values)
        resumed, resumed_curve = trained(tmp_path / "killed", **values)

    assert tiny.largest_difference(whole, plain) <= 1e-5
    assert [point.loss for point in curve] == pytest.approx([point.loss for point in plain_curve], rel=1e-5)
    assert tiny.same_bits(whole, resumed) and curve == resumed_curve
