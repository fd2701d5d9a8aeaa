"""What this machine computes with, measured in a child process: for `triage doctor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.runtime.device import measure, slow_blas_warning


def run(args: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """{} -> {"device": fields of Device, "warning": sentence or None, "metal": whether Metal can be used, "mlx_device"}."""
    device = measure()
    import mlx.core as mx

    return {
        "device": device.as_dict(), "warning": slow_blas_warning(device), "metal": bool(mx.metal.is_available()),
        "mlx_device": mx.device_info(),
    }  # fmt: skip
