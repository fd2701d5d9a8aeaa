"""Checks that this machine computes the right numbers: for `triage doctor --selftest`, in a child
process.

Quantised kernels against the same weights unpacked, our gradients against stock mlx-lm's, and on
Metal the memory limits, on tiny models with random weights that are created, quantised and loaded
like real ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss

from tasks.bench.setting import Weights, bench_cases, largest_difference, start_adapter
from tasks.models.convert import run_quantize
from tasks.models.sources.available import fetch_base
from tasks.runtime.backend import backend, can_wire_memory
from tasks.runtime.events import Emit
from tasks.spec import BaseModelSpec, RandomSource, Recipe, Training
from tasks.tuning.architecture import Stack
from tasks.tuning.batches import Cases, make_batch, padded_tokens
from tasks.tuning.engine import update_gradients
from tasks.tuning.frozen_prefix import Prefix
from tasks.tuning.lora import Adapted, add_lora, load_variant
from tasks.tuning.losses import make_objective

MODELS = ("tiny-llama", "tiny-gemma3")
CASES = 3
LENGTH = 48
# bfloat16 keeps 8 bits, so how far it is off depends on the model. The yardstick is the same model
# unpacked to bfloat16: the quantised kernels' root mean square error may be at most this many times
# the dense ones'. On a GPU only: on CPU MLX's bfloat16 kernels measure about 3, and no study uses
# them.
BFLOAT16_LIMIT = 2.0
TRAINING = Training(num_layers=2)
RECIPE = Recipe(
    name="selftest",
    kind="standard",
    learning_rate=1e-4,
    batch_size=CASES,
    rank=4,
    scale=5,
    dropout=0,
    iterations=1,
)
CACHE_LIMIT = 64 << 20
CACHE_BLOCK = CACHE_LIMIT // 4
WRONG = "run `uv sync` to get the versions that the study was tested with; if it stays, report it with the file below"
Check = dict[str, Any]


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run every check; `args`: `folder`, for the tiny models. Returns `checks`, a list.

    A check has name, ok, value, limit, unit, and what to do (`remedy`) and how bad it is (`level`)
    if it is not ok.
    """
    checks = [
        check
        for name in MODELS
        for bits in (4, 8)
        for check in _variant_checks(name, bits, Path(args["folder"]))
    ]
    if backend().on_gpu:
        checks.append(_cache_limit())
    if backend().wires_memory:
        checks.append(_wired_limit())
    return {"checks": checks}


def _variant_checks(name: str, bits: int, root: Path) -> Iterator[Check]:
    folder = _make(name, bits, root)
    limit = backend().selftest_tolerance
    title = f"{name} {bits}bit"
    packed = load_variant(folder, "packed")
    dense = load_variant(folder, "dequantised_f32")
    if backend().on_gpu:
        yield _bfloat16(title, packed, folder)

    packed.model.set_dtype(mx.float32)
    difference = _relative_difference(_outputs(packed), _outputs(dense))
    yield _check(f"{title}: packed against dequantised", difference, limit)

    cases = bench_cases(dense.model.args.vocab_size, CASES, LENGTH)
    stack = load_variant(folder, backend().compute_path)
    stack.model.set_dtype(mx.float32)
    stock_loss, stock_gradients = _stock(_adapted(packed), cases)
    loss, gradients = _ours(_adapted(stack), cases)
    relative = abs(loss - stock_loss) / abs(stock_loss)
    yield _check(f"{title}: loss against stock mlx-lm", relative, limit)
    largest = largest_difference(gradients, stock_gradients)
    yield _check(f"{title}: gradients against stock mlx-lm", largest, limit)


def _bfloat16(title: str, packed: Stack, folder: Path) -> Check:
    """Errors of the packed model as stored, in units of those of the same model unpacked to
    bfloat16.
    """
    dense = load_variant(folder, "dequantised_f32")
    exact = _outputs(dense)
    dense.model.set_dtype(mx.bfloat16)
    ratio = _error(_outputs(packed), exact) / _error(_outputs(dense), exact)
    return _check(f"{title}: packed in bfloat16", ratio, BFLOAT16_LIMIT, "times the dense error")


def _check(name: str, value: float, limit: float, unit: str = "relative difference") -> Check:
    return {
        "name": name,
        # False for NaN, too.
        "ok": bool(value <= limit),
        "value": value,
        "limit": limit,
        "unit": unit,
        "level": "error",
        "remedy": WRONG,
    }


def _memory_check(name: str, ok: bool, value: int, limit: int, remedy: str) -> Check:
    return {
        "name": name,
        "ok": ok,
        "value": value,
        "limit": limit,
        "unit": "bytes",
        "level": "warning",
        "remedy": remedy,
    }


def _make(name: str, bits: int, root: Path) -> Path:
    source = RandomSource(kind="random", shape=name)
    spec = BaseModelSpec(name=name, licence="Apache-2.0", sources=(source,))
    args = {
        "source": str(fetch_base(spec, root)),
        "root": str(root),
        "bits": bits,
        "group_size": TRAINING.group_size,
    }
    return Path(run_quantize(args)["folder"])


def _outputs(stack: Stack) -> mx.array:
    """Logits (CASES, LENGTH, V) in float32 for fixed random tokens."""
    tokens = np.random.default_rng(0).integers(1, stack.model.args.vocab_size, (CASES, LENGTH))
    return stack.model(mx.array(tokens.astype(np.int32))).astype(mx.float32)


def _relative_difference(a: mx.array, b: mx.array) -> float:
    return float(np.array(mx.abs(a - b).max() / mx.abs(b).max()))


def _error(a: mx.array, b: mx.array) -> float:
    return float(np.array(mx.sqrt(mx.square(a - b).mean())))


def _adapted(stack: Stack) -> Adapted:
    adapted = add_lora(stack, RECIPE, TRAINING, seed=0)
    start_adapter(stack.model)
    return adapted


def _stock(adapted: Adapted, cases: Cases) -> tuple[float, Weights]:
    """Loss and LoRA gradients of mlx_lm.tuner.trainer.default_loss."""
    rows = make_batch(cases, range(CASES)).rows
    tokens = padded_tokens([row.inputs for row in rows], LENGTH + 1)
    lengths = mx.array([(row.first + 1, len(row.inputs)) for row in rows])
    step = nn.value_and_grad(
        adapted.stack.model, lambda model: default_loss(model, mx.array(tokens), lengths)[0]
    )
    loss, gradients = step(adapted.stack.model)
    return float(np.array(loss)), dict(tree_flatten(gradients))


def _ours(adapted: Adapted, cases: Cases) -> tuple[float, Weights]:
    prefix = Prefix.embedded(adapted.stack, cases)
    objective = make_objective(RECIPE, cases.labels)
    loss, _, gradients = update_gradients(adapted, prefix, range(CASES), objective, CASES, None)
    return float(np.array(loss)), dict(tree_flatten(gradients))


def _wired_limit() -> Check:
    """Can the recommended working set be wired, so that weights are never paged out? The old limit
    is restored.

    MLX accepts any limit in silence where macOS wires nothing, so its version counts too.
    """
    recommended = int(mx.device_info()["max_recommended_working_set_size"])
    accepted = 0
    # Raised for more than a limit that the user has set.
    with contextlib.suppress(RuntimeError, ValueError):
        before = mx.set_wired_limit(recommended)
        accepted = mx.set_wired_limit(before) if can_wire_memory() else 0
    remedy = (
        "wiring memory needs macOS 15 and no lower limit in `sysctl iogpu.wired_limit_mb`; "
        "without it, training may slow down when memory is short"
    )
    return _memory_check(
        "wired memory limit", accepted == recommended, accepted, recommended, remedy
    )


def _cache_limit() -> Check:
    """Does the allocator's cache stay near its limit after four times as much is freed? The old
    limit is restored.

    MLX looks at the cache before it adds a freed block, so that it holds one more at most.
    """
    before = mx.set_cache_limit(CACHE_LIMIT)
    mx.clear_cache()
    count = 4 * CACHE_LIMIT // CACHE_BLOCK
    blocks = [mx.full(CACHE_BLOCK, i, dtype=mx.uint8) for i in range(count)]
    mx.eval(blocks)
    del blocks
    cached = mx.get_cache_memory()
    mx.set_cache_limit(before)
    limit = CACHE_LIMIT + CACHE_BLOCK
    remedy = "freed memory is kept, so that more is used than planned; leave some free"
    return _memory_check("cache limit", cached <= limit, cached, limit, remedy)
