"""`triage bench dropout`: dropout passes and scoring, ours against full-logit passes over all
layers and generation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from scipy.stats import permutation_test

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
from tasks.runtime.device import Device
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
PASSES = ("ours", "full")
GENERATIONS = ("generate", "generate_stock")
SET_CASES = 1500  # of a whole evaluation set
AGAINST = {"full": "ours", "generate": "ours", "generate_stock": "ours", "score_full": "score_ours"}


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


class Tokens(BaseModel):
    """Tokens of a prompt over the cases."""

    model_config = ConfigDict(frozen=True)

    mean: float = 0.0
    least: int = 0
    most: int = 0


class Measurement(BaseModel):
    """What the process of an engine returns.

    `seconds` of each pass, generation or repeat; `probabilities` (passes, cases, 3) of the dropout
    engines.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seconds: list[float]
    cases: int
    probabilities: list[list[list[float]]] | None = None
    tokens: Tokens = Tokens()
    device: Device | None = None


@dataclass(frozen=True)
class TaskTime:
    """Seconds of the whole task with one engine: median and range of `n` timed pieces, scaled as
    `note` says.
    """

    seconds: float
    least: float
    most: float
    n: int
    note: str
    times_slower: float | None = None  # than ours

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that land, by name."""
        metrics = {"seconds": self.seconds, "least": self.least, "most": self.most}
        return (
            metrics if self.times_slower is None else metrics | {"times_slower": self.times_slower}
        )


@dataclass(frozen=True)
class Agreement:
    """How far two engines' means and standard deviations over passes are apart, and whether chance
    does as much.

    `apart`: root mean square of the difference over cases and labels, in standard deviations over
    all passes. `p`: the share of random exchanges of passes between the engines that are at least
    as far apart.
    """

    mean_apart: float
    mean_p: float
    sd_apart: float
    sd_p: float


@dataclass(frozen=True)
class Report:
    """The figures at one number of trained blocks, by engine."""

    layers: int
    measured: dict[str, Measurement]
    times: dict[str, TaskTime]
    agreement: Agreement


def bench_dropout(
    console: Console, model: str, bits: int, layers: list[int], workload: Workload
) -> list[Report]:
    """Measure each engine in a separate process at each number of trained blocks; print and land
    the figures.

    Raises BadInput for an unknown model, other bits than 4 or 8, or more layers than the model has.
    """
    variant = variant_of(console, model, bits)
    blocks = blocks_of(variant, model, *layers)
    created = datetime.now(UTC)
    run_id = f"dropout-{created:%Y%m%dT%H%M%SZ}"
    candidates = max(workload.scored, 10 * workload.cases)
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
) -> dict[str, Measurement]:
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

        measurements[engine.key] = Measurement.model_validate(result)

    shutil.rmtree(folder, ignore_errors=True)
    return measurements


def _report(layers: int, measurements: dict[str, Measurement], passes: int) -> Report:
    times = task_times(measurements, passes)
    return Report(
        layers, measurements, times, agreement(measurements["ours"], measurements["full"])
    )


def task_times(measurements: dict[str, Measurement], passes: int) -> dict[str, TaskTime]:
    """Seconds of the whole task by engine, and how many times slower than ours."""
    seconds = {
        engine: [time * _scale(engine, measurement, passes) for time in measurement.seconds]
        for engine, measurement in measurements.items()
    }
    return {
        engine: TaskTime(
            seconds=median(times),
            least=min(times),
            most=max(times),
            n=len(times),
            note=_note(engine, measurements[engine], passes),
            times_slower=(
                median(times) / median(seconds[AGAINST[engine]]) if engine in AGAINST else None
            ),
        )
        for engine, times in seconds.items()
    }


def _scale(engine: str, measurement: Measurement, passes: int) -> float:
    """How many of the timed pieces make the whole task."""
    if engine in PASSES:
        return passes
    if engine in GENERATIONS:
        return passes * measurement.cases
    return 1 if measurement.cases >= SET_CASES else SET_CASES / measurement.cases


def _note(engine: str, measurement: Measurement, passes: int) -> str:
    """What was timed, and of how much."""
    timed = len(measurement.seconds)
    cases = measurement.cases
    if engine in PASSES:
        return (
            f"{passes} passes" if timed == passes else f"scaled: {timed} timed of {passes} passes"
        )
    if engine in GENERATIONS:
        return f"scaled: {timed} timed of {passes * cases} generations"

    return f"{cases} cases" if cases >= SET_CASES else f"scaled: {cases} timed of {SET_CASES} cases"


def agreement(our_measurement: Measurement, full: Measurement) -> Agreement:
    """A permutation test of 999 seeded exchanges of passes between the two engines.

    It asks for no normal distribution, which probabilities near 0 or 1 are far from.
    """
    passes = np.concatenate(
        [np.asarray(statistic_a.probabilities) for statistic_a in (our_measurement, full)]
    )
    split = np.split(np.arange(len(passes)), [len(our_measurement.probabilities or [])])
    unit = np.maximum(passes.std(axis=0, ddof=1), 1e-7)

    def distance(statistic: Callable[..., Any]) -> tuple[float, float]:
        def apart(first: np.ndarray, second: np.ndarray) -> float:
            statistic_a, statistic_b = (
                statistic(passes[part.astype(int)], axis=0) for part in (first, second)
            )
            return float(np.sqrt((((statistic_a - statistic_b) / unit) ** 2).mean()))

        test = permutation_test(
            split, apart, n_resamples=999, vectorized=False, alternative="greater", rng=0
        )
        return float(test.statistic), float(test.pvalue)

    return Agreement(*distance(np.mean), *distance(partial(np.std, ddof=1)))


def _print(console: Console, reports: list[Report], name: str, blocks: int) -> None:
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


def _lines(report: Report, blocks: int) -> Iterator[tuple[str, ...]]:
    for engine, time in report.times.items():
        yield (
            f"{report.layers} of {blocks}",
            TITLES[engine],
            f"{time.seconds:.2f}",
            f"{time.least:.2f} to {time.most:.2f}, n={time.n}",
            "" if time.times_slower is None else f"{time.times_slower:.1f} x",
            time.note,
        )


def _remark(report: Report) -> str:
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


def _cases(measurement: Measurement) -> str:
    tokens = measurement.tokens
    span = f"{tokens.least} to {tokens.most}"
    return f"{measurement.cases} cases of {tokens.mean:.0f} tokens ({span})"


def _rows(report: Report, run_id: str, created: datetime, name: str) -> BenchmarkRows:
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
