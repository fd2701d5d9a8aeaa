"""The training measurement: every engine makes the same step, on which the self-test and the benchmark rely."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tasks.bench.setting import bench_cases, matmul_flops
from tasks.runtime.backend import backend
from tests.bench.common import variant_of
from tests.bench.training import ENGINES, measure
from tests.tolerances import near, wheels_own_blas


@pytest.mark.nightly  # the same figures of one engine at a time are in the gate
@pytest.mark.parametrize(("model", "bits"), [("tiny-llama", 4), ("tiny-gemma3", 8)])
def test_all_engines_make_the_same_step(model, bits, tmp_path):
    variant = str(variant_of(model, bits))
    setting = {"variant": variant, "batch": 4, "length": 40, "layers": 2, "repeats": 2}
    engines = measure(setting, tmp_path)
    steps = {"stock": 2 if backend().on_gpu else 1, "stock_dense": 2, "ours": 2}
    expected = [name for name in ENGINES if name == "ours" or name in backend().compared_with]
    timed = {name: len(engine["seconds"]) for name, engine in engines.items()}
    assert timed == {name: steps[name] for name in expected}
    assert engines["stock"]["device"]["blas"] == wheels_own_blas()

    for name, engine in engines.items():
        assert engine["to_stock"] <= near(1e-5, 0.1), name
        assert engine["peak_memory_bytes"] > engine["weights_memory_bytes"]

    assert engines["ours"]["matmul_flops"] < 0.6 * engines["stock"]["matmul_flops"]
    assert engines["ours"]["prefix"]["blocks"] == 2


def test_a_benchmark_case_has_as_many_tokens_as_asked_and_stocks_mask():
    cases = bench_cases(vocabulary=100, batch=3, length=40)
    assert [len(row.inputs) for row in cases.rows] == [40] * 3
    assert all(row.targets == (*row.inputs[-3:], 0) for row in cases.rows)
    assert cases.leading >= 10 and len({row.inputs for row in cases.rows}) == 3
    assert cases.rows == bench_cases(vocabulary=100, batch=3, length=40).rows


def test_counted_flops_are_those_of_the_products_that_the_gradients_need():
    frozen = nn.Linear(8, 16, bias=False)
    trained = nn.Linear(16, 4, bias=False)
    model = nn.Sequential(frozen, trained)
    frozen.freeze()
    x = mx.random.normal((5, 8))
    before = np.array(trained.weight)
    # forward 8 -> 16 -> 4, and the gradient of the trained weight; none for the frozen weight nor for x
    assert matmul_flops(model, lambda m: m(x).square().sum()) == 2 * 5 * (8 * 16 + 16 * 4 + 16 * 4)
    np.testing.assert_array_equal(np.array(trained.weight), before)
