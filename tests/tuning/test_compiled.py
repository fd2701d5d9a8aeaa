"""Compiled updates are the same updates: same losses, same adapters, and a training with them resumes exactly."""

import math
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from tasks.runtime.errors import Diverged
from tasks.tuning import trainer
from tasks.tuning.compiled import CompiledUpdates, Groups
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.updates import make_optimizer
from tests.tuning import tiny
from tests.tuning.test_trainer import experiment, run
from tests.tuning.traced import traced_graphs


@pytest.fixture
def compiling(monkeypatch):
    """A backend that compiles; its graphs are traced and replayed."""
    monkeypatch.setattr(trainer, "compiles", lambda: True)
    with traced_graphs():
        yield


def trained(
    folder,
    architecture="llama",
    emit=lambda event: None,
    choice=None,
    template=tiny.SINGLE,
    iterations=6,
    lora_plus=1.0,
    **settings,
):
    """(best adapters, progress) of some updates on packed weights. Updates whose batches have one shape differ
    in cases and in rate, which a graph must not hold as constants."""
    a_recipe = tiny.safety(dropout=0.1, iterations=iterations, lora_plus=lora_plus)
    some = tiny.cases(24, template)
    settings = {"evaluate_every": 3} | settings | {"decay": "linear", "valid": tiny.cases(4, template, seed=1)}
    return run(a_recipe, folder, some, emit, choice, architecture, False, **settings)[:2]


def test_a_traced_graph_is_replayed_and_holds_numbers_as_constants():
    """So that the tests below see what a graph holds."""
    factors = []

    def scaled(x):
        factors.append(len(factors) + 1)
        return mx.exp(x) * factors[-1]

    graph = mx.compile(scaled)
    with traced_graphs():
        assert [graph(mx.zeros(2)).tolist() for _ in range(3)] == [[1.0, 1.0]] * 3

    assert factors == [1]


@pytest.mark.parametrize(
    ("architecture", "choice", "template"),
    [
        ("llama", None, tiny.SINGLE),
        ("gemma3_text", None, tiny.SINGLE),
        ("gemma3_text", MemoryChoice(3), tiny.MULTI),
        ("llama", MemoryChoice(2, checkpointing=True), tiny.SINGLE),
    ],
)
def test_a_training_with_compiled_updates_equals_one_without(architecture, choice, template, tmp_path, request):
    limits = {"max_gradient_norm": 0.5}
    plain, one = trained(tmp_path / "plain", architecture, choice=choice, template=template, **limits)
    request.getfixturevalue("compiling")
    compiled, other = trained(tmp_path / "compiled", architecture, choice=choice, template=template, **limits)
    assert tiny.largest_difference(tiny.flat(compiled), tiny.flat(plain)) <= 1e-5
    assert [p.loss for p in other.curve] == pytest.approx([p.loss for p in one.curve], rel=1e-5)
    assert (other.update, other.trained_tokens) == (one.update, one.trained_tokens)


def form_of_optimizer(folder):
    """(shape, data type) of each array of an optimizer in the newest checkpoint."""
    (path,) = folder.glob("checkpoint/*/state.safetensors")
    return {name: (a.shape, a.dtype) for name, a in mx.load(str(path)).items() if name.startswith("optimizer.")}


@pytest.mark.parametrize(("first", "lora_plus"), [("plain", 8.0), ("compiled", 1.0)])
def test_a_checkpoint_has_one_form_with_and_without_compiled_updates(first, lora_plus, tmp_path, monkeypatch):
    """So that the checkpoints of before can be resumed, and each group of tensors has its own rate."""
    settings = {"report_every": 3, "lora_plus": lora_plus, "max_gradient_norm": 0.5}
    whole, progress = trained(tmp_path / "whole", **settings)

    compiles = [first == "compiled", first != "compiled"]
    with traced_graphs():
        monkeypatch.setattr(trainer, "compiles", lambda: compiles[0])
        with pytest.raises(tiny.Killed):
            trained(tmp_path / "killed", emit=tiny.die_at(6), **settings)

        monkeypatch.setattr(trainer, "compiles", lambda: compiles[1])
        resumed, again = trained(tmp_path / "killed", **settings)

    assert tiny.largest_difference(tiny.flat(resumed), tiny.flat(whole)) <= 1e-5
    assert [p.loss for p in again.curve] == pytest.approx([p.loss for p in progress.curve], rel=1e-5)
    assert form_of_optimizer(tmp_path / "killed") == form_of_optimizer(tmp_path / "whole")


def test_factors_a_and_b_of_one_shape_are_two_groups_and_state_by_group_becomes_that_by_tensor_again():
    tensors = {f"layers.{i}.q.lora_{kind}": mx.full((2, 2), float(i)) for i in (11, 1) for kind in "ab"}
    groups = Groups(tensors)
    assert {name: array.shape for name, array in groups.join(tensors).items()} == {
        "group_0_lora_a": (4, 2),
        "group_1_lora_b": (4, 2),
    }

    optimizer = make_optimizer(experiment(tiny.recipe(lora_plus=8.0)))
    optimizer.init(tree_unflatten(list(tensors.items())))
    state = dict(tree_flatten(optimizer.state))
    state = {name: value + number for number, (name, value) in enumerate(state.items())}
    joined = groups.join_state(tree_unflatten(list(state.items())))
    again = dict(tree_flatten(groups.split_state(joined)))
    assert len(dict(tree_flatten(joined))) == 8
    assert {name: np.array(a).tolist() for name, a in again.items()} == {
        name: np.array(a).tolist() for name, a in state.items()
    }


def test_between_reports_a_compiled_training_hands_over_each_step_once_and_evaluates_nothing(
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
    monkeypatch.setattr(CompiledUpdates, "start", lambda self, batch, _, *more: start(self, batch, next(rates), *more))
    with pytest.raises(Diverged, match="The loss became nan at update 3") as error:
        run(tiny.recipe(iterations=6), tmp_path, dense=False, evaluate_every=4, report_every=2)

    assert error.value.reached.update == 2 and not (tmp_path / "checkpoint").exists()
