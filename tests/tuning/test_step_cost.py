"""What a training step costs the host: evaluations, graph nodes, and dropout masks that a thread draws ahead."""

import threading
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tasks.runtime.errors import Diverged
from tasks.runtime.events import TrainingReport
from tasks.tuning.dropout import MaskRequest, MasksAhead, draw_now
from tasks.tuning.loss import make_objective
from tasks.tuning.step import update_gradients
from tasks.tuning.updates import effective_batch
from tests.tuning import tiny
from tests.tuning.graph import (
    adapted_blocks,
    compiled_updates,
    node_names,
    norms_and_rotations_are_one_operation,
)
from tests.tuning.test_trainer import run

BOTH = pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])


@pytest.fixture
def evaluations(monkeypatch):
    """The evaluations so far, each a wait of the host for the device."""
    counted = []
    for name in ("eval", "async_eval"):
        original = getattr(mx, name)
        monkeypatch.setattr(mx, name, lambda *a, of=original, n=name: counted.append(n) or of(*a))
    return counted


@pytest.mark.parametrize("clipping", [{}, {"max_gradient_norm": 1e-3}])
def test_a_step_evaluates_loss_parts_and_norm_in_one_graph_and_the_optimizer_in_another(
    clipping, tmp_path, evaluations
):
    counts = []
    for iterations in (3, 8):
        before = len(evaluations)
        often = {"report_every": 100, "evaluate_every": 100} | clipping
        run(tiny.safety(dropout=0.1, iterations=iterations), tmp_path / str(iterations), **often)
        counts.append(len(evaluations) - before)
    assert counts[1] - counts[0] == 2 * 5


class Recorder:
    """Draws masks when they are taken, and keeps their requests."""

    def __init__(self):
        self.requests = []

    def take(self, request):
        self.requests.append(request)
        return draw_now(request)


@BOTH
@pytest.mark.parametrize("template", [tiny.SINGLE, tiny.MULTI])
@pytest.mark.parametrize(("dense", "micro_batch"), [(True, 4), (True, 3), (False, 4)])
def test_the_masks_that_are_drawn_ahead_are_those_that_a_step_takes(architecture, template, dense, micro_batch):
    adapted = tiny.adapted(architecture, 4, dense, tiny.safety(dropout=0.1))
    some = tiny.cases(6, template)
    prefix = tiny.no_store(adapted, some)
    objective = make_objective(tiny.safety(), some.labels)
    recorder = Recorder()
    adapted.take_masks_from(recorder.take)
    batch = effective_batch(adapted, prefix, [0, 2, 4, 5], micro_batch, (42, 7))
    update_gradients(adapted, prefix, batch, objective)
    assert recorder.requests and Counter(recorder.requests) == Counter(batch.requests)


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_masks_from_the_thread_equal_those_that_are_drawn_when_needed_however_few_are_drawn_ahead(limit):
    requests = [MaskRequest(((42, 1, i), (42, 2, i)), (3, i), (5, 9), 6554) for i in range(4)]
    with MasksAhead(limit) as ahead:
        ahead.expect([*requests, requests[0]])
        for request in [*requests, requests[0], MaskRequest(((1,),), (0, 0), (2, 3), 100)]:
            np.testing.assert_array_equal(ahead.take(request), request.draw())


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "dropout masks"]


def test_a_training_with_masks_drawn_ahead_equals_one_without_and_leaves_no_thread(tmp_path, monkeypatch):
    a_recipe = tiny.safety(dropout=0.1, iterations=6)
    calls = []
    ahead, progress, *_ = run(a_recipe, tmp_path / "ahead", emit=lambda event: calls.append(len(threads())))
    assert set(calls) == {1} and threads() == []
    monkeypatch.setattr(MasksAhead, "take", lambda self, request: draw_now(request))
    monkeypatch.setattr(MasksAhead, "expect", lambda self, requests: None)
    without, other, *_ = run(a_recipe, tmp_path / "without")
    assert all((np.array(ahead[k]) == np.array(without[k])).all() for k in ahead)
    assert [p.loss for p in progress.curve] == [p.loss for p in other.curve]


@pytest.mark.parametrize("error", [Diverged("planted"), KeyboardInterrupt()])
def test_the_thread_ends_with_a_training_that_fails(error, tmp_path):
    counts = []

    def fail(event):
        if isinstance(event, TrainingReport) and not counts:
            counts.append(len(threads()))
            raise error

    with pytest.raises(type(error)):
        run(tiny.recipe(dropout=0.1), tmp_path, emit=fail)

    assert counts == [1] and threads() == []


# Graph nodes that compute nothing: they describe an array that is there.
VIEWS = {
    "AsStrided", "Broadcast", "Copy", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "StopGradient",
    "Transpose", "Unflatten",
}  # fmt: skip
STOCK_AT_16_BLOCKS = 1781


def test_a_step_through_16_packed_blocks_has_no_more_operations_than_stock_mlx_lms(monkeypatch):
    """30 blocks in bfloat16, heads in groups; norms and rotations count as the one kernel that they are on a GPU."""
    adapted, prefix = adapted_blocks(16, tiny.cases(4), tiny.recipe())
    norms_and_rotations_are_one_operation(monkeypatch)
    objective = make_objective(tiny.recipe(), prefix.cases.labels)
    batch = effective_batch(adapted, prefix, range(4), 4, None)
    loss, parts, gradients = update_gradients(adapted, prefix, batch, objective)
    nodes = node_names([loss, parts, *(gradient for _, gradient in tree_flatten(gradients))])
    count = sum(number for name, number in nodes.items() if name not in VIEWS)
    assert 1000 < count <= STOCK_AT_16_BLOCKS


@pytest.mark.parametrize(("dropout", "limit"), [(0.0, 2470), (0.1, 2530)])
def test_a_compiled_step_through_16_blocks_has_few_graph_nodes_for_the_host_to_replay(dropout, limit, monkeypatch):
    """Views, optimizer and clipping included."""
    recipe = tiny.recipe(dropout=dropout)
    adapted, prefix = adapted_blocks(16, tiny.cases(4), recipe)
    compiled = compiled_updates(adapted, prefix, recipe)
    graphs = []
    norms_and_rotations_are_one_operation(monkeypatch)
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: graphs.append(arrays))
    compiled.start(effective_batch(adapted, prefix, range(4), 4, (1, 0) if dropout else None), 1e-3)
    nodes = node_names([array for _, array in tree_flatten(graphs)])
    assert nodes["Matmul"] > 300 and sum(nodes.values()) <= limit
