"""The masks of the dropout passes: one for each case of a pass, shared by its label rows, whatever the batches."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from tasks.corpus.prompts import Template
from tasks.scoring import mc_dropout
from tasks.scoring.mc_dropout import dropout_passes
from tasks.tuning import model
from tasks.tuning.data import EncodedCases, make_batch, make_cases
from tasks.tuning.step import label_terms, leading_past
from tests.tuning import tiny

PASSES = 3
TWINS = (2, 5)
ALIKE = Template(None, None, False, ((5, 9, 2), (5, 9, 2), (7, 2)), (2, 2, 1))  # two labels of the same tokens
# differences of probabilities: by another mask, by another order of sums
APART = 1e-4
ROUNDING = 1e-5


@pytest.fixture(params=["llama", "gemma3"])
def passes(request):
    adapted = tiny.adapted(request.param, 4, True, tiny.recipe(dropout=0.3))

    def run(some: EncodedCases, numbers: list[int] | None = None, seed: int = 7) -> np.ndarray:
        numbers = list(range(len(some.encoded))) if numbers is None else numbers
        return dropout_passes(adapted, tiny.no_store(adapted, some), numbers, PASSES, seed, lambda event: None)

    return run


def with_twins(template: Template) -> EncodedCases:
    """Eight cases, two of which have the same tokens, so that only their masks can tell them apart."""
    encoded = list(tiny.cases(8, template).encoded)
    first, second = TWINS
    encoded[second] = replace(encoded[second], prompt=encoded[first].prompt)
    return make_cases(template, encoded)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b).max(axis=-1)


def test_all_label_rows_of_a_case_share_its_mask(passes):
    """A pass is one sampled model: two labels of the same tokens are equally likely under it."""
    for template in (tiny.SINGLE, tiny.MULTI):
        p = passes(with_twins(template))
        assert distances(p[:, TWINS[0]], p[:, TWINS[1]]).min() > APART, "each case has a mask of its own"
    p = passes(with_twins(ALIKE))
    assert np.abs(p[..., 0] - p[..., 1]).max() < ROUNDING
    assert distances(p[:, TWINS[0]], p[:, TWINS[1]]).min() > APART


def test_the_passes_of_a_case_differ_and_follow_from_the_seed(passes):
    some = with_twins(tiny.SINGLE)
    p = passes(some)
    pairs = [(i, j) for i in range(PASSES) for j in range(i)]
    assert min(distances(p[i], p[j]).min() for i, j in pairs) > APART
    assert (passes(some) == p).all()
    assert distances(passes(some, seed=8), p).min() > APART


def test_the_instruction_has_another_mask_in_each_pass(passes, monkeypatch):
    """With the masks of the cases off, nothing else can tell the passes apart."""

    def without_masks(adapted, *arguments):
        adapted.set_dropout(None)
        return label_terms(adapted, *arguments)

    monkeypatch.setattr(mc_dropout, "label_terms", without_masks)
    p = passes(tiny.cases(3))
    assert len({one.tobytes() for one in p}) == PASSES


@pytest.mark.parametrize("template", [tiny.SINGLE, tiny.MULTI], ids=["one row", "three rows"])
def test_neither_the_size_of_the_batches_nor_the_sample_changes_a_mask(passes, template, monkeypatch):
    some = with_twins(template)
    p = passes(some)
    for tokens in (1, 200):  # each case alone; a few together
        monkeypatch.setattr(mc_dropout, "TOKENS_AT_ONCE", tokens)
        assert passes(some) == pytest.approx(p, abs=ROUNDING)
    assert passes(some, [6, 2, 5]) == pytest.approx(p[:, [6, 2, 5]], abs=ROUNDING)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_masks_drawn_ahead_are_those_that_the_modules_draw(architecture):
    adapted = tiny.adapted(architecture, 4, True, tiny.recipe(dropout=0.3))
    for template in (tiny.SINGLE, tiny.MULTI):
        prefix = tiny.no_store(adapted, with_twins(template))
        batch = make_batch(prefix.cases, range(4))
        keys = [(7, row.number // prefix.cases.per_case) for row in batch.rows]
        scored = max(row.label_length for row in batch.rows)
        past = leading_past(adapted, prefix)
        results = []
        for masks in ((), adapted.draw_masks(keys, batch.length - prefix.cases.leading, scored)):
            adapted.set_dropout(keys, masks=masks)
            results.append(np.array(label_terms(adapted, prefix, batch, past).label_logp))
        assert (results[0] == results[1]).all()


@pytest.fixture
def one_stream(monkeypatch):
    """As on a GPU."""
    stream = mx.default_stream(mx.default_device())
    monkeypatch.setattr(model, "streams", lambda: [stream])


def test_a_device_computes_a_job_while_the_host_prepares_the_next_one(one_stream):
    order = []

    def work(job: int) -> mx.array:
        order.append(f"prepare {job}")
        return mx.array(job) * 2

    for job, result in model.side_by_side([[1, 2], [3]], work):
        assert result.item() == 2 * job
        order.append(f"read {job}")
    assert order == ["prepare 1", "prepare 2", "read 1", "prepare 3", "read 2", "read 3"]


def test_one_stream_gives_the_passes_of_several(passes, one_stream, monkeypatch):
    some = with_twins(tiny.SINGLE)
    monkeypatch.setattr(mc_dropout, "TOKENS_AT_ONCE", 100)
    p = passes(some)
    monkeypatch.undo()
    assert passes(some) == pytest.approx(p, abs=ROUNDING)
