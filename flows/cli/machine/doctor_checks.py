"""The checks of `triage doctor`. Each takes seconds, changes nothing, and returns its findings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from deployments.prefect_api import check_prefect_server
from flows.plan import estimated_bytes
from flows.report.figures import counted
from flows.selection import select
from tasks.models.sources.available import availabilities, is_offered, is_unanswered
from tasks.runtime.backend import BACKENDS, is_intel_python, is_mac, processor, system_name
from tasks.runtime.builds import build_finding
from tasks.runtime.children import run_child
from tasks.runtime.device import chip, cores
from tasks.runtime.errors import Finding
from tasks.runtime.events import Device
from tasks.runtime.home import existing_home, home
from tasks.runtime.memory import total_memory
from warehouse.connect import warehouse_path
from warehouse.health import examine
from warehouse.place import REBUILD

STUDY = "paper"
LIBRARIES = (
    "triage-sweep",
    "mlx",
    "mlx-lm",
    "transformers",
    "huggingface_hub",
    "prefect",
    "duckdb",
)
# The largest model in float32 takes 1.5 GB, and a training step as much again.
LITTLE_MEMORY = 6e9
TOO_LITTLE_MEMORY = 2e9
TOO_LITTLE_DISK = 1e9
# Folders of a Mac's user that iCloud, if it is told to, or another service synchronises.
UPLOADED = ("Desktop", "Documents", "Library/Mobile Documents", "Library/CloudStorage")

Check = Callable[[], list[Finding]]


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide a result."""
    libraries = {name: _version(name) for name in LIBRARIES}
    return {"Python": platform.python_version()} | libraries


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> list[Finding]:
    text = f"{system_name()}, {chip()}, {cores()} cores"
    if is_intel_python():
        remedy = (
            "MLX needs Apple Silicon and a Python built for it: install Homebrew's uv for Apple "
            "Silicon, then run `uv sync --python cpython-3.13-macos-aarch64`"
        )
        return [Finding("machine", "error", f"{text}, Python for {processor()}", remedy)]
    return [Finding("machine", "ok", text)]


def build() -> list[Finding]:
    """The build of MLX and, for CUDA, the GPU and its driver."""
    finding = build_finding()
    return [] if finding is None else [finding]


def memory() -> list[Finding]:
    size = total_memory()
    text = f"{size / 1e9:.1f} GB"
    if size >= LITTLE_MEMORY:
        return [Finding("memory", "ok", text)]

    level: Literal["warning", "error"] = "error" if size < TOO_LITTLE_MEMORY else "warning"
    remedy = "close other programs, or stay with --model smollm2-135m"
    return [Finding("memory", level, text, remedy)]


def computing() -> list[Finding]:
    """BLAS and backend, as the process of a step sees them."""
    probe = Probe(**run_child("tasks.runtime.device:run", {}, home() / "logs" / "doctor-probe"))
    return [_blas(probe), _backend(probe)]


class Probe(BaseModel):
    """What the probe's child process reports. `gpu`: whether MLX can use one."""

    device: Device
    warning: str | None
    gpu: bool

    @property
    def lacks_gpu(self) -> bool:
        return self.device.on_gpu and not self.gpu


def _blas(probe: Probe) -> Finding:
    device = probe.device
    if device.on_gpu:
        return Finding("products", "ok", f"GPU, {device.gflops:.0f} GFLOP/s in float32")

    speed = f"{device.blas}, {device.gflops:.0f} GFLOP/s in float32"
    if probe.warning is None:
        return Finding("BLAS", "ok", speed)
    if device.blas == "reference":
        return Finding("BLAS", "warning", speed, probe.warning.rstrip("."))

    remedy = (
        "a fast library is loaded, so the machine is busy or slow: "
        "close other programs and measure again"
    )
    return Finding("BLAS", "warning", speed, remedy)


def _backend(probe: Probe) -> Finding:
    device = probe.device
    path = f"{device.backend}, {device.compute_path} in {device.compute_dtype}"
    if probe.lacks_gpu:
        remedy = (
            "run it on the Mac itself, not in a virtual machine or over a session without a GPU"
        )
        return Finding("backend", "error", f"{path}, but its GPU cannot be used", remedy)

    if not device.on_gpu:
        path += "; memory and time of 4 against 8 bits can only be compared on a GPU"
    if BACKENDS[device.backend].experimental:
        path += "; experimental"
    return Finding("backend", "ok", path)


def libraries() -> list[Finding]:
    """Versions, and the requirements that pip reports as not met."""
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    findings = [Finding("versions", "ok", text)]

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    # Else pip takes macOS 26 for 16 where Python was built for an earlier one, and MLX for a misfit.
    environment = os.environ | {"SYSTEM_VERSION_COMPAT": "0"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        lines = result.stdout.strip().splitlines() or result.stderr.strip().splitlines()[-1:]
        findings.append(_unmet_requirements(lines))

    return findings


def _unmet_requirements(lines: list[str]) -> Finding:
    of_this_project = [line for line in lines if line.startswith("triage-sweep ")]
    detail = "; ".join((of_this_project or lines)[:3])
    level: Literal["warning", "error"] = "error" if of_this_project else "warning"
    return Finding("requirements", level, detail, "run `uv sync`, or reinstall them")


def bytecode() -> list[Finding]:
    """Whether each process has to compile the libraries, because Python may not store bytecode."""
    large = find_spec("prefect")
    stored = large is not None and Path(large.cached or "").is_file()
    if stored or not sys.dont_write_bytecode:
        return [Finding("bytecode", "ok", "compiled libraries are stored")]
    detail = "PYTHONDONTWRITEBYTECODE is set, so each process compiles every library it imports"
    remedy = "unset it, or run `uv sync --compile-bytecode` once"
    return [Finding("bytecode", "warning", detail, remedy)]


def weights() -> list[Finding]:
    """Where the weights of the study's base models are available. Downloads nothing."""
    answers = availabilities(select(STUDY).models, home())
    states = [state for sources in answers.values() for _, state in sources]
    none_at_all = not any(map(is_offered, states))
    return [_weights(name, sources, none_at_all) for name, sources in answers.items()]


def _weights(model: str, sources: list[tuple[str, str]], none_at_all: bool) -> Finding:
    name = f"weights {model}"
    text = "; ".join(f"{source}: {state}" for source, state in sources)

    usable = [number for number, (_, state) in enumerate(sources) if is_offered(state)]
    if not usable:
        remedy = "connect to a network, or list a folder of weights in a grid (kind = 'folder')"
        slow = any(is_unanswered(state) for _, state in sources)
        return Finding(name, "error" if none_at_all and not slow else "warning", text, remedy)
    if usable[0] == 0 or any(state == "here" for _, state in sources):
        return Finding(name, "ok", text)

    remedy = f"{sources[usable[0]][0]} is used unless the first source can be reached"
    return Finding(name, "warning", text, remedy)


def disk() -> list[Finding]:
    """Permission and space where TRIAGE_HOME is or will be; the study decides how much is needed."""
    return [*_space(), *_uploads()]


def _uploads() -> list[Finding]:
    """A warning where a Mac may upload what the home or the warehouse holds."""
    synced = [(Path.home() / name).resolve() for name in UPLOADED]
    places = {"TRIAGE_HOME": home(), "TRIAGE_WAREHOUSE": warehouse_path()}
    variables = [
        variable
        for variable, path in places.items()
        if is_mac() and any(path.is_relative_to(folder) for folder in synced)
    ]
    if not variables:
        return []

    folders = " and ".join(str(places[variable]) for variable in variables)
    return [
        Finding(
            "uploads",
            "warning",
            f"iCloud or another service may upload {folders}, including any cases",
            f"set {' and '.join(variables)} to a folder that no service synchronises",
        )
    ]


def _space() -> list[Finding]:
    folder = existing_home()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        remedy = "set TRIAGE_HOME to another folder"
        return [Finding("disk", "error", f"{folder} may not be written", remedy)]

    free = shutil.disk_usage(folder).free
    required_bytes = estimated_bytes(select(STUDY))
    text = (
        f"{free / 1e9:.0f} GB free at {home()}; the whole study takes about "
        f"{required_bytes / 1e9:.0f} GB"
    )
    if free >= required_bytes:
        return [Finding("disk", "ok", text)]

    remedy = "free some space, or set TRIAGE_HOME to a folder on another disk"
    return [Finding("disk", "error" if free < TOO_LITTLE_DISK else "warning", text, remedy)]


def warehouse() -> list[Finding]:
    path = warehouse_path()
    offending_rows = examine(path)
    if offending_rows is None:
        remedy = "nothing to do: the next sweep updates it"
        detail = f"{path} was made by an earlier version"
        return [Finding("warehouse", "warning", detail, remedy)]

    failing = [f"{name} ({counted(rows, 'row')})" for name, rows in offending_rows.items() if rows]
    if failing:
        remedy = f"fill a new one from {home() / 'landing'}: {REBUILD}"
        return [Finding("warehouse", "error", f"{path}: audits fail: {', '.join(failing)}", remedy)]
    if path.is_file():
        return [Finding("warehouse", "ok", f"{path}: {len(offending_rows)} audits pass")]

    return [Finding("warehouse", "ok", f"none yet; a sweep creates {path}")]


# Speed is measured while nothing else runs. Most other checks wait for a network or a process.
QUIET: dict[str, Check] = {
    "machine": machine,
    "build": build,
    "memory": memory,
    "BLAS": computing,
}
CONCURRENT: dict[str, Check] = {
    "versions": libraries,
    "bytecode": bytecode,
    "weights": weights,
    "disk": disk,
    "Prefect": check_prefect_server,
    "warehouse": warehouse,
}
