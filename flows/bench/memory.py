"""`triage bench memory`: the packed peak of each variant, so that 4 and 8 bits can be compared on
other machines than a Mac; with a budget, the step that a training on this machine makes within
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.bench.shared import (
    BITS,
    BenchmarkRows,
    blocks_of,
    land_benchmark,
    own_versions,
    variant_of,
)
from flows.report.names import RANDOM
from tasks.models.model_folders import has_random_weights
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.device import machine_name
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, Note, StepWarning
from tasks.runtime.home import home
from tasks.spec import byte_count, canonical_json

MODELS = ("smollm2-135m", "smollm2-360m", "gemma-3-270m")
UNITS = {"seconds_per_step": "s", "micro_batch": "cases", "checkpointed_blocks": "1"}
COLUMNS = {
    "stored": "stored_bytes",
    "loaded": "weights_memory_bytes",
    "peak of a step": "peak_memory_bytes",
    "over weights": "peak_over_weights_bytes",
    "MLX cache": "cache_memory_bytes",
    "process peak": "peak_rss_bytes",
}
BUDGETED_COLUMNS = ("micro-batch", "blocks")


@dataclass(frozen=True)
class MeasuredStep:
    """The training step that is measured: its batch, tokens per case, trained blocks and memory
    budget, if any.

    Without `memory` it runs on the weights as stored; within `memory` (`4GB`, weights included) as
    a training here makes it, with the micro-batch and the checkpointing that it chooses.
    """

    batch: int
    length: int
    layers: int
    memory: str | None = None

    @property
    def budget(self) -> int | None:
        """The budget in bytes. Raises BadInput for a text that is no number of bytes."""
        try:
            return None if self.memory is None else byte_count(self.memory)
        except ValueError as error:
            raise BadInput(f"--memory: {error}.") from None

    @property
    def path(self) -> str:
        """The compute path of the step."""
        return backend().compute_path if self.memory else "packed"

    @property
    def title(self) -> str:
        method = f"within {self.memory} ({self.path})" if self.memory else "on quantised weights"
        size = f"{self.batch} x {self.length} tokens, LoRA on {self.layers} blocks"
        return f"One training step {method}, {size}: MB"

    @property
    def case(self) -> str:
        """The step in a row of the table `benchmark`."""
        budget = f", within {self.memory}" if self.memory else ""
        return f"{self.batch}x{self.length}, {self.layers} layers{budget}"


@dataclass(frozen=True)
class MemoryReport:
    """What a step of one variant took: figures by the name of the metric."""

    model: str
    bits: int
    random_weights: bool
    path: str
    figures: dict[str, float]

    @property
    def is_budgeted(self) -> bool:
        return "micro_batch" in self.figures


def bench_memory(
    console: Console, models: Sequence[str] | None, bits: Sequence[int] | None, step: MeasuredStep
) -> list[MemoryReport]:
    """Measure one step of each variant in a separate process; print a table and load it into
    `benchmark`.

    Raises BadInput for an unknown model, other bits than 4 or 8, more layers than a model has, or
    a budget that does not hold even one case.
    """
    budget = step.budget
    created = datetime.now(UTC)
    run_id = f"memory-{created:%Y%m%dT%H%M%SZ}"
    folder = home() / "bench" / run_id

    reports = []
    for model in models or MODELS:
        for width in bits or BITS:
            variant = variant_of(console, model, width)
            blocks_of(variant, model, step.layers)
            title = f"One step of {model} {width}bit; some minutes where there is no Metal ..."
            with console.status(title):
                figures = _measure(console, variant, folder, step, budget)
            random = has_random_weights(variant)
            reports.append(MemoryReport(model, width, random, step.path, figures))

    _print(console, reports, step.title)
    rows = [row for report in reports for row in _rows(report, run_id, created, step)]
    land_benchmark(run_id, rows)
    return reports


def _measure(
    console: Console, variant: Path, folder: Path, step: MeasuredStep, budget: int | None
) -> dict[str, float]:
    args = {
        "engine": "memory",
        "variant": str(variant),
        "folder": str(folder),
        "batch": step.batch,
        "length": step.length,
        "layers": step.layers,
        "repeats": 1,
    }
    function = "run" if budget is None else "run_within"

    def emit(event: Event) -> None:
        if isinstance(event, Note | StepWarning):
            console.print(event.message, soft_wrap=True)

    if budget:
        args["memory"] = budget

    try:
        return run_child(f"tasks.bench.memory:{function}", args, folder, emit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print(console: Console, reports: list[MemoryReport], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("variant")

    is_budgeted = any(report.is_budgeted for report in reports)
    for name in (*COLUMNS, *(BUDGETED_COLUMNS if is_budgeted else ())):
        table.add_column(name, justify="right")
    for report in reports:
        table.add_row(*_cells(report))

    console.print(table)


def _cells(report: MemoryReport) -> Iterator[str]:
    yield f"{report.model} {report.bits}bit{RANDOM if report.random_weights else ''}"
    for metric in COLUMNS.values():
        yield f"{report.figures[metric] / 1e6:.1f}"
    if report.is_budgeted:
        yield str(report.figures["micro_batch"])
        yield "checkpointed" if report.figures["checkpointed_blocks"] else "kept"


def _rows(
    report: MemoryReport, run_id: str, created: datetime, step: MeasuredStep
) -> BenchmarkRows:
    return [
        {
            "run_id": run_id,
            "created_at": created.isoformat(),
            "machine": machine_name(),
            "versions": canonical_json(own_versions()),
            "name": "memory",
            "case": f"{report.model} {report.bits}bit {step.case}",
            "metric": metric,
            "value": value,
            "unit": UNITS.get(metric, "B"),
            "n": 1,
            "note": report.path + ("; random weights" if report.random_weights else ""),
        }
        for metric, value in report.figures.items()
    ]
