"""`triage bench memory`: the packed peak of each variant, so that 4 and 8 bits can be compared off a Mac too; with a
budget, what a training of this machine makes of it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.bench.shared import BITS, blocks_of, land_benchmark, own_versions, variant_of
from flows.report.names import RANDOM
from tasks.models.convert import has_random_weights
from tasks.runtime.child import run_child
from tasks.runtime.device import compute_path, machine_name
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, Note, StepWarning
from tasks.runtime.store import home
from tasks.spec import byte_count, canonical_json

MODELS = ("smollm2-135m", "smollm2-360m", "gemma-3-270m")
UNITS = {"seconds_per_step": "s", "micro_batch": "cases", "checkpointed_blocks": "1"}
COLUMNS = (
    ("stored", "stored_bytes"), ("loaded", "weights_memory_bytes"), ("peak of a step", "peak_memory_bytes"),
    ("over weights", "peak_over_weights_bytes"), ("MLX cache", "cache_memory_bytes"), ("process peak", "peak_rss_bytes"),
)  # fmt: skip


def bench_memory(
    console: Console, models: list[str] | None, bits: list[int] | None, batch: int, length: int, layers: int,
    memory: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """One training step of each variant in a process of its own; prints a table and loads it into `benchmark`.

    Without `memory` on the weights as stored; within `memory` (`4GB`, weights included) as a training here makes it, with
    the micro-batch and the checkpointing that it chooses. Raises BadInput for an unknown model, other bits than 4 or 8,
    more layers than a model has, or a budget that is none or holds not even one case.
    """
    budget = _bytes(memory)
    created = datetime.now(UTC)
    run_id = f"memory-{created:%Y%m%dT%H%M%SZ}"
    path = compute_path() if budget else "packed"
    what = f"{batch}x{length}, {layers} layers" + (f", within {memory}" if budget else "")
    reports = []
    for model in models or MODELS:
        for width in bits or BITS:
            variant = variant_of(console, model, width)
            blocks_of(variant, model, layers)
            with console.status(
                f"One step of {model} {width}bit; some minutes where there is no Metal ..."
            ):
                figures = _measure(
                    console, variant, home() / "bench" / run_id, batch, length, layers, budget
                )
            random = has_random_weights(variant)
            reports.append(
                {
                    "model": model,
                    "bits": width,
                    "random_weights": random,
                    "path": path,
                    "figures": figures,
                }
            )
    _print(console, reports, _title(batch, length, layers, memory, path))
    land_benchmark(
        run_id, [row for report in reports for row in _rows(report, run_id, created, what)]
    )
    return reports


def _bytes(memory: str | None) -> int | None:
    try:
        return byte_count(memory) if memory is not None else None
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from None


def _title(batch: int, length: int, layers: int, memory: str | None, path: str) -> str:
    how = f"within {memory} ({path})" if memory else "on quantised weights"
    return f"One training step {how}, {batch} x {length} tokens, LoRA on {layers} blocks: MB"


def _measure(
    console: Console,
    variant: Path,
    folder: Path,
    batch: int,
    length: int,
    layers: int,
    budget: int | None,
) -> dict[str, Any]:
    args = {
        "engine": "memory", "variant": str(variant), "folder": str(folder), "batch": batch, "length": length,
        "layers": layers, "repeats": 1,
    }  # fmt: skip
    name = "run" if budget is None else "run_within"

    def say(event: Event) -> None:
        if isinstance(event, Note | StepWarning):
            console.print(event.message, soft_wrap=True)

    try:
        return run_child(
            f"tasks.bench.memory:{name}", args | ({"memory": budget} if budget else {}), folder, say
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print(console: Console, reports: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("variant")
    budgeted = any("micro_batch" in report["figures"] for report in reports)
    for name in (*(name for name, _ in COLUMNS), *(("micro-batch", "blocks") if budgeted else ())):
        table.add_column(name, justify="right")
    for report in reports:
        weights = RANDOM if report["random_weights"] else ""
        cells = [f"{report['figures'][key] / 1e6:.1f}" for _, key in COLUMNS]
        if budgeted:
            kept = "checkpointed" if report["figures"]["checkpointed_blocks"] else "kept"
            cells += [str(report["figures"]["micro_batch"]), kept]
        table.add_row(f"{report['model']} {report['bits']}bit{weights}", *cells)
    console.print(table)


def _rows(
    report: dict[str, Any], run_id: str, created: datetime, what: str
) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id, "created_at": created.isoformat(), "machine": machine_name(),
            "versions": canonical_json(own_versions()),
            "name": "memory", "case": f"{report['model']} {report['bits']}bit {what}", "metric": metric, "value": value,
            "unit": UNITS.get(metric, "B"), "n": 1,
            "note": report["path"] + ("; random weights" if report["random_weights"] else ""),
        }
        for metric, value in report["figures"].items()
    ]  # fmt: skip
