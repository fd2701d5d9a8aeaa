"""One training step of stock mlx-lm and of ours, on the same batch, each in a process of its own:
`uv run python -m tests.bench.training`, on a quiet machine.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from safetensors.numpy import load_file

from flows.cli.terminal import console
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.home import home
from tests.bench.common import WHEELS_OWN_BLAS, blocks_of, name_of, print_rows, run, variant_of

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
            measured[engine] = run_child("tasks.bench.training:run", args, folder / engine)
        gradients[engine] = load_file(folder / engine / "gradients.safetensors")
        measured[engine]["to_stock"] = max(
            float(np.abs(gradients[engine][name] - stock).max() / np.abs(stock).max())
            for name, stock in gradients["stock"].items()
        )

    return measured


if __name__ == "__main__":
    run(training)
