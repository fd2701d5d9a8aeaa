"""`triage bench memory`: the packed peak of each variant, so that 4 and 8 bits can be compared off a Mac too."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.bench import BITS, blocks_of, has_random_weights, land_benchmark, own_versions, variant_of
from flows.display import RANDOM
from tasks.runtime.child import run_child
from tasks.runtime.device import machine_name
from tasks.runtime.store import home
from tasks.spec import canonical_json

MODELS = ("smollm2-135m", "smollm2-360m", "gemma-3-270m")
COLUMNS = (
    ("stored", "stored_bytes"), ("loaded", "weights_memory_bytes"), ("peak of a step", "peak_memory_bytes"),
    ("over weights", "peak_over_weights_bytes"), ("MLX cache", "cache_memory_bytes"), ("process peak", "peak_rss_bytes"),
)  # fmt: skip


def bench_memory(
    console: Console, models: list[str] | None, bits: list[int] | None, batch: int, length: int, layers: int
) -> list[dict[str, Any]]:
    """One packed training step of each variant in a process of its own; prints a table and loads it into `benchmark`.

    Raises BadInput for an unknown model, other bits than 4 or 8, or more layers than a model has.
    """
    created = datetime.now(UTC)
    run_id = f"memory-{created:%Y%m%dT%H%M%SZ}"
    reports = []
    for model in models or MODELS:
        for width in bits or BITS:
            variant = variant_of(console, model, width)
            blocks_of(variant, model, layers)
            with console.status(f"One packed step of {model} {width}bit; some minutes where there is no Metal ..."):
                figures = _measure(variant, home() / "bench" / run_id, batch, length, layers)
            random = has_random_weights(variant)
            reports.append({"model": model, "bits": width, "random_weights": random, "figures": figures})
    _print(console, reports, f"{batch} x {length} tokens, LoRA on {layers} blocks")
    rows = [row for report in reports for row in _rows(report, run_id, created, f"{batch}x{length}, {layers} layers")]
    land_benchmark(run_id, rows)
    return reports


def _measure(variant: Path, folder: Path, batch: int, length: int, layers: int) -> dict[str, Any]:
    args = {
        "engine": "packed", "variant": str(variant), "folder": str(folder), "batch": batch, "length": length,
        "layers": layers, "repeats": 1,
    }  # fmt: skip
    try:
        return run_child("tasks.tuning.bench_memory:run", args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print(console: Console, reports: list[dict[str, Any]], what: str) -> None:
    table = Table(title=f"One training step on quantised weights, {what}: MB", title_justify="left")
    table.add_column("variant")
    for title, _ in COLUMNS:
        table.add_column(title, justify="right")
    for report in reports:
        weights = RANDOM if report["random_weights"] else ""
        cells = [f"{report['figures'][key] / 1e6:.1f}" for _, key in COLUMNS]
        table.add_row(f"{report['model']} {report['bits']}bit{weights}", *cells)
    console.print(table)


def _rows(report: dict[str, Any], run_id: str, created: datetime, what: str) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id, "created_at": created.isoformat(), "machine": machine_name(),
            "versions": canonical_json(own_versions()),
            "name": "memory", "case": f"{report['model']} {report['bits']}bit {what}", "metric": metric, "value": value,
            "unit": "s" if metric == "seconds_per_step" else "B", "n": 1,
            "note": "packed; random weights" if report["random_weights"] else "packed",
        }
        for metric, value in report["figures"].items()
    ]  # fmt: skip
