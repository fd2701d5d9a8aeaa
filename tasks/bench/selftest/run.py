"""The self-test of `triage doctor --selftest`, in a child process: right numbers, and how fast."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.bench.selftest.conditions import MEASURED
from tasks.bench.selftest.engine import tiny_checks, wide_checks
from tasks.bench.selftest.kernels import attention_checks, memory_checks, product_checks
from tasks.bench.selftest.models import SelfTestCheck, Subject
from tasks.bench.selftest.timings import timing_checks
from tasks.runtime.backend import backend
from tasks.runtime.device import measure
from tasks.runtime.events import Emit, ProgressReport
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import ACCELERATOR

MODELS = ("tiny-llama", "tiny-gemma3")
BITS = (4, 8)
# What MLX says of its device that is the same for all devices of a kind.
DEVICE_FIGURES = (
    "device_name",
    "architecture",
    "memory_size",
    "max_recommended_working_set_size",
    "max_buffer_length",
    "total_memory",
)


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Run every check; `args`: `folder`, for the tiny models and for what is measured so far.

    Returns `checks` (of each, what its `run` returns), `device` (the fields of Device), `mlx_device`
    and `timings` (seconds and bytes by bits, and of the sustained run).
    """
    # This process holds the accelerator, for which its own children would wait.
    os.environ[ACCELERATOR] = ""
    folder = Path(args["folder"])
    timings: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    measured = {
        "checks": results,
        "device": asdict(measure()),
        "mlx_device": described(mx.device_info()),
        "timings": timings,
    }
    checks = list(all_checks(folder, timings))
    for number, check in enumerate(checks):
        emit(ProgressReport(check.name, number, len(checks)))
        results.append(check.run())
        mx.clear_cache()
        write_atomic(folder / MEASURED, json.dumps(measured))
    return measured


def all_checks(root: Path, timings: dict[str, Any]) -> Iterator[SelfTestCheck]:
    """Every check of this backend, memory first and time last."""
    yield from memory_checks()
    yield from attention_checks()
    for name in MODELS:
        for bits in BITS:
            yield from tiny_checks(Subject(name, bits, root), of_engine=bits == BITS[0])
    yield from product_checks()
    yield from wide_checks()
    if backend().has_slow_kernels:
        timings["of"] = "nothing: on packed weights a step of real widths takes minutes on a CPU"
    else:
        yield from timing_checks(timings)


def described(device: dict[str, Any]) -> dict[str, Any]:
    """The figures of a device that say what it is, and nothing of whose it is."""
    return {key: device[key] for key in DEVICE_FIGURES if key in device}
