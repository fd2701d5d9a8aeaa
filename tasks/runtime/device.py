"""What this machine computes with, measured: BLAS library, threads, speed.

On Linux the MLX wheel is linked to a reference BLAS (about 5 GFLOP/s). Loading a real one into the
process's global symbols before `import mlx.core` makes float32 matrix products a hundred times
faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.backend import BACKENDS, backend, has_gpu, is_mac
from tasks.runtime.chip import machine_name

SLOW_GFLOPS = 20.0
# In the order in which they are tried: MKL first, which comes with the environment on x86.
_BLAS_PATTERNS = (
    (Path(sys.prefix) / "lib", "libmkl_rt.so*"),
    (Path("/usr/lib"), "*/openblas-pthread/libopenblas.so.0"),
    (Path("/usr/lib"), "*/libopenblas.so.0"),
)
_THREAD_FUNCTIONS = (
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
)
# Rows, inner dimension and columns of the measured product: 512 tokens through an MLP of
# SmolLM2-135M.
_MEASURED_SHAPE = (512, 576, 1536)


@dataclass(frozen=True)
class Device:
    """The machine as results describe it. `gflops`: a measured float32 matrix product."""

    backend: str
    compute_path: str
    compute_dtype: str
    blas: str
    gflops: float
    threads: int
    machine: str

    @property
    def on_gpu(self) -> bool:
        return BACKENDS[self.backend].on_gpu

    @property
    def products(self) -> str:
        """What multiplies its matrices: `BLAS libmkl_rt.so.2`, `GPU`, or `GPU (experimental)`."""
        mark = " (experimental)" if BACKENDS[self.backend].experimental else ""
        return f"GPU{mark}" if self.on_gpu else f"BLAS {self.blas}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@functools.cache
def load_blas() -> str:
    """Load the first fast BLAS of this machine and return its name.

    Call it before the first `import mlx.core`.

    `TRIAGE_BLAS` names the library to load instead, or is `none`: stay with the wheel's own, as
    stock mlx-lm does. A GPU needs none, and Apple's comes with macOS.
    """
    if backend().on_gpu:
        return backend().name
    if is_mac():
        return "accelerate"

    requested = os.environ.get("TRIAGE_BLAS")
    if requested == "none":
        return "reference"

    for path in [Path(requested)] if requested else _blas_libraries():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return path.name

    return "reference"


def _blas_libraries() -> list[Path]:
    """Fast BLAS libraries on this machine, the preferred one first."""
    return [path for root, pattern in _BLAS_PATTERNS for path in sorted(root.glob(pattern))]


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_threads(count: int) -> int | None:
    """Set the number of threads of each matrix product.

    Returns the number before, None where it cannot be set.
    """
    if backend().on_gpu or load_blas() in ("accelerate", "reference"):
        return None

    # The BLAS is in the global symbols of the process.
    library = ctypes.CDLL(None)
    for getter, setter in _THREAD_FUNCTIONS:
        if hasattr(library, setter):
            previous = int(getattr(library, getter)())
            getattr(library, setter)(count)
            return previous

    return None


def measure() -> Device:
    """Describe the device, with the median speed of five float32 products."""
    blas = load_blas()
    use_device()
    import mlx.core as mx

    rows, inner, columns = _MEASURED_SHAPE
    a = mx.random.normal((rows, inner), key=mx.random.key(0))
    b = mx.random.normal((inner, columns), key=mx.random.key(1))
    mx.eval(a, b, a @ b)

    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(a @ b)
        seconds.append(time.perf_counter() - start)

    gflops = 2 * rows * inner * columns / sorted(seconds)[2] / 1e9
    present_backend = backend()
    return Device(
        present_backend.name,
        present_backend.compute_path,
        present_backend.compute_dtype,
        blas,
        round(gflops, 1),
        cores(),
        machine_name(),
    )


def use_device() -> None:
    """Let MLX compute on the CPU if the backend does although there is a GPU, which MLX prefers.

    Every process that loads MLX calls it before it computes.
    """
    if backend().on_gpu or not has_gpu():
        return
    import mlx.core as mx

    mx.set_default_device(mx.cpu)


def slow_blas_warning(device: Device) -> str | None:
    """A sentence that says what to do if matrix products run at reference speed, else None."""
    if device.on_gpu or device.gflops >= SLOW_GFLOPS:
        return None

    speed = f"{device.gflops:.0f} GFLOP/s"
    requested = os.environ.get("TRIAGE_BLAS", "none")
    if requested != "none" and device.blas == "reference":
        return (
            f"TRIAGE_BLAS={requested} cannot be loaded: matrix products run at {speed}, "
            "many times slower than they could."
        )
    if device.blas != "reference":
        return (
            f"Matrix products run at {speed} although {device.blas} is loaded: is the machine busy?"
        )

    return (
        f"Matrix products run at {speed} with the BLAS '{device.blas}': training will be many "
        "times slower than it could be. Install one with `pip install mkl` (x86-64) or "
        "`apt-get install libopenblas0-pthread`."
    )
