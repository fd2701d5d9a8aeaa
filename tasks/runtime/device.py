"""What this machine computes with: backend, compute path, BLAS library, memory.

On Linux the MLX wheel is linked to a reference BLAS (about 5 GFLOP/s). Loading a real one into the process's global
symbols before `import mlx.core` makes float32 matrix products a hundred times faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import resource
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

SLOW_GFLOPS = 20.0
_BLAS_PATTERNS = (
    (Path(sys.prefix) / "lib", "libmkl_rt.so*"),
    (Path("/usr/lib"), "*/openblas-pthread/libopenblas.so.0"),
    (Path("/usr/lib"), "*/libopenblas.so.0"),
)


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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def backend() -> str:
    """`metal` on Apple Silicon, else `cpu`."""
    return "metal" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"


def compute_path() -> str:
    """`packed`: quantised kernels; `dequantised_f32`: the same weights, unpacked once to float32 (Linux CPU)."""
    return "packed" if backend() == "metal" else "dequantised_f32"


def compute_dtype() -> str:
    return "bfloat16" if backend() == "metal" else "float32"


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the numbers."""
    return {name: metadata.version(name) for name in ("mlx", "mlx-lm")}


@functools.cache
def load_blas() -> str:
    """Load the first fast BLAS found and return its name. Call before the first `import mlx.core` of the process.

    `TRIAGE_BLAS` names the library to load instead, or is `none`: stay with the wheel's own, as stock mlx-lm does.
    """
    if backend() == "metal":
        return "accelerate"
    named = os.environ.get("TRIAGE_BLAS")
    if named == "none":
        return "reference"
    found = (
        [Path(named)]
        if named
        else [p for root, pattern in _BLAS_PATTERNS for p in sorted(root.glob(pattern))]
    )
    for path in found:
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return path.name
    return "reference"


def cores() -> int:
    """Processors that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )


def blas_threads(count: int) -> int | None:
    """Let each matrix product use `count` threads; returns how many it used before, None where that cannot be set."""
    if load_blas() in ("accelerate", "reference"):
        return None
    library = ctypes.CDLL(None)  # it was loaded into the global symbols
    for get, put in (
        ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
        ("openblas_get_num_threads", "openblas_set_num_threads"),
    ):
        if hasattr(library, put):
            before = int(getattr(library, get)())
            getattr(library, put)(count)
            return before
    return None


def keep_freed_memory() -> None:
    """Let glibc keep what MLX frees for the next array.

    MLX allocates each array of a step anew on CPU, and glibc would map, zero and unmap every large one: a quarter of
    the time of a forward pass of 1,000 tokens. No effect elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 64 << 20)
    mallopt(mmap_threshold, 1 << 30) or mallopt(
        mmap_threshold, 32 << 20
    )  # 32 MB is the most that older ones take


def measure() -> Device:
    """Describe the device, with the median speed of five float32 products of 512 x 576 by 576 x 1536."""
    blas = load_blas()
    import mlx.core as mx

    a, b = (
        mx.random.normal((512, 576), key=mx.random.key(0)),
        mx.random.normal((576, 1536), key=mx.random.key(1)),
    )
    mx.eval(a, b, a @ b)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(a @ b)
        times.append(time.perf_counter() - start)
    speed = 2 * 512 * 576 * 1536 / sorted(times)[2] / 1e9
    return Device(
        backend(), compute_path(), compute_dtype(), blas, round(speed, 1), cores(), machine_name()
    )


def machine_name() -> str:
    return f"{platform.system()} {platform.machine()}"


def slow_blas_warning(device: Device) -> str | None:
    """A loud sentence when matrix products run at reference speed, else None."""
    if device.backend == "metal" or device.gflops >= SLOW_GFLOPS:
        return None
    named = os.environ.get("TRIAGE_BLAS", "none")
    if named != "none" and device.blas == "reference":
        return (
            f"TRIAGE_BLAS={named} cannot be loaded: matrix products run at {device.gflops:.0f} GFLOP/s, many times "
            "slower than they could."
        )
    if device.blas != "reference":
        return f"Matrix products run at {device.gflops:.0f} GFLOP/s although {device.blas} is loaded: is the machine busy?"
    return (
        f"Matrix products run at {device.gflops:.0f} GFLOP/s with the BLAS '{device.blas}': training will be many times "
        "slower than it could be. Install one with `pip install mkl` (x86-64) or `apt-get install libopenblas0-pthread`."
    )


def total_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use at most: of physical memory, or of its control groups (a container) if less.

    `root`: where /proc and /sys are found.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(root)])


def _group_limits(root: Path) -> list[int]:
    """Memory limits of this process's control groups and of those above them (versions 1 and 2); none elsewhere."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for controllers, path in (line.split(":", 2)[1:] for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        place, name = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
        group = Path(path.lstrip("/"))
        for above in (
            group,
            *group.parents,
        ):  # inside a container the own group may be mounted as the topmost
            with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                limits.append(int((root / "sys/fs/cgroup" / place / above / name).read_text()))
    return limits


def resident_bytes() -> int:
    """Bytes this process holds now (Linux), or its peak so far (elsewhere)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Peak bytes of this process since it started: resident (Linux), or physical footprint (macOS, as its own tools show
    it: with what is compressed or held for the GPU)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (_peak_footprint() or peak) if sys.platform == "darwin" else peak * 1024


def _peak_footprint() -> int | None:
    """`ri_lifetime_max_phys_footprint` of rusage_info_v4 (sys/resource.h): a UUID and 36 numbers of 64 bits, the 29th."""
    usage = (ctypes.c_uint64 * (2 + 36))()
    try:
        failed = ctypes.CDLL("/usr/lib/libproc.dylib").proc_pid_rusage(
            os.getpid(), 4, ctypes.byref(usage)
        )
    except (OSError, AttributeError):
        return None
    return None if failed else int(usage[2 + 28])
