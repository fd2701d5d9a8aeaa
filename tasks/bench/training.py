"""One training step, timed: stock mlx-lm's own `train()` or our engine, on the same batch from the
same adapter.

Each engine runs in its own process, since a BLAS library, once loaded, stays. Engines:
    stock        as installed: the wheel's own BLAS, packed weights with float32 scales and norms (as stored on Metal)
    stock_dense  the same `train()` with our BLAS and the same weights unpacked to float32
    ours         `update_gradients` over a frozen prefix that is already stored, as it is for every recipe but the first
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, iterate_batches, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model

from tasks.bench.setting import (
    Setting,
    Weights,
    first_gradients,
    matmul_flops,
    matmul_speed,
    start_adapter,
    updates_of,
)
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.device import measure, peak_resident_bytes
from tasks.runtime.events import Emit
from tasks.tuning.activations import PrefixStore, open_prefix
from tasks.tuning.data import EncodedCases, make_batch
from tasks.tuning.lora import add_lora, load_variant
from tasks.tuning.loss import make_objective, objective_sum
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.step import batch_terms, leading_past

GRADIENTS = "gradients.safetensors"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine (`args`: the fields of Setting) and write its gradients to
    `folder`/gradients.safetensors.

    Returns what the engine's function returns but for the gradients, and the device, the speed of its
    largest matrix product (GFLOP/s), peak resident bytes, and how many first tokens all prompts have
    in common.
    """
    setting = Setting.model_validate(args)
    device = measure()
    config = setting.config
    largest = (setting.batch * setting.length, config["hidden_size"], config["intermediate_size"])
    speed_before = matmul_speed(*largest)

    cases = setting.cases
    measure_engine = _our_measurement if setting.engine == "ours" else measure_stock
    figures = measure_engine(setting, cases)
    mx.save_safetensors(str(setting.folder / GRADIENTS), figures.pop("gradients"))
    return figures | {
        "device": asdict(device),
        "matmul_gflops": max(speed_before, matmul_speed(*largest)),
        "peak_rss_bytes": peak_resident_bytes(),
        "leading_tokens": cases.leading,
    }


def _our_measurement(setting: Setting, cases: EncodedCases) -> dict[str, Any]:
    """Time updates over a stored prefix: `seconds` of each, bytes of memory, FLOPs of a step, the
    `gradients` of the first one, and the blocks of the prefix with the seconds that storing it took.
    """
    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(setting.variant, backend().compute_path)
    adapted = add_lora(stack, setting.recipe, setting.training, seed=0)
    start_adapter(stack.model)
    weights_bytes = mx.get_active_memory()
    start = time.perf_counter()
    store = PrefixStore(setting.folder, VariantManifest.read(setting.variant).digest)
    prefix = open_prefix(stack, cases, adapted.boundary, store)
    seconds_of_storing = time.perf_counter() - start if prefix.boundary else None
    objective = make_objective(setting.recipe, cases.labels)

    optimizer = setting.optimizer()
    update = updates_of(adapted, prefix, objective, optimizer, setting.recipe.learning_rate)
    gradients: Weights = {}
    seconds = []
    mx.reset_peak_memory()
    for _ in range(1 + setting.repeats):
        start = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - start)
        gradients = gradients or first_gradients(optimizer)

    peak = mx.get_peak_memory()
    cached = mx.get_cache_memory()
    # MLX cannot export a graph with custom derivatives; the products are the same without them.
    counted = replace(adapted, stack=replace(stack, cpu_kernels=False, logit_bytes=1 << 62))

    def loss(model: nn.Module) -> mx.array:
        count = len(cases.encoded)
        batch = make_batch(cases, range(count))
        terms = batch_terms(counted, prefix, batch, leading_past(counted, prefix))
        tokens = cases.scored_tokens(range(count))
        return objective_sum(terms, batch.labels, objective, tokens, count)[0]

    return {
        "seconds": seconds[1:],
        "weights_memory_bytes": weights_bytes,
        "peak_memory_bytes": peak,
        "cache_memory_bytes": cached,
        "matmul_flops": matmul_flops(stack.model, loss),
        "gradients": gradients,
        "notes": ["after a warm-up step"],
        "prefix": {"blocks": prefix.boundary, "seconds": seconds_of_storing},
    }


# A step on packed weights takes about a minute on a CPU.
SLOW_REPEATS = 1
# Room for stock's padding; at its limit stock would cut the padding target off.
PADDING = 64


def measure_stock(setting: Setting, cases: EncodedCases) -> dict[str, Any]:
    """Time the steps of `train()` on the batch after its first, in which it is compiled: as for ours.

    Several steps, or one where the weights are packed on a CPU.
    """
    dense = setting.engine == "stock_dense"
    slow = not backend().on_gpu and not dense
    notes = ["n=1, after a warm-up step" if slow else "after a warm-up step"]
    if not (backend().on_gpu or shutil.which("g++")):
        mx.disable_compile()
        notes.append("not compiled, since MLX on CPU needs g++ for that")
    model = _stock_model(setting, dense)
    weights_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    repeats = SLOW_REPEATS if slow else setting.repeats
    clock = _train(model, setting, cases, steps=1 + repeats)
    peak = mx.get_peak_memory()
    cached = mx.get_cache_memory()

    batches = iterate_batches(_dataset(cases), setting.batch, setting.length + PADDING)
    tokens, lengths = next(batches)
    return {
        "seconds": clock.seconds[1:],
        "weights_memory_bytes": weights_bytes,
        "peak_memory_bytes": peak,
        "cache_memory_bytes": cached,
        "matmul_flops": matmul_flops(model, lambda m: default_loss(m, tokens, lengths)[0]),
        "gradients": clock.gradients,
        "notes": notes,
        "prefix": None,
    }


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
