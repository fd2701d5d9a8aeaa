"""`triage bench dropout`: dropout passes and scoring, ours against full-logit passes over all
layers and generation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.bench.dropout_figures import (
    EngineAgreement,
    EngineMeasurement,
    TaskTime,
    agreement,
    task_times,
)
from flows.bench.shared import (
    WHEELS_OWN_BLAS,
    BenchmarkRows,
    Engine,
    blocks_of,
    land_benchmark,
    own_versions,
    variant_of,
)
from flows.report.names import RANDOM
from tasks.corpus.prepare import prepare_dataset
from tasks.models.model_folders import has_random_weights
from tasks.runtime.backend import backend
from tasks.runtime.children import run_child
from tasks.runtime.home import home
from tasks.spec import Data, canonical_json

ENGINES = [
    Engine("ours", "dropout passes, ours", {}),
    Engine("full", "dropout passes, full logits, all layers", {}),
    Engine("generate", "greedy generations of 16 tokens", {}),
    Engine(
        "generate_stock", "greedy generations of 16 tokens, mlx-lm as installed", WHEELS_OWN_BLAS
    ),
    Engine("score_ours", "scoring a set, ours", {}),
    Engine("score_full", "scoring a set, full logits, all layers", {}),
]
TITLES = {engine.key: engine.title for engine in ENGINES}


@dataclass(frozen=True)
class Workload:
    """How much is measured.

    `cases` go through `passes` dropout passes. `scored` cases of the scoring engines are timed
    `repeats` times and scaled to SET_CASES. `seconds`: about how long each engine is timed.
    """

    cases: int
    passes: int
    scored: int
    repeats: int
    seconds: float


@dataclass(frozen=True)
class DropoutReport:
    """The figures at one number of trained blocks, by engine."""

    layers: int
    measured: dict[str, EngineMeasurement]
    times: dict[str, TaskTime]
    agreement: EngineAgreement


def bench_dropout(
    console: Console, model: str, bits: int, layers: list[int], workload: Workload
) -> list[DropoutReport]:
    """Measure each engine in a separate process at each number of trained blocks; print and land
    the figures.

    Raises BadInput for an unknown model, other bits than 4 or 8, or more layers than the model has.
    """
    variant = variant_of(console, model, bits)
    blocks = blocks_of(variant, model, *layers)
    created = datetime.now(UTC)
    run_id = f"dropout-{created:%Y%m%dT%H%M%SZ}"
    # Ten times as many as the passes take, to choose those of about one length among them.
    candidates = max(workload.scored, 10 * workload.cases)
    # Only test is used; the other sets are as small as they may be.
    limits = {"train": 3, "valid": 3, "calibration": 3, "test": candidates}
    data = prepare_dataset(Data.model_validate({"limits": limits}), home())

    reports = []
    for count in layers:
        measurements = _measure(console, variant, data, count, workload, home() / "bench" / run_id)
        reports.append(_report(count, measurements, workload.passes))

    name = f"{model} {bits}bit{RANDOM if has_random_weights(variant) else ''}"
    _print(console, reports, name, blocks)
    rows = [row for report in reports for row in _rows(report, run_id, created, name)]
    land_benchmark(run_id, rows)

    return reports


def _measure(
    console: Console, variant: Path, data: Path, layers: int, workload: Workload, folder: Path
) -> dict[str, EngineMeasurement]:
    """What each engine returns, one process after the other."""
    setting = {
        "variant": str(variant),
        "data": str(data),
        "layers": layers,
        "folder": str(folder),
        **asdict(workload),
    }
    measurements = {}
    for engine in ENGINES:
        if engine.key == "generate_stock" and engine.key not in backend().compared_with:
            continue  # there, as installed is what `generate` is

        with console.status(f"{engine.title}, {layers} trained blocks ..."):
            result = run_child(
                "tasks.bench.dropout:run",
                setting | {"engine": engine.key},
                folder / engine.key,
                environment=engine.environment,
            )

        measurements[engine.key] = EngineMeasurement.model_validate(result)

    shutil.rmtree(folder, ignore_errors=True)
    return measurements


def _report(layers: int, measurements: dict[str, EngineMeasurement], passes: int) -> DropoutReport:
    times = task_times(measurements, passes)
    return DropoutReport(
        layers, measurements, times, agreement(measurements["ours"], measurements["full"])
    )


def _print(console: Console, reports: list[DropoutReport], name: str, blocks: int) -> None:
    measurements = reports[0].measured
    table = Table(
        title=f"{name}: {_cases(measurements['ours'])}; scoring: {_cases(measurements['score_ours'])}",
        title_justify="left",
    )
    for column in ("trained blocks", "task", "seconds", "range", "ours is faster", "how"):
        is_figure = column in ("seconds", "ours is faster")
        table.add_column(column, justify="right" if is_figure else "left")

    for report in reports:
        for cells in _lines(report, blocks):
            table.add_row(*cells)

    console.print(table)
    for report in reports:
        console.print(_remark(report), soft_wrap=True)


def _lines(report: DropoutReport, blocks: int) -> Iterator[tuple[str, ...]]:
    for engine, time in report.times.items():
        yield (
            f"{report.layers} of {blocks}",
            TITLES[engine],
            f"{time.seconds:.2f}",
            f"{time.least:.2f} to {time.most:.2f}, n={time.n}",
            "" if time.times_slower is None else f"{time.times_slower:.1f} x",
            time.note,
        )


def _remark(report: DropoutReport) -> str:
    """How well the passes of ours agree with full-logit passes, and on which machine."""
    device = report.measured["ours"].device
    between = report.agreement
    machine = f" {device.products}, {device.gflops:.0f} GFLOP/s." if device else ""
    return (
        f"{report.layers} blocks: over {report.times['ours'].n} passes, and "
        f"{report.times['full'].n} full-logit passes, means are {between.mean_apart:.2f} and "
        f"standard deviations {between.sd_apart:.2f} standard deviations apart (root mean square); "
        f"chance does as much with p = {between.mean_p:.3f} and {between.sd_p:.3f}.{machine}"
    )


def _cases(measurement: EngineMeasurement) -> str:
    tokens = measurement.tokens
    span = f"{tokens.least} to {tokens.most}"
    return f"{measurement.cases} cases of {tokens.mean:.0f} tokens ({span})"


def _rows(report: DropoutReport, run_id: str, created: datetime, name: str) -> BenchmarkRows:
    used_versions = canonical_json(own_versions())
    rows = []
    for engine, time in report.times.items():
        device = report.measured[engine].device
        metrics = time.metrics | (asdict(report.agreement) if engine == "ours" else {})
        for metric, value in metrics.items():
            rows.append(
                {
                    "run_id": run_id,
                    "created_at": created,
                    "machine": device.machine if device else None,
                    "versions": used_versions,
                    "name": "dropout",
                    "case": f"{name}, {report.layers} layers, {engine}",
                    "metric": metric,
                    "value": value,
                    "unit": "s" if metric in ("seconds", "least", "most") else "1",
                    "n": time.n,
                    "note": time.note,
                }
            )

    return rows
