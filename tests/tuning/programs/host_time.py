"""Host time to start a compiled step, without a GPU: `uv run python -m tests.tuning.programs.host_time`.

16 of SmolLM2-135M's 30 blocks, 4 cases of 256 tokens, dropout 0.1. A norm or a rotation stands for the one operation that it
is on a GPU. Nothing is evaluated: what is timed is this thread's processor time to prepare the arguments, and to have
`mx.compile` replay its graph. Beside it a graph of as many views alone: the least that so many nodes cost on this machine now.
"""

import statistics
import time

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tasks.bench.setting import bench_cases
from tasks.runtime.memory import keep_freed_memory
from tasks.tuning.dropout import MasksAhead
from tasks.tuning.updates import effective_batch
from tests.tuning import tiny
from tests.tuning.graph import (
    SMOLLM2,
    adapted_blocks,
    compiled_updates,
    node_names,
    norms_and_rotations_are_one_operation,
)

STEPS = 40


def milliseconds(work):
    """This thread's processor time."""
    started = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - started)


def steps_of(dropout):
    """(times, nodes) of steps whose masks are drawn."""
    recipe = tiny.recipe(dropout=dropout, rank=8)
    adapted, prefix = adapted_blocks(16, bench_cases(SMOLLM2["vocab_size"], 4, 256), recipe, SMOLLM2)
    updates = compiled_updates(adapted, prefix, recipe)
    first = updates._gathered(), updates.optimizer.state
    mx.eval(first)
    times = []
    graphs = []
    replay = updates._graph
    # No step pays for freeing the graph of another, since evaluation does that, and in the memory of the one before.
    updates._graph = lambda *arguments: graphs.append(replay(*arguments)) or graphs[-1]

    with MasksAhead(copied=True) as masks:
        adapted.take_masks_from(masks.take)
        for number in range(STEPS + 1):
            key = (1, number) if dropout else None
            batch = effective_batch(adapted, prefix, range(4), 4, key)
            if key:
                masks.expect(batch.requests)
                while masks._waiting:
                    time.sleep(0.01)
            # Nothing is evaluated, so that each step starts from the arrays before the first.
            updates._parameters, updates.optimizer.state = first
            times.append(milliseconds(lambda batch=batch: updates.start(batch, 1e-3)))
            del graphs[:-1]

    return times[1:], sum(node_names([array for _, array in tree_flatten(graphs[-1])]).values())


def views_alone(count):
    """Times to replay a compiled graph of so many views."""

    def views(x):
        for _ in range(count // 2):
            x = x.reshape(3, 2, 4).transpose(1, 0, 2)
        return x

    replay = mx.compile(views)
    x = mx.zeros((2, 3, 4))
    mx.eval(x)
    replay(x)
    return [milliseconds(lambda: replay(x)) for _ in range(STEPS)]


def main():
    keep_freed_memory()  # as a training does
    with pytest.MonkeyPatch.context() as patch:
        norms_and_rotations_are_one_operation(patch)
        patch.setattr(mx, "async_eval", lambda *arrays: None)
        measured = {}
        for dropout in (0.0, 0.1):
            times, nodes = steps_of(dropout)
            measured[f"dropout {dropout}, {nodes} nodes"] = times
        measured[f"{nodes} views alone"] = views_alone(nodes)

    for name, times in measured.items():
        print(f"{name}: {statistics.median(times):.2f} ms (median of {len(times)}), {min(times):.2f} ms (least)")


if __name__ == "__main__":
    main()
