"""The self-test of `triage doctor --selftest`, in a child process: whether this
machine computes the right numbers.

Each check is named and has a value and a bound, which follow the data type that this machine
computes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx

from tasks.bench.selftest.engine import engine_checks, speed_checks, tiny_checks, wide_checks
from tasks.bench.selftest.kernels import attention_checks, memory_checks, product_checks
from tasks.bench.selftest.models import SelfTestCheck, make_tiny
from tasks.runtime.backend import backend
from tasks.runtime.device import measure
from tasks.runtime.events import Emit, ProgressReport

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
    """Run every check; `args`: `folder`, for the tiny models.

    Returns `checks` (of each, what its `run` returns), `device` (the fields of Device), `mlx_device` and
    `step_seconds` (of a step, `ours` and `stock`).
    """
    device = measure()
    seconds: dict[str, float] = {}
    checks = []
    for number, check in enumerate(all_checks(Path(args["folder"]), seconds), 1):
        checks.append(check.run())
        emit(ProgressReport("self-test", number, number))

    return {
        "checks": checks,
        "device": asdict(device),
        "mlx_device": described(mx.device_info()),
        "step_seconds": seconds,
    }


def all_checks(root: Path, seconds: dict[str, float]) -> Iterator[SelfTestCheck]:
    """Every check of this backend, memory first and time last.

    Where quantised products are slow, nothing of real widths.
    """
    yield from memory_checks()
    yield from attention_checks()
    for name in MODELS:
        for bits in BITS:
            subject = make_tiny(name, bits, root)
            yield from tiny_checks(subject)
            if bits == BITS[0]:
                yield from engine_checks(subject)

    if backend().has_slow_kernels:
        return

    yield from product_checks()
    yield from wide_checks()
    yield from speed_checks(seconds)


def described(device: dict[str, Any]) -> dict[str, Any]:
    """The figures of a device that say what it is, and nothing of whose it is."""
    return {key: device[key] for key in DEVICE_FIGURES if key in device}
