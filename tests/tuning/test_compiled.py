"""Compiled updates are the same updates: same losses, same adapters, and a training with them resumes exactly."""

import math
from collections import Counter

import mlx.core as mx
import pytest

from tasks.runtime.errors import Diverged
from tasks.tuning import job
from tasks.tuning.compiled import CompiledUpdates
from tasks.tuning.memory import MemoryChoice
from tests.tuning import tiny
from tests.tuning.traced import traced_graphs


@pytest.fixture
def compiling(monkeypatch):
    """A backend that compiles; its graphs are traced and replayed."""
    monkeypatch.setattr(job, "compiles", lambda: True)
    with traced_graphs():
        yield


def trained(folder, architecture="llama", template=tiny.SINGLE, iterations=6, lora_plus=1.0, **settings):
    """A training on packed weights. Updates whose batches have one shape differ in cases and in rate, which a graph must
    not hold as constants."""
    a_recipe = tiny.safety(dropout=0.1, iterations=iterations, lora_plus=lora_plus)
    model = tiny.adapted(architecture, 4, False, a_recipe)
    settings = {"evaluate_every": 3, "decay": "linear", "valid": tiny.cases(4, template, seed=1)} | settings
    return tiny.train(a_recipe, folder, tiny.cases(24, template), model=model, **settings)


def assert_near(one, other):
    assert tiny.largest_difference(tiny.flat(one.best), tiny.flat(other.best)) <= 1e-5
    losses = [[point.loss for point in training.progress.curve] for training in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert one.progress.trained_tokens == other.progress.trained_tokens


@pytest.mark.parametrize(
    ("architecture", "choice", "template"),
    [
        ("gemma3_text", MemoryChoice(3), tiny.MULTI),
        ("llama", MemoryChoice(2, checkpointing=True), tiny.SINGLE),
    ],
)
def test_a_training_with_compiled_updates_equals_one_without(architecture, choice, template, tmp_path, request):
    settings = {"max_gradient_norm": 0.5, "choice": choice, "template": template}
    plain = trained(tmp_path / "plain", architecture, **settings)
    request.getfixturevalue("compiling")
    assert_near(trained(tmp_path / "compiled", architecture, **settings), plain)


def form_of_optimizer(folder):
    (path,) = folder.glob("checkpoint/*/state.safetensors")
    return {name: (a.shape, a.dtype) for name, a in mx.load(str(path)).items() if name.startswith("optimizer.")}


@pytest.mark.parametrize(("first", "lora_plus"), [("plain", 8.0), ("compiled", 1.0)])
def test_a_checkpoint_has_one_form_with_and_without_compiled_updates(first, lora_plus, tmp_path, monkeypatch):
    settings = {"report_every": 3, "lora_plus": lora_plus, "max_gradient_norm": 0.5}
    whole = trained(tmp_path / "whole", **settings)

    compiles = [first == "compiled", first != "compiled"]
    with traced_graphs():
        monkeypatch.setattr(job, "compiles", lambda: compiles[0])
        with pytest.raises(tiny.Killed):
            trained(tmp_path / "killed", emit=tiny.die_at(6), **settings)

        monkeypatch.setattr(job, "compiles", lambda: compiles[1])
        assert_near(trained(tmp_path / "killed", **settings), whole)

    assert form_of_optimizer(tmp_path / "killed") == form_of_optimizer(tmp_path / "whole")


def test_between_reports_a_compiled_training_hands_over_each_step_and_evaluates_nothing(
    tmp_path, compiling, monkeypatch
):
    calls = Counter()
    for name in ("eval", "async_eval"):
        original = getattr(mx, name)
        monkeypatch.setattr(mx, name, lambda *a, of=original, n=name: calls.update([n]) or of(*a))

    totals = []
    for iterations in (3, 8):
        trained(tmp_path / str(iterations), iterations=iterations, report_every=100, evaluate_every=100)
        totals.append(calls.copy())
        calls.clear()

    assert totals[1] - totals[0] == {"async_eval": 5}


def test_divergence_ends_a_compiled_training_at_the_last_good_update(tmp_path, compiling, monkeypatch):
    start = CompiledUpdates.start
    rates = iter([1e-3, math.nan, *[1e-3] * 4])
    monkeypatch.setattr(CompiledUpdates, "start", lambda self, batch, _: start(self, batch, next(rates)))
    events = []
    with pytest.raises(Diverged, match="The loss became nan at update 3"):
        trained(tmp_path, evaluate_every=4, report_every=2, emit=events.append)

    assert [event.iteration for event in events] == [2] and not (tmp_path / "checkpoint").exists()
