"""On CUDA the matrices without a fast quantised kernel are unpacked once, and the others stay as they are stored."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from tasks.bench.selftest.check import distance
from tasks.bench.selftest.models import adapt, cases_of, make_tiny, our_gradients, outputs
from tasks.runtime.backend import BACKENDS, CUDA
from tasks.tuning import variant


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma3"])
def test_only_outputs_without_a_fast_kernel_are_unpacked_and_the_numbers_stay(name, tmp_path, monkeypatch):
    monkeypatch.setattr(variant, "backend", lambda: CUDA)
    subject = make_tiny(name, 4, tmp_path)
    stack = variant.load_variant(subject.folder, CUDA.compute_path)
    modules = {name.rpartition(".")[2]: module for name, module in stack.layers[0].named_modules()}
    packed = {name for name, module in modules.items() if isinstance(module, nn.QuantizedLinear)}
    assert packed == {"gate_proj", "up_proj"}, "128 outputs"
    assert type(modules["q_proj"]) is nn.Linear and modules["q_proj"].weight.dtype == mx.bfloat16

    stack.model.set_dtype(mx.float32)
    assert distance(outputs(stack), outputs(subject.dense())) < CUDA.rounding
    _, gradients = our_gradients(adapt(stack), cases_of(stack))
    assert all(bool(mx.isfinite(gradient).all()) for gradient in gradients.values())


def test_the_warehouse_compares_memory_and_time_on_wholly_packed_weights_alone():
    assert {name: one.recorded_path for name, one in BACKENDS.items()} == {
        "cpu": "dequantised_f32", "metal": "packed", "cuda": None, "cpu-packed": "packed",
    }  # fmt: skip
