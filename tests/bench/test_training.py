"""The training measurement: every engine makes the same step, on which the self-test and the benchmark rely."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from tasks.bench.setting import bench_cases, matmul_flops


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
