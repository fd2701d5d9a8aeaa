"""The frozen prefix is computed once per variant and set, within its budget, and never read from another model."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from tasks.runtime import store
from tasks.runtime.errors import BadInput
from tasks.runtime.events import StepWarning
from tasks.runtime.locks import replacing
from tasks.tuning import activations
from tasks.tuning.activations import PrefixStore, open_prefix
from tasks.tuning.step import score_cases
from tests.tuning import tiny


@pytest.fixture
def computed(monkeypatch):
    calls = []
    compute = activations.compute_prefix
    monkeypatch.setattr(activations, "compute_prefix", lambda *args: calls.append(args[0].cases) or compute(*args))
    return calls


def opened(folder, adapted, some, emit=lambda event: None, boundary=None, weights="weights"):
    boundary = adapted.boundary if boundary is None else boundary
    return open_prefix(adapted.stack, some, boundary, PrefixStore(folder, weights), emit)


def test_the_second_recipe_of_a_variant_computes_no_prefix(tmp_path, computed):
    train = tiny.cases(8)
    valid = tiny.cases(5, seed=1)

    for number, recipe in enumerate((tiny.recipe(), tiny.safety(rank=8, dropout=0.1), tiny.recipe(scale=9.0))):
        adapted = tiny.adapted("llama", 4, True, recipe)
        prefixes = [opened(tmp_path, adapted, some) for some in (train, valid)]
        assert all(p.own_hidden is not None for p in prefixes)
        assert (tmp_path / "prefixes").stat().st_mode & 0o077 == 0, "texts could be guessed from activations"
        assert number == 0 or len(computed) == 2, "computed again for another recipe"

    assert computed == [train, valid]


def test_a_deeper_prefix_goes_on_from_a_stored_one_and_has_the_same_bits(tmp_path, monkeypatch):
    some = tiny.cases(6)
    blocks = []
    run_blocks = activations.run_blocks
    monkeypatch.setattr(activations, "run_blocks", lambda *args: blocks.append(args[2:4]) or run_blocks(*args))

    for precision in ("float32", "bfloat16"):
        adapted = tiny.adapted("llama", 4, precision == "float32")
        adapted.stack.model.set_dtype(getattr(mx, precision))
        whole = opened(tmp_path / precision / "whole", adapted, some, boundary=3)
        opened(tmp_path / precision / "split", adapted, some, boundary=2)
        blocks.clear()
        split = opened(tmp_path / precision / "split", adapted, some, boundary=3)
        assert set(blocks) == {(2, 3)}, "blocks that are stored are computed again"

        for name in ("leading", "own_hidden", "starts"):
            np.testing.assert_array_equal(getattr(split, name), getattr(whole, name))


def test_a_new_process_chain_reads_a_stored_prefix_in_full_and_makes_a_damaged_one_again(
    tmp_path, computed, monkeypatch
):
    adapted = tiny.adapted("llama", 4, True)
    some = tiny.cases(6)
    first = np.array(opened(tmp_path, adapted, some).own_hidden)
    opened(tmp_path, adapted, some)
    own_values = next(tmp_path.glob("prefixes/*/own.npy"))
    times = own_values.stat()
    content = bytearray(own_values.read_bytes())
    content[-3] ^= 1
    own_values.write_bytes(content)
    os.utime(own_values, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a failing disk does it: no trace in the times
    monkeypatch.setenv("TRIAGE_CHAIN", "another")
    events = []
    np.testing.assert_array_equal(opened(tmp_path, adapted, some, events.append).own_hidden, first)
    assert len(computed) == 2 and isinstance(events[0], StepWarning) and "is damaged" in events[0].message


def test_beyond_its_byte_budget_nothing_is_stored_the_log_says_so_and_scores_are_the_same(tmp_path, monkeypatch):
    adapted = tiny.adapted("llama", 4, True)
    some = tiny.cases(6)
    events = []
    stored = opened(tmp_path, adapted, some, events.append)
    assert "saves 33% of a step" in events[0].message
    assert opened(tmp_path / "none", adapted, some, events.append, 0).own_hidden is None
    assert "not stored: 0 of 4 blocks would save 0% of a step" in events[-1].message
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").iterdir())
    monkeypatch.setenv("TRIAGE_PREFIX_BYTES", "1KB")
    assert opened(tmp_path, adapted, some).boundary == 2, "what is stored is used"
    other = tiny.cases(6, seed=2)
    refused = opened(tmp_path, adapted, other, events.append)
    assert refused.boundary == 0 and "are left of the budget" in events[-1].message
    places = PrefixStore(tmp_path, "weights")
    open_prefix(adapted.stack, other, adapted.boundary, places, events.append, stored=True)
    assert isinstance(events[-1], StepWarning) and "its last bits may now differ" in events[-1].message
    plain = score_cases(adapted, tiny.no_store(adapted, some)).label_logp
    np.testing.assert_allclose(score_cases(adapted, stored).label_logp, plain, atol=1e-5)
    monkeypatch.setenv("TRIAGE_PREFIX_BYTES", "much")

    with pytest.raises(BadInput, match="TRIAGE_PREFIX_BYTES=much: 'much' is not a number of bytes such as 4GB"):
        opened(tmp_path, adapted, other)


def test_bfloat16_activations_take_two_bytes_each_on_disk_and_keep_their_bits(tmp_path):
    adapted = tiny.adapted("llama", 4, False)
    some = tiny.cases(6)
    adapted.stack.model.set_dtype(mx.bfloat16)
    halved = opened(tmp_path / "halved", adapted, some)
    full_model = tiny.adapted("llama", 4, True)
    full = opened(tmp_path / "full", full_model, some)
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).rglob("own.npy")) for name in ("halved", "full")]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.01)
    hidden, exact = (prefix.hidden(some.rows, 48) for prefix in (halved, full))
    assert hidden.dtype == mx.bfloat16
    np.testing.assert_allclose(np.array(hidden.astype(mx.float32)), np.array(exact), atol=0.1, rtol=0.1)
    every = mx.arange(1 << 16, dtype=mx.uint16).view(mx.bfloat16)
    assert (np.array(activations.stored_form(every)) == np.arange(1 << 16)).all()
    assert (activations.of_stored_form(np.arange(1 << 16, dtype=np.uint16)).view(mx.uint16) == mx.arange(1 << 16)).all()


def test_a_damaged_prefix_that_another_process_has_replaced_meanwhile_is_not_removed(tmp_path):
    folder = tmp_path / "key"
    events = []
    for path in (folder, tmp_path / "whole"):
        path.mkdir()
        (path / "own.npy").write_bytes(b"numbers")
        store.seal(path, {"key": "key"})

    (folder / "own.npy").unlink()
    with ThreadPoolExecutor(1) as pool, replacing(folder):
        trusted = pool.submit(activations.is_stored, folder, events.append)
        with pytest.raises(TimeoutError):
            trusted.result(0.5)
        shutil.rmtree(folder)
        (tmp_path / "whole").rename(folder)

    assert trusted.result() is True and events == [] and store.verify(folder)


@pytest.mark.parametrize("other", ["model", "boundary", "packed"])
def test_a_prefix_of_another_model_at_another_boundary_or_in_another_form_is_computed_again(other, tmp_path, computed):
    some = tiny.cases(6)
    adapted = tiny.adapted("llama", 4, True)
    foreign = tiny.adapted("gemma3_text" if other == "model" else "llama", 4, other != "packed")
    right = np.array(opened(tmp_path / "a", adapted, some, boundary=2).own_hidden)
    weights = "others" if other == "model" else "weights"
    opened(tmp_path / "b", foreign, some, boundary=3 if other == "boundary" else 2, weights=weights)
    (stored,), (other_stored,) = ((tmp_path / name / "prefixes").iterdir() for name in "ab")
    shutil.rmtree(stored)
    shutil.copytree(other_stored, stored)
    events = []
    np.testing.assert_array_equal(opened(tmp_path / "a", adapted, some, events.append, 2).own_hidden, right)
    assert isinstance(events[0], StepWarning) and "is damaged or another's" in events[0].message
    opened(tmp_path / "a", adapted, some, boundary=2)
    assert len(computed) == 3


def test_the_prefix_comes_out_the_same_in_small_passes(tmp_path):
    adapted = tiny.adapted("llama", 4, True)
    usual = opened(tmp_path / "usual", adapted, tiny.cases(12))
    for number, bounds in enumerate(({"limit": 1, "tokens_at_once": 4096}, {"tokens_at_once": 1})):
        store = PrefixStore(tmp_path / str(number), "weights")
        bounded = open_prefix(adapted.stack, tiny.cases(12), adapted.boundary, store, **bounds)
        np.testing.assert_allclose(bounded.own_hidden, usual.own_hidden, atol=1e-5)
