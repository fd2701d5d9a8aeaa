"""The device of a child process: measured and reported as a step begins, and for `triage doctor`."""

from __future__ import annotations

import time
from typing import Any

from tasks.runtime.device import Device, measure, slow_blas_warning
from tasks.runtime.events import DeviceReport, Emit, StepWarning

SPEED_SECONDS = 3.0


def report_device(emit: Emit) -> Device:
    """Measure the device and report it, after a warning if it is slow: the first events of a step."""
    device = measure()
    warning = slow_blas_warning(device)
    if warning:
        emit(StepWarning(warning))

    emit(DeviceReport(**device.as_dict()))
    return device


def run_speed(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure the device for SPEED_SECONDS; `args` is empty. Returns the highest `gflops`.

    The highest, since other work on the machine only lowers it.
    """
    end = time.monotonic() + SPEED_SECONDS
    highest = measure().gflops
    while time.monotonic() < end:
        highest = max(highest, measure().gflops)
    return {"gflops": highest}


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure the device; `args` is empty.

    Returns `device` (the fields of Device), `warning` (a sentence or None), `gpu` (whether MLX can
    use one), and `mlx_device` (what MLX reports).
    """
    device = measure()
    import mlx.core as mx

    return {
        "device": device.as_dict(),
        "warning": slow_blas_warning(device),
        "gpu": bool(mx.is_available(mx.gpu)),
        "mlx_device": mx.device_info(),
    }
