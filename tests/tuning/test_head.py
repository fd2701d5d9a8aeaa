"""Logits in blocks give the loss and the gradients of plain cross-entropy, and never hold them all."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tasks.precisions import BUILT_IN
from tasks.scoring.mc_dropout import dropout_passes
from tasks.tuning.lora import as_computed
from tasks.tuning.loss import blocked_logsumexp, score_rows
from tasks.tuning.model import embed, head_of, project, take_apart
from tasks.tuning.step import score_cases
from tests.tuning import tiny

ROWS = 6
WIDTH = 64
VOCABULARY = 1000


def head(name):
    plain = nn.Embedding(VOCABULARY, WIDTH)
    plain.weight = mx.random.normal((VOCABULARY, WIDTH), key=mx.random.key(1))
    precision = BUILT_IN[name]
    if not precision.is_quantised:
        return plain
    return plain.to_quantized(precision.group_size_in(64), precision.bits, mode=precision.mode)


@pytest.mark.parametrize("name", ["bf16", "2bit", "4bit", "mxfp8", "nvfp4"])
@pytest.mark.parametrize(("fast_exp", "block"), [(False, 333), (True, 7)])
def test_log_sum_exp_in_blocks_and_its_gradient_equal_the_plain_ones(name, fast_exp, block):
    module = head(name)
    hidden = (
        mx.random.normal((ROWS, WIDTH), key=mx.random.key(2)) * mx.array([0.01, 0.02, 0.04, 0.06, 0.08, 0.1])[:, None]
    )
    weights = mx.random.normal((ROWS,), key=mx.random.key(3))
    plain, expected = mx.value_and_grad(lambda x: (mx.logsumexp(module.as_linear(x), axis=-1) * weights).sum())(hidden)
    value, outcome = mx.value_and_grad(lambda x: (blocked_logsumexp(module, x, block, fast_exp) * weights).sum())(
        hidden
    )
    assert value.item() == pytest.approx(plain.item(), rel=1e-6)
    assert (outcome - expected).square().sum().item() ** 0.5 <= 2e-6 * expected.square().sum().item() ** 0.5


@pytest.mark.parametrize(
    ("architecture", "dense", "template"),
    [("llama", False, tiny.SINGLE), ("llama", True, tiny.MULTI), ("gemma3_text", False, tiny.MULTI)],
)
def test_a_step_and_scores_with_logits_in_blocks_equal_those_without(architecture, dense, template, monkeypatch):
    used = []
    monkeypatch.setattr("tasks.tuning.loss.blocked_logsumexp", lambda *a: used.append(a[2]) or blocked_logsumexp(*a))
    a_recipe = tiny.safety(dropout=0.1)
    adapted = tiny.adapted(architecture, 4, dense, a_recipe)
    some = tiny.cases(5, template)
    blocked = replace(adapted, stack=replace(adapted.stack, logit_bytes=1000))
    prefix = tiny.no_store(adapted, some)
    one, other = (tiny.gradients(a, some, a_recipe, key=(42, 1), prefix=prefix) for a in (blocked, adapted))
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert tiny.largest_difference(one[2], other[2]) <= 5e-6
    scores = [score_cases(a, prefix).label_logp for a in (blocked, adapted)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert used and max(used) < tiny.VOCABULARY


@pytest.mark.parametrize("logit_bytes", [16_000_000, 1000])
def test_labels_keep_their_float32_logits_where_the_blocks_compute_in_bfloat16(logit_bytes):
    """As on Metal: logits of about 20 would be rounded to eighths, and labels closer than that would tie."""
    stack = replace(tiny.adapted("llama", 8, dense=False).stack, logit_bytes=logit_bytes)
    stack.model.set_dtype(mx.bfloat16)
    hidden = mx.random.normal((32, 1, 64), key=mx.random.key(4)).astype(mx.bfloat16)
    stack.model.model.norm.weight = 30 * stack.model.model.norm.weight
    embedding = stack.model.model.embed_tokens
    unpacked = mx.dequantize(
        embedding.weight, embedding.scales.astype(mx.float32), embedding.biases.astype(mx.float32), 64, 8
    )
    expected = stack.model.model.norm(hidden).astype(mx.float32) @ unpacked[mx.array([5, 6, 7])].T
    normaliser, targets, labels = score_rows(stack, hidden, mx.full((32, 1), 5), mx.array([5, 6, 7]))
    assert labels.dtype == targets.dtype == normaliser.dtype == mx.float32
    np.testing.assert_allclose(labels, expected[:, 0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(targets[:, 0], expected[:, 0, 0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_the_rows_of_a_case_have_one_mask(architecture):
    """With labels of several tokens each case is three rows, of one sampled model."""
    adapted = tiny.adapted(architecture, 4, True, tiny.safety(dropout=0.4))
    some = tiny.cases(6, tiny.MULTI)
    keys = []
    module = adapted.dropouts[0]
    module.set_keys = lambda row_keys, *args: (keys.append(row_keys), type(module).set_keys(module, row_keys, *args))
    tiny.gradients(adapted, some, tiny.safety(), micro=2, key=(42, 1))
    dropout_passes(adapted, tiny.no_store(adapted, some), range(6), 3, 42, lambda event: None)
    of_cases = [k for k in keys if k and len(k) > 1]
    assert of_cases and all(k[0::3] == k[1::3] == k[2::3] and len({*k}) == len(k) // 3 for k in of_cases)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_head_of_16_bits_is_cast_once_and_gives_the_same_logits(architecture):
    """A step would cast the whole matrix again, which of Gemma's is 0.7 GB."""
    model, _ = tiny.base_model(architecture)
    model.set_dtype(mx.bfloat16)
    before = take_apart(model)
    hidden = embed(before, mx.array([[5, 9, 30]]))
    logits = project(before, hidden)
    mx.eval(hidden, logits)

    stack = as_computed(model, "packed")
    assert head_of(stack.model).weight.dtype == mx.float32
    again = embed(stack, mx.array([[5, 9, 30]]))
    assert again.dtype == stack.dtype == mx.bfloat16 and mx.array_equal(again, hidden)
    assert mx.array_equal(project(stack, again), logits)
