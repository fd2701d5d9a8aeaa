"""`triage bench train`: one training step of stock mlx-lm and of ours, each engine in a process of
its own.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from flows.bench.shared import (
    WHEELS_OWN_BLAS,
    Engine,
    blocks_of,
    land_benchmark,
    own_versions,
    variant_of,
)
from flows.bench.training_table import print_summary, print_table
from tasks.models.model_folders import has_random_weights
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.errors import TriageError
from tasks.runtime.events import Device
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.spec import canonical_json

STOCK = Engine("stock", "stock as installed", WHEELS_OWN_BLAS)
STOCK_DENSE = Engine("stock_dense", "stock, fast BLAS, dense float32", {})
OURS = Engine("ours", "ours", {})
STOCK_BFLOAT16 = Engine("stock_bfloat16", "stock, bfloat16 as stored", WHEELS_OWN_BLAS)
# Base model, trained blocks: each at 4 bits and 4 x 256 tokens.
TABLE = (
    ("smollm2-135m", 16),
    ("smollm2-135m", 8),
    ("smollm2-360m", 16),
    ("gemma-3-270m", 16),
    ("gemma-3-270m", 8),
)
TABLE_BATCH = 4
TABLE_LENGTH = 256


def bench_train(
    console: Console,
    model: str,
    bits: int,
    batch: int,
    length: int,
    layers: int,
    repeats: int,
    bfloat16: bool = False,
) -> dict[str, Any]:
    """Measure, print a table, write `bench/<run id>.json` under TRIAGE_HOME and load it into the
    warehouse.

    Returns what was written. Raises BadInput for an unknown model, other bits than 4 or 8, or more
    layers than it has.
    """
    variant = variant_of(console, model, bits)
    blocks = blocks_of(variant, model, layers)
    setting = {
        "variant": str(variant),
        "batch": batch,
        "length": length,
        "layers": layers,
        "repeats": repeats,
    }
    created = datetime.now(UTC)
    run_id = f"train-{created:%Y%m%dT%H%M%SZ}"
    folder = home() / "bench" / run_id
    compared = [engine for engine in (STOCK, STOCK_DENSE) if engine.key in backend().compared_with]
    engines = [*compared, OURS]
    engines = [STOCK_BFLOAT16, *engines] if bfloat16 else engines
    measurements = _measure(console, engines, setting, folder)
    report = {
        "run_id": run_id, "created_at": created.isoformat(), "model": model, "bits": bits, "blocks": blocks, **setting,
        "variant": variant.name, "random_weights": has_random_weights(variant), "versions": own_versions(),
        "engines": [{"engine": e.key, "title": e.title, **measurements[e.key]} for e in engines],
    }  # fmt: skip
    path = folder.with_name(f"{run_id}.json")
    write_atomic(path, json.dumps(report, indent=1))
    print_table(console, report)
    land_benchmark(run_id, _rows(report))
    shutil.rmtree(folder)
    console.print(f"Written to {path} and the warehouse's table benchmark.", soft_wrap=True)

    return report


def bench_table(console: Console, repeats: int) -> list[dict[str, Any]]:
    """Measure every case of TABLE, print each, and then one line per case. For a quiet machine: it
    takes long.

    A case that fails is printed, and the others are measured nevertheless. Raises TriageError in
    the end.
    """
    reports = []
    failures = []
    for model, layers in TABLE:
        try:
            reports.append(
                bench_train(console, model, 4, TABLE_BATCH, TABLE_LENGTH, layers, repeats)
            )
        except TriageError as error:
            failures.append(f"{model}, {layers} layers: {error}")
            console.print(f"FAILED {failures[-1]}", soft_wrap=True)

    if reports:
        print_summary(console, reports)
    if failures:
        raise TriageError(
            f"{len(failures)} of {len(TABLE)} cases could not be measured. {' '.join(failures)}"
        )

    return reports


def _measure(
    console: Console, engines: list[Engine], setting: dict[str, Any], folder: Path
) -> dict[str, dict[str, Any]]:
    """Figures per engine, one process after the other, and in a last one how far their gradients
    are apart.
    """
    measurements = {}
    for engine in engines:
        place = folder / engine.key
        args = {**setting, "engine": engine.key, "folder": str(place)}
        with console.status(
            f"Measuring {engine.title}; stock as installed may take some minutes ..."
        ):
            measurements[engine.key] = run_child(
                "tasks.bench.training:run", args, place, environment=engine.environment
            )

    with console.status("Comparing gradients ..."):
        gradients = {
            engine.key: str(folder / engine.key / "gradients.safetensors") for engine in engines
        }
        args = {**setting, "engine": "float64", "folder": str(folder), "gradients": gradients}
        differences = run_child("tasks.bench.training:compare", args, folder)

    # The best that any process saw, so that a busy moment flatters nobody's share of it.
    speed = max(measurement["matmul_gflops"] for measurement in measurements.values())
    for engine in engines:
        measurement = measurements[engine.key]
        measurement["figures"] = _figures(setting, measurement, speed) | {
            f"gradient_difference_{key}": value for key, value in differences[engine.key].items()
        }

    for engine in engines:
        measurements[engine.key]["figures"] |= _ratios(measurements, engine.key)
    return measurements


def _figures(
    setting: dict[str, Any], measurement: dict[str, Any], matmul_gflops: float
) -> dict[str, Any]:
    """The figures of one engine; `matmul_gflops`: what the machine reaches at the shape of an MLP
    product.
    """
    seconds = median(measurement["seconds"])
    peak = measurement["peak_memory_bytes"]
    weights = measurement["weights_memory_bytes"]
    return {
        "seconds_per_step": seconds,
        "seconds_per_step_min": min(measurement["seconds"]),
        "seconds_per_step_max": max(measurement["seconds"]),
        "tokens_per_second": setting["batch"] * setting["length"] / seconds,
        "weights_memory_bytes": weights,
        "peak_memory_bytes": peak,
        "peak_over_weights_bytes": peak - weights,
        "peak_rss_bytes": measurement["peak_rss_bytes"],
        "cache_memory_bytes": measurement["cache_memory_bytes"],
        "matmul_flops": measurement["matmul_flops"],
        "matmul_gflops": measurement["matmul_gflops"],
        "matmul_share": measurement["matmul_flops"] / seconds / matmul_gflops / 1e9,
        "prefix_seconds": (measurement["prefix"] or {}).get("seconds"),
    }


def _ratios(measurements: dict[str, dict[str, Any]], key: str) -> dict[str, float]:
    """How many times faster than each stock engine, and the share of its memory over weights."""
    own_figures = measurements[key]["figures"]
    ratios = {}
    for stock in (e for e in (STOCK.key, STOCK_DENSE.key) if e in measurements):
        stock_figures = measurements[stock]["figures"]
        ratios[f"speed_up_over_{stock}"] = (
            stock_figures["seconds_per_step"] / own_figures["seconds_per_step"]
        )
        ratios[f"memory_against_{stock}"] = (
            own_figures["peak_over_weights_bytes"] / stock_figures["peak_over_weights_bytes"]
        )

    return ratios


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The report in long form, a row per engine and figure; figures that do not apply are left out."""
    case_name = (
        f"{report['model']} {report['bits']}bit {report['batch']}x{report['length']}, "
        f"{report['layers']} layers"
    )
    return [
        _row(report, engine, case_name, metric, value)
        for engine in report["engines"]
        for metric, value in engine["figures"].items()
        if value is not None
    ]


def _row(
    report: dict[str, Any], engine: dict[str, Any], case_name: str, metric: str, value: float
) -> dict[str, Any]:
    is_timed = "seconds_per_step" in metric or metric == "tokens_per_second"
    return {
        "run_id": report["run_id"],
        "created_at": report["created_at"],
        "machine": engine["device"]["machine"],
        "versions": canonical_json(report["versions"]),
        "name": "train",
        "case": f"{case_name}, {engine['engine']}",
        "metric": metric,
        "value": value,
        "unit": _unit(metric),
        "n": len(engine["seconds"]) if is_timed else 1,
        "note": "; ".join([Device(**engine["device"]).products, *engine["notes"]]),
    }


def _unit(metric: str) -> str:
    units = {"tokens_per_second": "tokens/s", "matmul_flops": "FLOP", "matmul_gflops": "GFLOP/s"}
    return units.get(metric) or next(
        (unit for part, unit in (("seconds", "s"), ("bytes", "B")) if part in metric), "1"
    )
