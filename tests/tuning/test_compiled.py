"""Compiled updates are the same updates: same losses, same adapters, and a training with them resumes exactly; and what
a step costs the host in graph nodes.
"""

import io
import math
import re
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama
from mlx_lm.utils import quantize_model

from tasks.runtime.errors import Diverged
from tasks.spec import Training
from tasks.tuning import job
from tasks.tuning.activations import Prefix
from tasks.tuning.compiled import CompiledUpdates, Groups
from tasks.tuning.data import effective_batch
from tasks.tuning.lora import add_lora
from tasks.tuning.loss import make_objective
from tasks.tuning.memory import MemoryChoice
from tasks.tuning.model import take_apart
from tasks.tuning.step import make_optimizer
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
    """Whether two trainings, one of them with compiled updates, learned the same."""
    assert tiny.largest_difference(tiny.flat(one.best), tiny.flat(other.best)) <= 1e-5
    losses = [[point.loss for point in training.progress.curve] for training in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert one.progress.trained_tokens == other.progress.trained_tokens


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
        ("gemma3_text", None, tiny.SINGLE),
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
    """(shape, data type) of each array of an optimizer in the newest checkpoint."""
    (path,) = folder.glob("checkpoint/*/state.safetensors")
    return {name: (a.shape, a.dtype) for name, a in mx.load(str(path)).items() if name.startswith("optimizer.")}


@pytest.mark.parametrize(("first", "lora_plus"), [("plain", 8.0), ("compiled", 1.0)])
def test_a_checkpoint_has_one_form_with_and_without_compiled_updates(first, lora_plus, tmp_path, monkeypatch):
    """Each group of tensors has its own rate."""
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


def test_factors_a_and_b_of_one_shape_are_two_groups_and_state_by_group_becomes_that_by_tensor_again():
    tensors = {f"layers.{i}.q.lora_{kind}": mx.full((2, 2), float(i)) for i in (11, 1) for kind in "ab"}
    groups = Groups(tensors)
    assert {name: array.shape for name, array in groups.join(tensors).items()} == {
        "group_0_lora_a": (4, 2),
        "group_1_lora_b": (4, 2),
    }

    optimizer = make_optimizer(tiny.experiment(tiny.recipe(lora_plus=8.0)))
    optimizer.init(tree_unflatten(list(tensors.items())))
    state = {name: value + number for number, (name, value) in enumerate(tree_flatten(optimizer.state))}
    joined = groups.join_state(tree_unflatten(list(state.items())))
    assert len(dict(tree_flatten(joined))) == 8
    assert tiny.same_bits(dict(tree_flatten(groups.split_state(joined))), state)


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
    monkeypatch.setattr(CompiledUpdates, "start", lambda self, batch, _: start(self, batch, next(rates)))
    events = []
    with pytest.raises(Diverged, match="The loss became nan at update 3"):
        trained(tmp_path, evaluate_every=4, report_every=2, emit=events.append)

    assert [event.iteration for event in events] == [2] and not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(("dropout", "limit"), [(0.0, 2470), (0.1, 2530)])
def test_a_compiled_step_through_16_blocks_has_few_graph_nodes_for_the_host_to_replay(dropout, limit, monkeypatch):
    """Views, optimizer and clipping included. 30 blocks, as many as SmolLM2-135M has: 4 bits, bfloat16, the prefix stored
    as zeros. Norms and rotations count as one operation forwards and one backwards, as the kernels of a GPU are."""
    recipe = tiny.recipe(dropout=dropout)
    sizes = {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 3, "num_key_value_heads": 1,
             "vocab_size": tiny.VOCABULARY, "num_hidden_layers": 30, "head_dim": 64, "rms_norm_eps": 1e-5}  # fmt: skip
    model = llama.Model(llama.ModelArgs(model_type="llama", tie_word_embeddings=True, **sizes))
    model.set_dtype(mx.bfloat16)
    model, _ = quantize_model(model, {}, 64, 4)
    adapted = add_lora(take_apart(model), recipe, Training(num_layers=16), seed=1)

    some = tiny.cases(4)
    starts = np.cumsum([0, *(len(row.inputs) - some.leading for row in some.rows)])
    stored = [np.zeros((size, 192), np.uint16) for size in (some.leading, int(starts[-1]))]
    prefix = Prefix(adapted.stack, some, adapted.boundary, *stored, starts)
    optimizer = make_optimizer(tiny.experiment(recipe))
    optimizer.init(model.trainable_parameters())
    mx.eval(model.parameters(), optimizer.state)

    graphs = []
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, *args: mx.cumsum(x, axis=-1))
    monkeypatch.setattr(mx.fast, "rope", lambda x, *args, **named: mx.cumsum(x, axis=-1))
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: graphs.append(arrays))
    updates = CompiledUpdates(adapted, prefix, make_objective(recipe, some.labels), optimizer, 1.0)
    updates.start(effective_batch(some, range(4), 4, (1, 0) if dropout else None), 1e-3)

    graph = io.StringIO()
    mx.export_to_dot(graph, *(array for _, array in tree_flatten(graphs)))
    nodes = Counter(re.findall(r'label ="([A-Za-z ]+)[^"]*", shape=rectangle', graph.getvalue()))
    assert nodes["Matmul"] > 300 and sum(nodes.values()) <= limit
