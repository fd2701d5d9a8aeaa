"""Our loss and gradients are those of stock mlx-lm, and no short cut of ours changes them."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from tasks.precisions import BUILT_IN
from tasks.runtime.errors import BadInput
from tasks.tuning.activations import PrefixStore, open_prefix
from tasks.tuning.lora import KeyedDropout
from tasks.tuning.model import take_apart
from tasks.tuning.step import score_cases
from tests.tuning import tiny

BOTH = pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])


@BOTH
@pytest.mark.parametrize("precision", BUILT_IN.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("dense", [False, True])
def test_loss_and_every_lora_gradient_equal_stock_mlx_lm(architecture, precision, dense):
    packed = tiny.adapted(architecture, precision, dense=False)
    some = tiny.cases(4, stock_mask=True)
    oracle = tiny.stock(packed, some, [0, 1, 2, 3])
    loss, _, gradients = tiny.gradients(tiny.adapted(architecture, precision, dense=dense), some)
    assert abs(loss - oracle.loss) <= 1e-5 * abs(oracle.loss)
    assert tiny.largest_difference(gradients, oracle.gradients) <= 1e-5


def test_a_sliding_window_shorter_than_the_prompts_is_part_of_that_agreement():
    packed, own_result = (tiny.adapted("gemma3_text", 4, dense=dense) for dense in (False, True))
    some = tiny.cases(4, stock_mask=True)
    assert min(row.first for row in some.rows) > 16 and set(own_result.stack.windows) == {16, None}
    oracle = tiny.stock(packed, some, [0, 1, 2, 3])
    assert tiny.largest_difference(tiny.gradients(own_result, some, micro=2)[2], oracle.gradients) <= 1e-5
    endless = replace(own_result, stack=replace(own_result.stack, windows=(None,) * own_result.stack.depth))
    assert tiny.largest_difference(tiny.gradients(endless, some, micro=2)[2], oracle.gradients) > 1e-3


def test_a_model_class_that_the_engine_does_not_know_is_refused_by_name():
    model, _ = tiny.base_model("llama")
    model.model_type = "qwen3"
    with pytest.raises(BadInput, match="'qwen3' is not supported; supported are llama and gemma3_text"):
        take_apart(model)


@BOTH
@pytest.mark.parametrize(
    ("bits", "dense", "dropout", "template"),
    [
        (4, True, 0.0, tiny.SINGLE),
        (4, True, 0.0, tiny.MULTI),
        (4, True, 0.1, tiny.SINGLE),
        (4, True, 0.1, tiny.MULTI),
        (8, True, 0.1, tiny.SINGLE),
        (4, False, 0.1, tiny.SINGLE),
        (8, False, 0.1, tiny.SINGLE),
    ],
)
def test_the_micro_batch_changes_nothing(architecture, bits, dense, dropout, template):
    a_recipe = tiny.safety(dropout=dropout)
    own_result = tiny.adapted(architecture, bits, dense, a_recipe)
    some = tiny.cases(4, template)
    whole, *parts = (tiny.gradients(own_result, some, a_recipe, micro=micro, key=(42, 7)) for micro in (4, 2, 1))
    for loss, _, gradients in parts:
        assert abs(loss - whole[0]) < 1e-5
        assert tiny.largest_difference(gradients, whole[2]) <= 1e-5


@BOTH
def test_the_frozen_prefix_changes_neither_gradients_nor_scores(architecture, tmp_path):
    own_result = tiny.adapted(architecture, 4, True)
    some = tiny.cases(6)
    stored = open_prefix(own_result.stack, some, own_result.boundary, PrefixStore(tmp_path, "weights"))
    assert stored.own_hidden is not None and some.leading == 6
    plain = tiny.no_store(own_result, some)
    with_store, without = (tiny.gradients(own_result, some, chosen=[0, 3, 5], prefix=p)[2] for p in (stored, plain))
    assert tiny.largest_difference(with_store, without) <= 1e-5
    np.testing.assert_allclose(
        score_cases(own_result, stored).label_logp, score_cases(own_result, plain).label_logp, atol=1e-5
    )


@BOTH
@pytest.mark.parametrize("template", [tiny.SINGLE, tiny.MULTI])
def test_scores_equal_a_full_forward_pass_of_the_stock_model(architecture, template):
    own_result = tiny.adapted(architecture, 4, True)
    some = tiny.cases(5, template)
    scores = score_cases(own_result, tiny.no_store(own_result, some), tokens_at_once=100)

    for i, case in enumerate(some.encoded):
        for label in range(3):
            completion = template.completions[label]
            tokens = mx.array([case.prompt + completion])
            logp = own_result.stack.model(tokens) - mx.logsumexp(own_result.stack.model(tokens), axis=-1, keepdims=True)
            start = len(case.prompt) - 1
            expected = sum(logp[0, start + k, completion[k]].item() for k in range(template.label_lengths[label]))
            assert scores.label_logp[i, label] == pytest.approx(expected, abs=2e-4)
            if label == case.label:
                whole = sum(logp[0, start + k, token].item() for k, token in enumerate(completion))
                assert scores.label_loss[i] + scores.other_loss[i] == pytest.approx(-whole, abs=2e-4)


def test_dropout_differs_between_updates_and_is_off_without_keys():
    a_recipe = tiny.recipe(dropout=0.1)
    own_result = tiny.adapted("llama", 4, True, a_recipe)
    some = tiny.cases(4)

    def loss(key):
        return tiny.gradients(own_result, some, a_recipe, [0, 1], key=key)[0]

    assert loss((42, 0)) == loss((42, 0)) != loss((42, 1))
    assert loss(None) == loss(None) != loss((42, 0))


def test_dropout_drops_the_share_that_it_names_scales_the_rest_and_follows_from_the_keys_in_every_layout():
    module = KeyedDropout(0.25, (1, 2), 64, "self_attn.q_proj")
    ones = mx.ones((2, 200, 64))
    assert mx.array_equal(module(ones), ones).item(), "off without keys"
    module.set_keys([(7,), (8,)])
    dropped = np.array(module(ones))
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert np.unique(dropped) == pytest.approx([0, 4 / 3]) and (dropped[0] != dropped[1]).any()
    module.set_keys([(8,), (9,)], ((7,), 200))
    joined = np.array(module(mx.ones((600, 64))))
    assert (joined[:400].reshape(2, 200, 64) == dropped).all()
