"""Stock mlx-lm in the training benchmark: its own loop, loss, batches and defaults."""

from __future__ import annotations

import shutil
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, iterate_batches, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model

from tasks.bench.flops import matmul_flops
from tasks.bench.setting import (
    Measured,
    Setting,
    Weights,
    first_gradients,
    start_adapter,
)
from tasks.runtime.backend import backend
from tasks.tuning.data import EncodedCases

# A step on packed weights takes about a minute on a CPU.
SLOW_REPEATS = 1
# Room for stock's padding; at its limit stock would cut the padding target off.
PADDING = 64


def measure_stock(setting: Setting, cases: EncodedCases) -> Measured:
    """Time the steps of `train()` on the batch after its first, in which it is compiled.

    Several steps, or one where the weights are packed on a CPU.
    """
    dense = setting.engine == "stock_dense"
    compiling = _compile_where_possible()
    model = _stock_model(setting, dense)
    weights_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    slow = not backend().on_gpu and not dense
    repeats = SLOW_REPEATS if slow else setting.repeats
    clock = _train(model, setting, cases, steps=1 + repeats)
    peak = mx.get_peak_memory()
    cached = mx.get_cache_memory()

    seconds = clock.seconds[1:]
    notes = ["n=1, after a warm-up step" if slow else "after a warm-up step", *compiling]
    batches = iterate_batches(_dataset(cases), setting.batch, setting.length + PADDING)
    tokens, lengths = next(batches)
    flops = matmul_flops(model, lambda m: default_loss(m, tokens, lengths)[0])

    return Measured(seconds, weights_bytes, peak, cached, flops, clock.gradients, notes)


def float64_gradients(setting: Setting) -> Weights:
    """Stock's loss on the dense weights in float64, case by case to spare memory (all have as many
    scored tokens).
    """
    model = _stock_model(setting, dense=True)
    model.set_dtype(mx.float64)
    cases = setting.cases
    step = nn.value_and_grad(model, lambda m, tokens, lengths: default_loss(m, tokens, lengths)[0])

    total: Weights = {}
    for case in _dataset(cases):
        _, gradients = step(model, *next(iterate_batches([case], 1, setting.length + PADDING)))
        total = {
            name: g / setting.batch + total.get(name, 0) for name, g in tree_flatten(gradients)
        }
        mx.eval(total)

    return total


def _compile_where_possible() -> list[str]:
    if backend().on_gpu or shutil.which("g++"):
        return []
    mx.disable_compile()
    return ["not compiled, since MLX on CPU needs g++ for that"]


def _stock_model(setting: Setting, dense: bool) -> nn.Module:
    model, _ = load_model(setting.variant)
    if backend().compute_dtype == "float32" and setting.engine != "stock_bfloat16":
        model.set_dtype(mx.float32)
    if dense:
        model = dequantize_model(model)

    model.freeze()
    recipe = setting.recipe
    config = {
        "rank": recipe.rank,
        "scale": recipe.scale,
        "dropout": recipe.dropout,
        "keys": list(setting.training.target_modules),
    }
    linear_to_lora_layers(model, setting.layers, config)
    start_adapter(model)

    return model


class _Clock(TrainingCallback):
    """Keeps the time of every step as stock's `train()` takes it, and the gradients of the first."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.seconds: list[float] = []
        self.gradients: Weights = {}

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.seconds.append(1 / train_info["iterations_per_second"])
        self.gradients = self.gradients or first_gradients(self.optimizer)


def _train(model: nn.Module, setting: Setting, cases: EncodedCases, steps: int) -> _Clock:
    """Stock's own training loop and batches, with its defaults."""
    optimizer = setting.optimizer()
    # Otherwise its state grows in the first step, and the second step is compiled again.
    optimizer.init(model.trainable_parameters())
    clock = _Clock(optimizer)
    args = TrainingArgs(
        batch_size=len(cases.rows),
        iters=steps,
        steps_per_report=1,
        max_seq_length=setting.length + PADDING,
        adapter_file=str(setting.folder / "adapters.safetensors"),
    )
    train(model, optimizer, _dataset(cases), args=args, training_callback=clock)

    return clock


def _dataset(cases: EncodedCases) -> list[tuple[list[int], int]]:
    """(tokens, length of the prompt) of each case: with stock's mask a row's inputs are the whole
    sequence.
    """
    return [(list(row.inputs), row.first + 1) for row in cases.rows]
