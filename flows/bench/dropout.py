"""`triage bench dropout`: dropout passes and scoring, ours against full-logit passes over all layers and generation."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import permutation_test

from flows.bench.shared import (
    WHEELS_OWN_BLAS,
    Engine,
    blocks_of,
    land_benchmark,
    own_versions,
    variant_of,
)
from flows.report.names import RANDOM
from tasks.corpus.prepare import prepare_dataset
from tasks.models.convert import has_random_weights
from tasks.runtime.child import run_child
from tasks.runtime.device import backend
from tasks.runtime.store import home
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
GENERATIONS = ("generate", "generate_stock")
SET_CASES = 1500  # of a whole evaluation set
AGAINST = {"full": "ours", "generate": "ours", "generate_stock": "ours", "score_full": "score_ours"}


def bench_dropout(
    console: Console, model: str, bits: int, layers: list[int], cases: int, passes: int, scored: int, repeats: int,
    seconds: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure each engine in a process of its own at each number of trained blocks; print and land the figures.

    `scored` cases of the scoring engines are timed and scaled to SET_CASES; `seconds`: about how long each engine is timed.

    Raises BadInput for an unknown model, other bits than 4 or 8, or more layers than the model has.
    """
    variant = variant_of(console, model, bits)
    blocks = blocks_of(variant, model, *layers)
    created = datetime.now(UTC)
    run_id = f"dropout-{created:%Y%m%dT%H%M%SZ}"
    candidates = max(scored, 10 * cases)
    data = prepare_dataset(
        Data(limits={"train": 3, "valid": 3, "calibration": 3, "test": candidates}), home()
    )
    reports = []
    for count in layers:
        folder = home() / "bench" / run_id
        setting = {"variant": str(variant), "data": str(data), "layers": count, "cases": cases, "passes": passes,
                   "scored": scored, "repeats": repeats, "seconds": seconds, "folder": str(folder)}  # fmt: skip
        measured = {}
        for engine in ENGINES:
            if engine.key == "generate_stock" and backend() != "cpu":
                continue  # there, as installed is what `generate` is
            with console.status(f"{engine.title}, {count} trained blocks ..."):
                measured[engine.key] = run_child(
                    "tasks.bench.dropout:run", setting | {"engine": engine.key}, folder / engine.key,
                    environment=engine.environment,
                )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        reports.append(
            {"layers": count, "figures": figures(measured, passes), "measured": measured}
        )
    what = f"{model} {bits}bit{RANDOM if has_random_weights(variant) else ''}"
    _print(console, reports, what, blocks)
    rows = [row for report in reports for row in _rows(report, run_id, created, what)]
    land_benchmark(run_id, rows)
    return reports


def figures(measured: dict[str, dict[str, Any]], passes: int) -> dict[str, dict[str, Any]]:
    """Seconds of the whole task by engine (median, `least` and `most`) with `n`, `note` and how many times ours is faster;
    and how far the dropout engines' means and standard deviations are apart."""
    found: dict[str, dict[str, Any]] = {}
    for engine, m in measured.items():
        scale, note = _whole_task(engine, m, passes)
        times = [t * scale for t in m["seconds"]]
        found[engine] = {
            "seconds": median(times),
            "least": min(times),
            "most": max(times),
            "n": len(times),
            "note": note,
        }
    for engine, own in AGAINST.items():
        if engine in found:
            found[engine]["times_slower"] = found[engine]["seconds"] / found[own]["seconds"]
    found["ours"] |= agreement(measured["ours"], measured["full"])
    return found


def _whole_task(engine: str, m: dict[str, Any], passes: int) -> tuple[float, str]:
    """How many of the timed pieces make the whole task, and what is to be said of them."""
    timed = len(m["seconds"])
    if engine in ("ours", "full"):
        return (
            passes,
            f"{passes} passes" if timed == passes else f"scaled: {timed} timed of {passes} passes",
        )
    if engine in GENERATIONS:
        return passes * m["cases"], f"scaled: {timed} timed of {passes * m['cases']} generations"
    if m["cases"] >= SET_CASES:
        return 1, f"{m['cases']} cases"
    return SET_CASES / m["cases"], f"scaled: {m['cases']} timed of {SET_CASES} cases"


def agreement(ours: dict[str, Any], full: dict[str, Any]) -> dict[str, float]:
    """How far the two engines' means and standard deviations over passes are apart, and whether chance does as much.

    `apart`: root mean square of the difference over cases and labels, in standard deviations over all passes. `p`: the share
    of random exchanges of passes between the engines that are at least as far apart (permutation test, 999 exchanges,
    seeded; it asks for no normal distribution, which probabilities near 0 or 1 are far from).
    """
    passes = np.concatenate([np.asarray(m["probabilities"]) for m in (ours, full)])
    which = np.split(np.arange(len(passes)), [len(ours["probabilities"])])
    unit = np.maximum(passes.std(axis=0, ddof=1), 1e-7)
    found: dict[str, float] = {}
    for name, of in (("mean", np.mean), ("sd", partial(np.std, ddof=1))):

        def apart(first: np.ndarray, second: np.ndarray, of: Any = of) -> float:
            one, other = (of(passes[part.astype(int)], axis=0) for part in (first, second))
            return float(np.sqrt((((one - other) / unit) ** 2).mean()))

        test = permutation_test(
            which, apart, n_resamples=999, vectorized=False, alternative="greater", rng=0
        )
        found |= {f"{name}_apart": float(test.statistic), f"{name}_p": float(test.pvalue)}
    return found


def _print(console: Console, reports: list[dict[str, Any]], what: str, blocks: int) -> None:
    measured = reports[0]["measured"]
    table = Table(
        title=f"{what}: {_cases(measured['ours'])}; scoring: {_cases(measured['score_ours'])}",
        title_justify="left",
    )
    for column in ("trained blocks", "task", "seconds", "range", "ours is faster", "how"):
        table.add_column(
            column, justify="right" if column in ("seconds", "ours is faster") else "left"
        )
    for report in reports:
        for engine, f in report["figures"].items():
            ratio = f"{f['times_slower']:.1f} x" if "times_slower" in f else ""
            span = f"{f['least']:.2f} to {f['most']:.2f}, n={f['n']}"
            table.add_row(
                f"{report['layers']} of {blocks}",
                TITLES[engine],
                f"{f['seconds']:.2f}",
                span,
                ratio,
                f["note"],
            )
    console.print(table)
    for report in reports:
        f, full = (report["figures"][engine] for engine in ("ours", "full"))
        device = report["measured"]["ours"]["device"]
        console.print(
            f"{report['layers']} blocks: over {f['n']} passes, and {full['n']} full-logit passes, means are "
            f"{f['mean_apart']:.2f} and standard deviations {f['sd_apart']:.2f} standard deviations apart (root "
            f"mean square); chance does as much with p = {f['mean_p']:.3f} and {f['sd_p']:.3f}. "
            f"BLAS {device['blas']}, {device['gflops']:.0f} GFLOP/s.",
            soft_wrap=True,
        )


def _cases(m: dict[str, Any]) -> str:
    tokens = m["tokens"]
    return (
        f"{m['cases']} cases of {tokens['mean']:.0f} tokens ({tokens['least']} to {tokens['most']})"
    )


def _rows(
    report: dict[str, Any], run_id: str, created: datetime, what: str
) -> list[dict[str, Any]]:
    own = canonical_json(own_versions())
    return [
        {
            "run_id": run_id, "created_at": created, "machine": report["measured"][engine]["device"]["machine"],
            "versions": own, "name": "dropout", "case": f"{what}, {report['layers']} layers, {engine}", "metric": metric,
            "value": value, "unit": "s" if metric in ("seconds", "least", "most") else "1", "n": f["n"], "note": f["note"],
        }
        for engine, f in report["figures"].items()
        for metric, value in f.items()
        if metric not in ("n", "note")
    ]  # fmt: skip
