"""The safety loss reaches the gradients, does what its formula says, and neither explodes nor collapses."""

from dataclasses import replace
from itertools import permutations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tasks.spec import LABELS
from tasks.tuning.data import effective_batch
from tasks.tuning.loss import LossTerms, make_objective, objective_sum
from tasks.tuning.step import update_gradients
from tests.tuning import tiny

CHOSEN = [0, 1, 2, 3]


def gradients_of(a_recipe, chosen=CHOSEN, some=None):
    return tiny.gradients(tiny.adapted("llama", 4, True, a_recipe), some or tiny.cases(6), a_recipe, chosen)


def flat_costs(value):
    return {t: dict.fromkeys(LABELS, value) for t in LABELS}


def test_the_objective_equals_its_formula_and_finite_differences():
    rng = np.random.default_rng(3)
    labels = np.array([0, 1, 2, 0], np.int32)
    objective = make_objective(tiny.safety(cost_weight=2.0), np.array([0, 1, 1, 2, 2, 2]))
    x = rng.normal(size=(4, 3)).astype(np.float32)

    def loss(logp):
        label = -mx.take_along_axis(logp, mx.array(labels)[:, None], axis=1)[:, 0]
        return objective_sum(LossTerms(label, mx.zeros(4), logp), labels, objective, 12, 4)[0]

    def by_hand(v):
        q = np.exp(v) / np.exp(v).sum(axis=1, keepdims=True)
        share = np.array([1, 2, 3]) / 6
        weights = np.array([5, 2, 1]) / (share @ [5, 2, 1])
        matrix = np.array([[1, 100, 100], [2, 1, 10], [2, 3, 1]], float)
        cost = (matrix - 1) / 99
        ce = -(weights[labels] * v[np.arange(4), labels]).sum() / 12
        return ce + 2.0 * (q * cost[labels]).sum() / 4

    assert loss(mx.array(x)).item() == pytest.approx(by_hand(x.astype(float)), rel=1e-5)
    gradient = np.array(mx.grad(loss)(mx.array(x)))

    for i, j in np.ndindex(4, 3):
        up = x.astype(float)
        down = x.astype(float)
        up[i, j] += 1e-4
        down[i, j] -= 1e-4
        assert gradient[i, j] == pytest.approx((by_hand(up) - by_hand(down)) / 2e-4, abs=1e-4)


@pytest.mark.parametrize("template", [tiny.SINGLE, tiny.MULTI])
def test_the_cost_reaches_every_lora_tensor_as_finite_differences_say(template):
    """The whole way: costs, softmax over the labels, head, blocks, LoRA. In float32, so the largest entry of each."""
    a_recipe = tiny.safety(cost_weight=20.0)
    some = tiny.cases(6, template)
    adapted = tiny.adapted("llama", 4, True, a_recipe)
    objective = make_objective(a_recipe, some.labels)
    prefix = tiny.no_store(adapted, some)

    def computed(weight):
        weighted = replace(objective, cost_weight=weight)
        batch = effective_batch(some, CHOSEN, len(CHOSEN), None)
        return update_gradients(adapted, prefix, batch, weighted)

    with_cost, without = (tiny.flat(computed(weight)[2]) for weight in (20.0, 0.0))
    for name, value in tree_flatten(adapted.stack.model.trainable_parameters()):
        gradient = with_cost[name] - without[name]
        start = np.array(value)

        for at in np.argsort(-np.abs(gradient), axis=None)[:1]:
            costs = []
            for step in (5e-3, -5e-3):
                moved = start.copy()
                moved.flat[at] += step
                adapted.stack.model.load_weights([(name, mx.array(moved))], strict=False)
                costs.append(computed(20.0)[1][2].item())
            adapted.stack.model.load_weights([(name, mx.array(start))], strict=False)
            assert gradient.flat[at] == pytest.approx((costs[0] - costs[1]) / 1e-2, rel=0.02, abs=1e-4)


def test_a_constant_matrix_with_unit_weights_is_exactly_the_plain_loss():
    plain = gradients_of(tiny.recipe())
    constant = gradients_of(tiny.safety(cost_matrix=flat_costs(7), class_weights=dict.fromkeys(LABELS, 1)))
    assert constant[0] == plain[0]
    assert all((constant[2][k] == plain[2][k]).all() for k in plain[2])


def test_any_changed_cost_reaches_the_gradient_of_a_batch_with_its_row():
    before = gradients_of(tiny.safety())
    for truth, decision in permutations(LABELS, 2):
        changed = {t: dict(row) for t, row in tiny.COST.items()}
        changed[truth][decision] += 5
        after = gradients_of(tiny.safety(cost_matrix=changed))
        assert tiny.largest_difference(after[2], before[2]) > 1e-5, (truth, decision)


def test_class_weights_survive_a_batch_of_two_cases_of_one_class():
    weighted = gradients_of(tiny.safety(cost_weight=0.0), chosen=[0, 3])
    plain = gradients_of(tiny.recipe(), chosen=[0, 3])
    share = np.array([2, 2, 2]) / 6
    weight = 5 / (share @ np.array([5, 2, 1]))
    assert weighted[1][0] == pytest.approx(weight * plain[1][0], rel=1e-5)


@pytest.mark.parametrize("template", [tiny.SINGLE, tiny.MULTI])
def test_labels_of_several_tokens_are_scored_to_their_full_length_in_the_cost(template):
    some = tiny.cases(6, template)
    with_cost = gradients_of(tiny.safety(), some=some)
    without = gradients_of(tiny.safety(cost_weight=0.0), some=some)
    assert with_cost[1][2] > 0 and without[1][2] == 0
    assert with_cost[1][:2] == pytest.approx(without[1][:2], rel=1e-6)
    model = tiny.adapted("llama", 4, True, tiny.safety()).stack.model
    cost = 0.0
    for case in (some.encoded[number] for number in CHOSEN):
        logp = []
        for completion, length in zip(template.completions, template.label_lengths, strict=True):
            logits = model(mx.array([case.prompt + completion]))[0, len(case.prompt) - 1 :]
            tokens = zip(logits, completion[:length], strict=False)
            logp.append(sum((row - mx.logsumexp(row))[token].item() for row, token in tokens))
        q = np.exp(logp) / np.exp(logp).sum()
        cost += q @ make_objective(tiny.safety(), some.labels).costs[case.label] / len(CHOSEN)
    assert with_cost[1][2] == pytest.approx(tiny.safety().cost_weight * cost, rel=1e-3)
