"""One training step of stock mlx-lm and of ours, on the same batch from the same adapter, each in a process of its own:
`uv run python -m tests.bench.training`, on a quiet machine.

A BLAS library, once loaded, stays: hence the processes. Engines:
    stock        as installed: the wheel's own BLAS, packed weights with float32 scales and norms (as stored on Metal)
    stock_dense  the same `train()` with our BLAS and the same weights unpacked to float32
    ours         updates over a frozen prefix that is already stored, as it is for every recipe but the first
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import typer
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, iterate_batches, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import dequantize_model, load_model
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file

from flows.cli.terminal import console
from tasks.bench.selftest.models import RECIPE, Weights, bench_cases, start_adapter
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.device import measure as measure_device
from tasks.runtime.device import peak_resident_bytes
from tasks.runtime.events import Emit
from tasks.runtime.home import home
from tasks.spec import Recipe, Training
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix
from tasks.tuning.compiled import CompiledUpdates, compiles
from tasks.tuning.data import EncodedCases, effective_batch, make_batch
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.loss import Objective, make_objective, objective_sum
from tasks.tuning.memory import CACHE_BYTES
from tasks.tuning.step import PlainUpdates, batch_terms, leading_past
from tests.bench.common import WHEELS_OWN_BLAS, blocks_of, name_of, print_rows, variant_of
from tests.bench.common import run as run_benchmark

# AdamW's first beta.
FIRST_MOMENT = 0.9
# Trained blocks of each base model in the README's table.
TABLE = (("smollm2-135m", 16), ("smollm2-135m", 8), ("smollm2-360m", 16), ("gemma-3-270m", 16), ("gemma-3-270m", 8))
ENGINES: dict[str, dict[str, str]] = {"stock": WHEELS_OWN_BLAS, "stock_dense": {}, "ours": {}}


def training(
    model: Annotated[str | None, typer.Option(help="this base model alone")] = None,
    layers: Annotated[int, typer.Option(min=1, help="its trained blocks")] = 16,
    bits: Annotated[int, typer.Option(help="4 or 8")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="cases of a step")] = 4,
    length: Annotated[int, typer.Option(min=16, help="tokens of a case")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="timed steps")] = 5,
) -> None:
    """Time a training step of stock mlx-lm as installed, of stock on dense weights, and of ours."""
    cases = TABLE if model is None else ((model, layers),)
    setting = {"batch": batch, "length": length, "repeats": repeats}
    title = f"A step of {batch} x {length} tokens"
    rows = []
    for name, trained in cases:
        rows.append(_row(name, trained, bits, setting))
        print_rows(title, rows)


def _row(model: str, layers: int, bits: int, setting: dict[str, int]) -> dict[str, str]:
    variant = variant_of(model, bits)
    blocks = blocks_of(variant, layers)
    folder = home() / "bench" / f"training-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        whole_setting = {**setting, "variant": str(variant), "layers": layers}
        measured = measure(whole_setting, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    # The best that any process saw, so that a busy moment flatters nobody's share of it.
    gflops = max(engine["matmul_gflops"] for engine in measured.values())
    ours = measured["ours"]
    seconds = median(ours["seconds"])
    row = {
        "LoRA on the last blocks": f"{name_of(model, bits, variant)}, {layers} of {blocks}",
        "seconds a step": f"{seconds:.3g} (n={len(ours['seconds'])})",
    }
    for engine in measured:
        if engine != "ours":
            row[f"times {engine}"] = f"{median(measured[engine]['seconds']) / seconds:.1f}"

    if "stock_dense" in measured:
        share = _over_weights(ours) / _over_weights(measured["stock_dense"])
        row["memory over weights of stock_dense"] = f"{share:.2f}"

    row["of matmul speed"] = f"{ours['matmul_flops'] / seconds / gflops / 1e9:.0%}"
    row["largest gradient difference to stock"] = f"{ours['to_stock']:.1e}"
    return row


def _over_weights(engine: dict[str, Any]) -> int:
    return int(engine["peak_memory_bytes"] - engine["weights_memory_bytes"])


def measure(setting: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """What each engine that this backend is compared with measured, and `to_stock`: by how much its
    gradients differ at most from stock's, as a share of the largest value of a tensor.
    """
    measured = {}
    gradients = {}
    for engine, environment in ENGINES.items():
        if engine != "ours" and engine not in backend().compared_with:
            continue

        args = {**setting, "engine": engine, "folder": str(folder / engine)}
        status = console.status(f"{engine}; stock as installed may take some minutes ...")
        with status, patch.dict(os.environ, environment):
            measured[engine] = run_child("tests.bench.training:run", args, folder / engine)
        gradients[engine] = load_file(folder / engine / "gradients.safetensors")
        measured[engine]["to_stock"] = max(
            float(np.abs(gradients[engine][name] - stock).max() / np.abs(stock).max())
            for name, stock in gradients["stock"].items()
        )

    return measured


class Setting(BaseModel):
    """One engine's training step, and what all engines derive from it: `batch` cases of `length`
    tokens, LoRA on the last `layers` blocks.

    `repeats`: timed steps.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    variant: Path
    folder: Path
    batch: int
    length: int
    layers: int
    repeats: int

    @property
    def config(self) -> dict[str, Any]:
        """The variant's `config.json`."""
        return dict(json.loads((self.variant / "config.json").read_text(encoding="utf-8")))

    @property
    def recipe(self) -> Recipe:
        return RECIPE.model_copy(update={"batch_size": self.batch})

    @property
    def training(self) -> Training:
        return Training(num_layers=self.layers)

    @property
    def cases(self) -> EncodedCases:
        """The benchmark's batch, see `bench_cases`."""
        return bench_cases(self.config["vocab_size"], self.batch, self.length)

    def optimizer(self) -> optim.AdamW:
        betas = [FIRST_MOMENT, 0.999]
        decay = self.training.weight_decay
        return optim.AdamW(self.recipe.learning_rate, betas=betas, weight_decay=decay)


def first_gradients(optimizer: optim.Optimizer) -> Weights:
    """Gradients of an optimizer's only step so far: AdamW's first moment is then (1 - beta) times
    them.
    """
    gradients = {
        name.removesuffix(".m"): value / (1 - FIRST_MOMENT)
        for name, value in tree_flatten(optimizer.state)
        if name.endswith(".m")
    }
    mx.eval(gradients)
    return gradients


PRODUCTS = ("Matmul", "AddMM", "QuantizedMatmul")
SPEED_REPEATS = 15


def matmul_flops(model: nn.Module, loss: Callable[[nn.Module], mx.array]) -> int:
    """FLOPs of all matrix products in loss and gradients, counted in the graph that MLX builds for
    them.

    A product of (..., M, K) and (K, N) counts 2 M N K. Products that no gradient needs are not in
    the graph.
    """
    weights: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    value_and_gradient = nn.value_and_grad(model, loss)

    def step(**parameters: mx.array) -> list[mx.array]:
        model.update(tree_unflatten(list(parameters.items())))
        value, gradients = value_and_gradient(model)
        return [value, *(gradient for _, gradient in tree_flatten(gradients))]

    nodes: list[dict[str, Any]] = []
    # The graph is the CPU's: a GPU's has fused operations, which MLX cannot export. Nothing is
    # computed.
    with mx.stream(mx.cpu):
        mx.export_function(nodes.append, step, **weights)  # type: ignore[arg-type]  # keywords are the step's
    model.update(tree_unflatten(list(weights.items())))

    flops = 0
    for node in nodes:
        if node.get("name") in PRODUCTS:
            _, left_shape, _ = node["inputs"][0]
            _, shape, _ = node["outputs"][0]
            flops += 2 * math.prod(shape) * int(left_shape[-1])
    return flops


def matmul_speed(rows: int, inner: int, columns: int) -> float:
    """Median speed in GFLOP/s of float32 products (rows, inner) x (inner, columns), laid out as a
    linear layer's.
    """
    x = mx.array(np.random.default_rng(0).random((rows, inner), np.float32))
    weight = mx.array(np.random.default_rng(0).random((columns, inner), np.float32))
    mx.eval(x @ weight.T)

    seconds = []
    for _ in range(SPEED_REPEATS):
        start = time.perf_counter()
        mx.eval(x @ weight.T)
        seconds.append(time.perf_counter() - start)

    return float(2 * rows * inner * columns / np.median(seconds) / 1e9)


def updates_of(
    adapted: Adapted,
    prefix: Prefix,
    objective: Objective,
    optimizer: optim.Optimizer,
    learning_rate: float,
    dropout_seed: int | None = None,
) -> Callable[[], None]:
    """A function that makes one update of all cases at each call, as a training does, and waits for it.

    `dropout_seed`: None for an update without dropout.
    """
    model = adapted.stack.model
    optimizer.init(model.trainable_parameters())
    cases = prefix.cases
    count = len(cases.encoded)
    kind = CompiledUpdates if compiles() else PlainUpdates
    updates = kind(adapted, prefix, objective, optimizer, None)
    numbers = itertools.count()

    def update() -> None:
        key = None if dropout_seed is None else (dropout_seed, next(numbers))
        updates.start(effective_batch(cases, range(count), count, key), learning_rate)
        updates.hand_back()
        mx.eval(model.trainable_parameters(), optimizer.state)

    return update


GRADIENTS = "gradients.safetensors"


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure one engine (`args`: the fields of Setting) and write its gradients to
    `folder`/gradients.safetensors.

    Returns what the engine's function returns but for the gradients, and the device, the speed of its
    largest matrix product (GFLOP/s), peak resident bytes, and how many first tokens all prompts have
    in common.
    """
    setting = Setting.model_validate(args)
    device = measure_device()
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


if __name__ == "__main__":
    run_benchmark(training)
