"""What a machine computes with, as one descriptor: every question about the system or the device is
asked here.

`TRIAGE_BACKEND` names another of the table than the one that fits the machine. This file imports no
MLX: the parent process, which never loads it, plans and names results with these values.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from tasks.runtime.errors import BadInput

VARIABLE = "TRIAGE_BACKEND"
# On Linux MLX's library comes with one of these, which overwrite each other's.
CPU_PACKAGE = "mlx-cpu"
CUDA_PACKAGES = ("mlx-cuda-12", "mlx-cuda-13")
NVIDIA_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Backend:
    """How a machine computes, and what follows from it.

    `compute_path`: `packed` (quantised kernels) or `dequantised_f32` (the same weights, unpacked
    once to float32). `cpu_kernels`: elementwise work in the forms that are fast on a CPU, and
    batches without gradients on a stream per core. `tokens_at_once`: padded tokens of one such pass.
    `planned_gflops`: sustained in a training step, roughly. `selftest_tolerance`: largest relative
    difference of float32 results that are equal but for the order of sums; `rounding`: the same in
    root mean square, of results in `compute_dtype`. `compared_with`: what benchmarks measure beside
    ours. `path_in_ids`: whether ids name the compute path: those of the first two backends are
    older than the choice. `wires_memory`: weights may be kept from being paged out. `own_memory`:
    the device has memory of its own. `experimental`: nobody has run it yet, and whatever shows it
    says so.
    """

    name: str
    compute_dtype: str
    compute_path: str
    tokens_at_once: int
    planned_gflops: float
    selftest_tolerance: float
    rounding: float
    compared_with: tuple[str, ...] = ("stock",)
    on_gpu: bool = False
    cpu_kernels: bool = False
    path_in_ids: bool = False
    wires_memory: bool = False
    own_memory: bool = False
    experimental: bool = False

    @property
    def has_slow_kernels(self) -> bool:
        """Whether quantised products of real sizes take minutes: on packed weights on a CPU."""
        return self.compute_path == "packed" and not self.on_gpu

    @property
    def id_ingredients(self) -> dict[str, str]:
        """What an id holds beyond data type and versions."""
        from tasks.runtime.device import chip  # which imports this file

        path = {"backend": self.name, "compute_path": self.compute_path}
        ingredients = path if self.path_in_ids else {}
        # From the M5 and macOS 26.2 on MLX multiplies in the GPU's matrix units, which round otherwise.
        is_m5 = self.name == "metal" and re.match(r"Apple M([5-9]|\d\d)", chip())
        if is_m5 and [int(number) for number in re.findall(r"\d+", os_version())] >= [26, 2]:
            ingredients["arithmetic"] = "nax"
        return ingredients


CPU = Backend(
    name="cpu",
    compute_dtype="float32",
    compute_path="dequantised_f32",
    # The smallest number with which products run at full speed: the arrays between two products
    # then stay in the cache.
    tokens_at_once=512,
    planned_gflops=60.0,
    selftest_tolerance=1e-5,
    rounding=1e-5,
    compared_with=("stock", "stock_dense", "generate_stock"),
    cpu_kernels=True,
)
METAL = Backend(
    name="metal",
    compute_dtype="bfloat16",
    compute_path="packed",
    tokens_at_once=4096,
    planned_gflops=1500.0,
    selftest_tolerance=1e-4,
    rounding=2e-2,
    on_gpu=True,
    wires_memory=True,
)
CUDA = replace(
    METAL,
    name="cuda",
    tokens_at_once=16384,
    planned_gflops=10_000.0,
    path_in_ids=True,
    wires_memory=False,
    own_memory=True,
    experimental=True,
)
# The numbers of Metal's path without a Mac: for tests on tiny models, since MLX's quantised kernels
# are slow on a CPU.
CPU_PACKED = Backend(
    name="cpu-packed",
    compute_dtype="bfloat16",
    compute_path="packed",
    tokens_at_once=512,
    planned_gflops=0.5,
    selftest_tolerance=1e-5,
    rounding=5e-2,
    path_in_ids=True,
)
BACKENDS = {one.name: one for one in (CPU, METAL, CUDA, CPU_PACKED)}


def backend() -> Backend:
    """The backend that `TRIAGE_BACKEND` names, else the best of this machine.

    Raises BadInput for a name that is unknown, or whose device this machine lacks.
    """
    best = METAL if has_apple_gpu() else CUDA if has_cuda() else CPU
    requested = os.environ.get(VARIABLE, "").strip()
    if not requested:
        return best

    usable = {one.name: one for one in BACKENDS.values() if not one.on_gpu or one == best}
    if requested not in usable:
        raise BadInput(
            f"{VARIABLE} = {requested!r} is not available here (metal needs a Mac with Apple "
            "Silicon and a Python built for it, cuda needs Linux, an NVIDIA GPU and one of the "
            f"packages {' and '.join(CUDA_PACKAGES)}); give one of {', '.join(usable)}, or leave it "
            f"away: {best.name} fits."
        )
    return usable[requested]


def has_apple_gpu() -> bool:
    """Whether this is Apple Silicon, and Python is built for it."""
    return is_mac() and platform.machine() == "arm64"


def has_cuda() -> bool:
    """Whether MLX for CUDA is installed, and there is a card with a driver."""
    return is_linux() and NVIDIA_DEVICE.exists() and any(map(installed_version, CUDA_PACKAGES))


def can_fork() -> bool:
    """Whether a step's process may be forked: a forked one may not use the GPU of its parent."""
    return is_linux() and not backend().on_gpu


def is_linux() -> bool:
    """Whether this is Linux."""
    return sys.platform == "linux"


def is_mac() -> bool:
    """Whether this is macOS."""
    return sys.platform == "darwin"


def can_wire_memory() -> bool:
    """Whether MLX can keep weights from being paged out, which takes macOS 15."""
    version = platform.mac_ver()[0].partition(".")[0] if is_mac() else ""
    return backend().wires_memory and int(version or 0) >= 15


def processor() -> str:
    """The processor that this Python was built for, e.g. `x86_64`."""
    return platform.machine()


def platform_name() -> str:
    """Operating system and kind of processor, e.g. `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


def os_version() -> str:
    """The system and its version in figures, e.g. `macOS 15.5` or `Linux 6.8.0`.

    A name that somebody gave to their kernel is left out.
    """
    system = platform.system()
    version = platform.release()
    if is_mac():
        system = "macOS"
        major, point, rest = platform.mac_ver()[0].partition(".")
        # A Python that was built for an earlier macOS is told 16 where the system is 26.
        version = f"{26 if major == '16' else major}{point}{rest}"
    figures = re.match(r"[0-9.]*", version)
    return f"{system} {figures.group().rstrip('.') if figures else ''}".strip()


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the numbers. BadInput where MLX is not installed."""
    by_package = {name: installed_version(name) or "" for name in ("mlx", "mlx-lm")}
    if not all(by_package.values()):
        raise BadInput(
            "MLX is not installed, which needs Linux, or a Mac with Apple Silicon and a Python "
            "built for it; `triage doctor` says what this machine is."
        )

    return by_package


def refuse_unusable_mlx() -> None:
    """Raise BadInput where MLX cannot be loaded as it is installed: without its library, or with
    two that overwrite each other.
    """
    if not is_linux() or installed_version("mlx") is None:
        return

    installed = [name for name in (CPU_PACKAGE, *CUDA_PACKAGES) if installed_version(name)]
    if not installed:
        raise BadInput(
            "MLX is installed without its library; run `uv sync`, or with pip install the extra "
            "`cpu`, `cuda` or `cuda13`."
        )
    if len(installed) > 1:
        raise BadInput(
            f"{' and '.join(installed)} are both installed and overwrite each other's library; run "
            f"`uv pip uninstall {' '.join(installed)}`, then `uv sync`, or with pip install one."
        )


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
