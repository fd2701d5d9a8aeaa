"""Our loss and gradients are those of stock mlx-lm, and no short cut of ours changes them."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tasks.precisions import BUILT_IN
from tasks.runtime.errors import BadInput
from tasks.tuning.lora import KeyedDropout
from tasks.tuning.model import take_apart
from tasks.tuning.step import score_cases
from tests.tuning import tiny

BOTH = pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])


@BOTH
@pytest.mark.parametrize(("name", "dense"), [*((name, False) for name in BUILT_IN), ("4bit", True), ("nvfp4", True)])
def test_loss_and_every_lora_gradient_equal_stock_mlx_lm(architecture, name, dense):
    precision = BUILT_IN[name]
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
@pytest.mark.parametrize(("bits", "dense"), [(4, True), (8, False)])
def test_the_micro_batch_changes_nothing(architecture, bits, dense):
    a_recipe = tiny.safety(dropout=0.1)
    adapted = tiny.adapted(architecture, bits, dense, a_recipe)
    some = tiny.cases(4, tiny.MULTI)
    whole, part = (tiny.gradients(adapted, some, a_recipe, micro=micro, key=(42, 7)) for micro in (4, 3))
    assert abs(part[0] - whole[0]) < 1e-5
    assert tiny.largest_difference(part[2], whole[2]) <= 1e-5


@BOTH
def test_scores_equal_a_full_forward_pass_of_the_stock_model(architecture):
    adapted = tiny.adapted(architecture, 4, True)
    some = tiny.cases(5, tiny.MULTI)
    scores = score_cases(adapted, tiny.no_store(adapted, some), tokens_at_once=100)

    for i, case in enumerate(some.encoded):
        for label, (completion, length) in enumerate(
            zip(tiny.MULTI.completions, tiny.MULTI.label_lengths, strict=True)
        ):
            logits = adapted.stack.model(mx.array([case.prompt + completion]))[0, len(case.prompt) - 1 :]
            losses = nn.losses.cross_entropy(logits[: len(completion)], mx.array(completion))
            assert scores.label_logp[i, label] == pytest.approx(-losses[:length].sum().item(), abs=2e-4)
            if label == case.label:
                loss = scores.label_loss[i] + scores.other_loss[i]
                assert loss == pytest.approx(losses.sum().item(), abs=2e-4)


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


@pytest.mark.parametrize("dense", [False, True])
def test_no_mask_is_drawn_twice_in_an_update_however_many_parts_it_has(dense, monkeypatch):
    drawn = []
    seeded = np.random.SeedSequence
    monkeypatch.setattr(np.random, "SeedSequence", lambda words: drawn.append(tuple(words)) or seeded(words))
    adapted = tiny.adapted("llama", 4, dense, tiny.recipe(dropout=0.1))
    whole = tiny.gradients(adapted, tiny.cases(4), key=(1, 2))[2]
    drawn.clear()
    parts = tiny.gradients(adapted, tiny.cases(4), key=(1, 3), micro=1)[2]
    assert drawn and len(drawn) == len(set(drawn))
    again = tiny.gradients(adapted, tiny.cases(4), key=(1, 2), micro=1)[2]
    assert tiny.largest_difference(again, whole) <= 1e-5 < tiny.largest_difference(parts, whole)
