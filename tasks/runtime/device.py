"""What this machine computes with, measured: BLAS library, threads, speed; and its memory, of which a
process may use a part, holds some, and keeps what it frees.

On Linux the MLX wheel is linked to a reference BLAS (about 5 GFLOP/s). Loading a real one into the
process's global symbols before `import mlx.core` makes float32 matrix products a hundred times
faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import operator
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial, reduce
from pathlib import Path
from timeit import repeat
from typing import Any

from tasks.runtime.backend import (
    backend,
    has_apple_gpu,
    has_cuda,
    is_linux,
    is_mac,
    platform_name,
    processor,
)
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Device, Emit, StepWarning
from tasks.runtime.files import write_atomic
from tasks.runtime.home import home
from tasks.runtime.locks import locked

SLOW_GFLOPS = 20.0
SYNC_SECONDS = 0.05  # between two waits for a device: one for a large GPU outlasts a product
CPU_INFO = Path("/proc/cpuinfo")
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

# Of `ri_phys_footprint` and `ri_lifetime_max_phys_footprint` in macOS's rusage_info_v4.
_FOOTPRINT_NOW = 7
_PEAK_FOOTPRINT = 28

# Parameters of mallopt, by their numbers in malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


@cache
def load_blas() -> str:
    """Load the first of `blas_paths` that can be loaded, before any `import mlx.core`; its name."""
    for path in blas_paths():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return path.name

    return _own_products()


def blas_paths() -> list[Path]:
    """The fast BLAS libraries of this machine; first the one that this home stays with.

    `TRIAGE_BLAS` names the only one, or is `none`: the wheel's own. Elsewhere none is needed.
    """
    if backend().on_gpu or not is_linux():
        return []
    if requested := os.environ.get("TRIAGE_BLAS"):
        return [] if requested == "none" else [Path(requested)]

    installed: dict[Path, Path] = {}
    for root, pattern in _BLAS_PATTERNS:
        for path in sorted(root.glob(pattern)):
            installed.setdefault(path.resolve(), path)
    choice = noted("blas")
    return sorted(installed.values(), key=lambda path: path.name != choice)


def _own_products() -> str:
    """What multiplies matrices where no library is loaded."""
    return backend().name if backend().on_gpu else "accelerate" if is_mac() else "reference"


def speed_key(library: str | None = None) -> str:
    """The name of the note on the speed of a library, by default of what a step would load."""
    name = library or next((path.name for path in blas_paths()), _own_products())
    return f"{name}, {cores()} cores"


def note_path(name: str) -> Path:
    """The file of a note of this home on this machine, by chip, since machines may share a home:
    `blas`, the name of the library that it stays with, or a speed, by `speed_key`.
    """
    return home() / "machines" / chip().replace("/", "-") / name


def noted(name: str) -> Any:
    """A note's value, None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note_path(name).read_text("utf-8"))
    return None


def settle_blas() -> None:
    """Where an AMD processor has several BLAS libraries, let the home stay with the fastest, or, if
    it has trainings, with the first, as until now. On Intel's the first is Intel's own.
    """
    speeds = dict.fromkeys(blas_paths(), 0.0)
    if len(speeds) < 2 or "AMD" not in chip() or noted("blas"):
        return

    with locked(note_path("blas"), math.inf):
        if noted("blas"):  # by another process, meanwhile
            return
        # Each in processes of its own, since a library that is loaded stays; and by turns, as other
        # work of the machine comes and goes. One that crashes has no speed.
        program = f"from {__name__} import run; print(run({{}}, print)['device']['gflops'])"
        for path in (*speeds, *speeds):
            command = [sys.executable, "-c", program]
            env = os.environ | {"TRIAGE_BLAS": str(path), "TRIAGE_HOME": str(home())}
            root = Path(__file__).parents[2]
            probe = subprocess.run(command, env=env, cwd=root, capture_output=True)
            speeds[path] = max(speeds[path], float(probe.stdout or 0))
        is_used = any((home() / "experiments").glob("*"))
        choice = next(iter(speeds)) if is_used else max(speeds, key=lambda path: speeds[path])
        write_atomic(note_path("blas"), json.dumps(choice.name))


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_threads(count: int) -> int | None:
    """Set the number of threads of each matrix product.

    Returns the number before, None where it cannot be set.
    """
    if load_blas() == _own_products():
        return None

    # The BLAS is in the global symbols of the process.
    library = ctypes.CDLL(None)
    for getter, setter in _THREAD_FUNCTIONS:
        if hasattr(library, setter):
            previous = int(getattr(library, getter)())
            getattr(library, setter)(count)
            return previous

    return None


def measure(at_least: float = SYNC_SECONDS) -> Device:
    """Describe the device, with the speed of products in float32 on a CPU and bfloat16 on a GPU, of
    as many tokens as a pass computes at once. `at_least`: see `per_second`.
    """
    blas = load_blas()
    use_device()
    import mlx.core as mx

    size = 960  # of a square matrix, about as large as one of SmolLM2-135M's MLP
    dtype = mx.bfloat16 if backend().on_gpu else mx.float32
    tokens = mx.random.normal((backend().tokens_at_once, size), dtype, key=mx.random.key(0))
    # Scaled so that the values stay of one size in a chain of products.
    weight = mx.random.normal((size, size), dtype, scale=size**-0.5, key=mx.random.key(1))

    def multiply(count: int) -> None:
        mx.eval(reduce(operator.matmul, [weight] * count, tokens))

    multiply(1)
    gflops = 2 * tokens.size * size * per_second(multiply, at_least) / 1e9
    return Device(
        backend().name,
        backend().compute_path,
        backend().compute_dtype,
        blas,
        round(gflops, 1),
        cores(),
        platform_name() if chip() == processor() else f"{platform_name()}, {chip()}",
    )


def per_second(work: Callable[[int], None], at_least: float) -> float:
    """What `work(count)` does a second, in the fastest of five calls of `at_least` so many seconds."""
    count = 1
    while (best := min(repeat(partial(work, count), number=1, timer=time.perf_counter))) < at_least:
        count *= 2
    return count / best


def use_device() -> None:
    """Let MLX compute on the CPU if the backend does although there is a GPU, which MLX prefers.

    Every process that loads MLX calls it before it computes.
    """
    if backend().on_gpu or not (has_apple_gpu() or has_cuda()):
        return
    import mlx.core as mx

    mx.set_default_device(mx.cpu)


def slow_blas_warning(device: Device) -> str | None:
    """A sentence that says what to do if matrix products run at reference speed, else None."""
    if device.on_gpu or device.gflops >= SLOW_GFLOPS:
        return None

    speed = f"Matrix products run at {device.gflops:.0f} GFLOP/s"
    requested = os.environ.get("TRIAGE_BLAS", "none")
    if requested != "none" and device.blas == "reference":
        return (
            f"{speed}, many times slower than they could: TRIAGE_BLAS={requested} cannot be loaded."
        )
    if device.blas != "reference":
        return f"{speed} although {device.blas} is loaded: is the machine busy?"
    return (
        f"{speed} with the BLAS '{device.blas}': training will be many times slower than it could "
        "be. Install one with `pip install mkl` (x86-64) or `apt-get install libopenblas0-pthread`."
    )


@cache
def chip() -> str:
    """The name of the processor as its maker gives it; the kind, e.g. `aarch64`, where the system
    does not know it.
    """
    name = ""
    with contextlib.suppress(OSError):
        if is_mac():
            # With its folder, which is not on the path of a cron job.
            command = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
            name = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        else:
            lines = re.findall(r"^(.+?)\s*: (.+)$", CPU_INFO.read_text("utf-8"), re.MULTILINE)
            values = dict(reversed(lines))
            name = values.get("model name", "")
            # With family and model, since virtual machines shorten the name.
            if name and "cpu family" in values:
                name += f", family {values['cpu family']}, model {values['model']}"
    return name or processor()


def keep_freed_memory() -> None:
    """Let glibc keep the memory that MLX frees for the next array.

    On CPU MLX allocates each array of a step, and glibc would map, zero and unmap every large one:
    a quarter of the time of a forward pass of 1,000 tokens. No effect elsewhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return

    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    mallopt(_M_TOP_PAD, 64 << 20)
    # Older versions of glibc accept 32 MB at most.
    if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def total_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use at most: of physical memory, and of its control group (a
    container) and the group's parents if less.

    `root`: the folder that holds /proc and /sys.
    """
    # Imported late: commands that only print results need no psutil.
    import psutil

    limits = [psutil.virtual_memory().total]
    # A file is missing outside Linux, and holds "max" where nothing is limited.
    with contextlib.suppress(OSError):
        # The line `0::/path` of version 2 of control groups.
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        for group in (Path(line[4:]) for line in lines if line.startswith("0::/")):
            # Inside a container its own group may be mounted as the topmost one.
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):
                    limits.append(int((root / "sys/fs/cgroup" / folder / "memory.max").read_text()))
    return min(limits)


def resident_bytes() -> int:
    """Bytes of memory that this process holds now: resident (Linux), or physical footprint (macOS).

    The footprint is what macOS goes by: it includes compressed memory and memory held for the GPU.
    """
    import psutil

    footprint = _footprint(_FOOTPRINT_NOW) if is_mac() else None
    return footprint or int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Peak bytes of this process since it started, as resident_bytes counts them."""
    # In bytes on macOS, in kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if is_mac():
        return _footprint(_PEAK_FOOTPRINT) or peak

    # The peak of this program alone, where Linux tells it: that of `getrusage` begins with the peak
    # of the process that started it.
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if own := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            peak = int(own[1])
    return peak * 1024


def _footprint(number: int) -> int | None:
    """One of the numbers of rusage_info_v4 (sys/resource.h), None where there is no such call.

    The structure is a UUID of 16 bytes and 36 numbers of 64 bits. psutil does not read it.
    """
    usage = (ctypes.c_uint64 * (2 + 36))()
    try:
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        status = library.proc_pid_rusage(os.getpid(), 4, ctypes.byref(usage))
    except (OSError, AttributeError):
        return None
    return None if status else int(usage[2 + number])


def report_device(emit: Emit) -> Device:
    """Measure the device and report it, after a warning if it is slow: the first events of a step."""
    # A CPU's products take long enough by themselves, and a step should not wait.
    device = measure(SYNC_SECONDS if backend().on_gpu else 0.0)
    if warning := slow_blas_warning(device):
        emit(StepWarning(warning))

    emit(device)
    return device


def run(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Measure the device, and note its highest speed if there is a home; `args` is empty.

    Returns `device` (the fields of Device), `warning` (a sentence or None), `gpu` (whether MLX can
    use one), and `unused`: other libraries by name, with the noted speed or None.
    """
    device = measure()
    if home().is_dir():
        key = speed_key(device.blas)
        with contextlib.suppress(BadInput):  # a plan needs no home that may be written
            write_atomic(note_path(key), json.dumps(max(device.gflops, noted(key) or 0.0)))
    import mlx.core as mx

    return {
        "device": asdict(device),
        "warning": slow_blas_warning(device),
        "gpu": bool(mx.is_available(mx.gpu)),
        "unused": {path.name: noted(speed_key(path.name)) for path in blas_paths()[1:]},
    }
