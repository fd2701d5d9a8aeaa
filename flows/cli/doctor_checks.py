"""What `triage doctor` looks at. Each check takes seconds at most, changes nothing, and gives its findings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Literal

from flows.plan import estimated_bytes
from flows.selection import select
from tasks.models.sources import availabilities
from tasks.runtime.child import run_child
from tasks.runtime.device import backend, total_memory
from tasks.runtime.findings import Finding
from tasks.runtime.store import existing_home, home
from warehouse.connect import warehouse_path
from warehouse.health import examine

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
LITTLE_MEMORY, TOO_LITTLE_MEMORY = (
    6e9,
    2e9,
)  # the largest model in float32 takes 1.5 GB, and a step as much again
TOO_LITTLE_DISK = 1e9
NO_ANSWER = ("no answer", "did not answer in time")
CAN_BE_HAD = ("here", "reachable", "in the local Hub cache")


def versions() -> dict[str, str]:
    """Python's and the deciding libraries' versions."""
    return {"Python": platform.python_version()} | {
        name: metadata.version(name) for name in LIBRARIES
    }


def machine() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{platform.system()} {platform.release()}, {_chip()}, {cores} cores"
    if sys.platform == "darwin" and backend() != "metal":
        remedy = "MLX needs Apple Silicon and a Python built for it: install one with `uv python install`"
        return [Finding("machine", "error", f"{text}, Python for {platform.machine()}", remedy)]
    return [Finding("machine", "ok", text)]


def memory() -> list[Finding]:
    size = total_memory()
    text = f"{size / 1e9:.1f} GB"
    if size < LITTLE_MEMORY:
        level: Literal["warning", "error"] = "error" if size < TOO_LITTLE_MEMORY else "warning"
        return [
            Finding(
                "memory", level, text, "close other programs, or stay with --model smollm2-135m"
            )
        ]
    return [Finding("memory", "ok", text)]


def computing() -> list[Finding]:
    """BLAS and backend, as a step's process finds them."""
    found = run_child("tasks.runtime.probe:run", {}, home() / "logs" / "doctor-probe")
    device, speed = (
        found["device"],
        f"{found['device']['blas']}, {found['device']['gflops']:.0f} GFLOP/s in float32",
    )
    path = f"{device['backend']}, {device['compute_path']} in {device['compute_dtype']}"
    if device["backend"] == "metal" and not found["metal"]:
        remedy = (
            "run it on the Mac itself, not in a virtual machine or over a session without a GPU"
        )
        return [
            Finding("BLAS", "ok", speed),
            Finding("backend", "error", f"{path}, but Metal cannot be used", remedy),
        ]
    if device["backend"] == "cpu":
        path += "; memory and time of 4 against 8 bits can only be compared on Metal"
    if found["warning"]:
        busy = "a fast library is loaded, so the machine is busy or slow: close other programs and measure again"
        remedy = found["warning"].rstrip(".") if device["blas"] == "reference" else busy
        return [Finding("BLAS", "warning", speed, remedy), Finding("backend", "ok", path)]
    return [Finding("BLAS", "ok", speed), Finding("backend", "ok", path)]


def libraries() -> list[Finding]:
    """Versions, and whether pip finds requirements that are not met."""
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"],
        capture_output=True,
        text=True,
    )
    findings = [Finding("versions", "ok", text)]
    if done.returncode:
        broken = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()[-1:]
        ours = [line for line in broken if line.startswith("triage-sweep ")]
        level: Literal["warning", "error"] = "error" if ours else "warning"
        findings.append(
            Finding(
                "requirements",
                level,
                "; ".join((ours or broken)[:3]),
                "run `uv sync`, or install them anew",
            )
        )
    return findings


def weights() -> list[Finding]:
    """Whether the weights of the study's base models are here or can be had, and from where. Downloads nothing."""
    answers = availabilities(select(STUDY).models, home())
    none_at_all = not any(
        state.startswith(CAN_BE_HAD) for sources in answers.values() for _, state in sources
    )
    return [_weights(name, sources, none_at_all) for name, sources in answers.items()]


def _weights(name: str, sources: list[tuple[str, str]], none_at_all: bool) -> Finding:
    name, text = f"weights {name}", "; ".join(f"{source}: {state}" for source, state in sources)
    usable = [number for number, (_, state) in enumerate(sources) if state.startswith(CAN_BE_HAD)]
    if not usable:
        remedy = "connect to a network, or list a folder of weights in a grid (kind = 'folder')"
        slow = any(
            words in state for _, state in sources for words in NO_ANSWER
        )  # a busy machine, or a slow line
        return Finding(name, "error" if none_at_all and not slow else "warning", text, remedy)
    if usable[0] == 0 or any(state == "here" for _, state in sources):
        return Finding(name, "ok", text)
    return Finding(
        name,
        "warning",
        text,
        f"{sources[usable[0]][0]} is used unless the first source can be reached",
    )


def disk() -> list[Finding]:
    """Space and permission where TRIAGE_HOME is or will be, against what the whole study takes."""
    place = existing_home()
    free, needed = shutil.disk_usage(place).free, estimated_bytes(select(STUDY))
    text = (
        f"{free / 1e9:.0f} GB free at {home()}; the whole study takes about {needed / 1e9:.0f} GB"
    )
    remedy = "free some space, or set TRIAGE_HOME to a folder on another disk"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return [
            Finding(
                "disk", "error", f"{place} may not be written", "set TRIAGE_HOME to another folder"
            )
        ]
    if free < needed:
        return [Finding("disk", "error" if free < TOO_LITTLE_DISK else "warning", text, remedy)]
    return [Finding("disk", "ok", text)]


def warehouse() -> list[Finding]:
    path = warehouse_path()
    found = examine(path)
    if found is None:
        remedy = "nothing: the next sweep brings it up to date"
        return [Finding("warehouse", "warning", f"{path} was made by an earlier version", remedy)]
    failing = [f"{name} ({rows} rows)" for name, rows in found.items() if rows]
    if failing:
        remedy = f"delete the file: the next sweep fills a new one from {home() / 'landing'}"
        return [Finding("warehouse", "error", f"{path}: audits fail: {', '.join(failing)}", remedy)]
    text = (
        f"{path}: {len(found)} audits pass" if path.is_file() else f"none yet; a sweep makes {path}"
    )
    return [Finding("warehouse", "ok", text)]


def _chip() -> str:
    if sys.platform != "darwin":
        return platform.machine()
    done = subprocess.run(
        ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
    )
    return done.stdout.strip() or platform.machine()
