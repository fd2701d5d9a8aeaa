"""Which build of MLX is installed on Linux, and whether this machine can load it.

The packages of the builds all install `mlx/lib/libmlx.so`: of two, the one that was written last
wins, and removing one takes the library of the other along. This file imports no MLX.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from dataclasses import dataclass

from tasks.runtime.backend import CUDA_PACKAGES, installed_version, is_linux
from tasks.runtime.errors import BadInput, Finding

BUILDS = ("mlx-cpu", *CUDA_PACKAGES)
DRIVER = "libcuda.so.1"
# The oldest driver and compute capability that each build runs with (MLX's documentation).
OLDEST_DRIVER = {"mlx-cuda-12": "550.54.14", "mlx-cuda-13": "580"}
OLDEST_CAPABILITY = "7.5"
QUERY = "name,driver_version,compute_cap,memory.total,memory.free"
FOR_THE_CPU = "install MLX for the CPU (`uv sync`, with pip the extra `cpu`)"
# A model and its step need about as much.
LITTLE_FREE_BYTES = 2e9


@dataclass(frozen=True)
class Card:
    """The first NVIDIA GPU, as its driver describes it; memory in bytes."""

    name: str
    driver: str
    capability: str
    memory: int
    free: int


def installed_builds() -> list[str]:
    """The builds of MLX that are installed; one is as it should be."""
    return [name for name in BUILDS if installed_version(name)]


def card() -> Card | None:
    """The first NVIDIA GPU of this machine, None where `nvidia-smi` reports none."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        name, driver, capability, memory, free = answer.stdout.splitlines()[0].split(", ")
        # In MiB.
        return Card(name, driver, capability, int(memory) << 20, int(free) << 20)
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return None


@functools.cache
def card_memory() -> int | None:
    """Bytes of the first NVIDIA GPU's own memory, None where there is none."""
    gpu = card()
    return gpu.memory if gpu else None


def build_finding() -> Finding | None:
    """What is installed on Linux, and what to do if it cannot work; None on a Mac."""
    if not is_linux() or installed_version("mlx") is None:
        return None

    builds = installed_builds()
    if not builds:
        detail = "MLX is installed without its library"
        return _error(
            detail, "run `uv sync`, or with pip install the extra `cpu`, `cuda` or `cuda13`"
        )
    if len(builds) > 1:
        detail = f"{' and '.join(builds)} are both installed and overwrite each other's library"
        remedy = f"run `uv pip uninstall {' '.join(builds)}`, then {FOR_THE_CPU} or for CUDA alone"
        return _error(detail, remedy)

    return Finding("build", "ok", builds[0]) if builds[0] == BUILDS[0] else _cuda(builds[0])


def refuse_unusable_build() -> None:
    """Raise BadInput, with the remedy, where MLX cannot be imported as it is installed."""
    finding = build_finding()
    if finding is not None and finding.level == "error":
        raise BadInput(f"{finding.detail[0].upper()}{finding.detail[1:]}: {finding.remedy}.")


def _cuda(build: str) -> Finding:
    oldest = OLDEST_DRIVER[build]
    if not _has_driver():
        detail = f"{build} needs NVIDIA's driver, and {DRIVER} cannot be loaded"
        return _error(detail, f"install the driver ({oldest} or newer), or {FOR_THE_CPU}")

    gpu = card()
    if gpu is None:
        return _error(f"{build} finds no GPU: `nvidia-smi` reports none", f"else {FOR_THE_CPU}")
    if _numbers(gpu.driver) < _numbers(oldest):
        alternative = " or the extra `cuda`," if build != CUDA_PACKAGES[0] else ""
        detail = f"the driver {gpu.driver} of {gpu.name} is too old for {build}"
        return _error(detail, f"install {oldest} or newer,{alternative} or {FOR_THE_CPU}")
    if _numbers(gpu.capability) < _numbers(OLDEST_CAPABILITY):
        detail = (
            f"{gpu.name} has compute capability {gpu.capability}, and {build} needs "
            f"{OLDEST_CAPABILITY}"
        )
        return _error(detail, FOR_THE_CPU)

    return _memory(build, gpu)


def _memory(build: str, gpu: Card) -> Finding:
    detail = (
        f"{build} on {gpu.name}, driver {gpu.driver}, "
        f"{gpu.free / 1e9:.1f} of {gpu.memory / 1e9:.1f} GB free; experimental"
    )
    if gpu.free >= LITTLE_FREE_BYTES:
        return Finding("build", "ok", detail)

    remedy = "the GPU is nearly full: close the programs that `nvidia-smi` lists"
    return Finding("build", "warning", detail, remedy)


def _error(detail: str, remedy: str) -> Finding:
    return Finding("build", "error", detail, remedy)


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """`550.54.14` as (550, 54, 14)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
