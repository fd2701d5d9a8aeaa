"""A variant loaded for a compute path: packed as stored, or unpacked."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import dequantize_model, load_model, maybe_set_recommended_wired_limit

from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.memory import keep_freed_memory
from tasks.runtime.store import MANIFEST, verify_once
from tasks.tuning.architecture import Stack, take_apart


def load_variant(folder: Path, compute_path: str) -> Stack:
    """Load a variant folder for a compute path, see `as_computed`.

    Raises BrokenFolder where its files are not those of its manifest.
    """
    if (folder / MANIFEST).exists():
        verify_once(folder)

    keep_freed_memory()
    if can_wire_memory():
        # As stock mlx-lm's own training does.
        maybe_set_recommended_wired_limit()

    model, _ = load_model(folder, lazy=False)
    return as_computed(model, compute_path)


def as_computed(model: nn.Module, compute_path: str) -> Stack:
    """A quantised model on a compute path. `dequantised_f32` unpacks the same weights to float32.

    `packed` keeps them as stored.
    """
    dense = compute_path == "dequantised_f32"
    if dense:
        # With float32 scales unpacking is exact, and equals the packed layer to the last rounding.
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
        model.set_dtype(mx.float32)  # modes with scales of a byte are unpacked to bfloat16, exactly

    model.eval()
    mx.eval(model.parameters())
    # A model is unpacked on a GPU too, for fidelity.
    return take_apart(model, cpu_kernels=dense and backend().cpu_kernels)


def unpacked(module: nn.QuantizedLinear) -> nn.Linear:
    """The same matrix unpacked, in the data type of its scales."""
    weight = mx.dequantize(
        module.weight,
        module.scales,
        module.get("biases"),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in module)
    linear.weight = weight
    if "bias" in module:
        linear.bias = module.bias

    return linear
