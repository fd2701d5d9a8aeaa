"""Under which conditions a machine computes, as its system's tools tell: power, heat, display, memory.

Of each answer one figure or word is taken, and nothing of whose machine it is: no serial number, user
or folder. A tool that a system lacks, or that fails, answers None.
"""

from __future__ import annotations

import re
import subprocess
from importlib import metadata

import psutil

# What the self-test has measured so far, in its folder: a GPU's failure may end the process.
MEASURED = "measured.json"
PMSET = "/usr/bin/pmset"
SYSCTL = "/usr/sbin/sysctl"
DISPLAYS = ("/usr/sbin/system_profiler", "SPDisplaysDataType")
# What is read: the command, with its folder, and where the answer is in what it prints.
READINGS = {
    "model": ((SYSCTL, "-n", "hw.model"), r"^(\w+,\d+)$"),
    "low_power_mode": ((PMSET, "-g"), r"^\s*(?:low)?powermode\s+(\d+)"),
    "power_source": ((PMSET, "-g", "batt"), r"drawing from '([\w ]+)'"),
    "battery_percent": ((PMSET, "-g", "batt"), r"\t(\d+)%"),
    "battery_state": ((PMSET, "-g", "batt"), r"\t\d+%; ([\w ]+);"),
    "heat": ((PMSET, "-g", "therm"), r"(CPU_Speed_Limit\s*= \d+|[Nn]o thermal warning)"),
    "display_kept_awake": ((PMSET, "-g", "assertions"), r"PreventUserIdleDisplaySleep\s+(\d)"),
    "user_is_active": ((PMSET, "-g", "assertions"), r"UserIsActive\s+(\d)"),
    "displays": (DISPLAYS, r"^\s+Resolution: ([\d x]+)"),
    "display_asleep": (DISPLAYS, r"^\s+Display Asleep: (\w+)"),
    "gpu_cores": (DISPLAYS, r"^\s+Total Number of Cores: (\d+)"),
    "metal": (DISPLAYS, r"^\s+Metal(?: Support|): ([\w ]+)$"),
    "free_pages": (("/usr/bin/vm_stat",), r"^Pages free:\s+(\d+)"),
    "compressed_pages": (("/usr/bin/vm_stat",), r"^Pages occupied by compressor:\s+(\d+)"),
    "memory_pressure": ((SYSCTL, "-n", "kern.memorystatus_vm_pressure_level"), r"^(\d)$"),
    "wired_limit_mb": ((SYSCTL, "-n", "iogpu.wired_limit_mb"), r"^(\d+)$"),
}
WHEELS = ("mlx", "mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")


def conditions() -> dict[str, str | float | None]:
    """The answers to READINGS, None where there is none; by psutil the load of the machine, and the bytes
    of memory that are available and of swap in use.
    """
    commands = {command for command, _ in READINGS.values()}
    printed = {command: output(command) for command in commands}
    answers: dict[str, str | float | None] = {"load_average": psutil.getloadavg()[0]}
    for name, (command, pattern) in READINGS.items():
        answer = re.search(pattern, printed[command], re.MULTILINE)
        answers[name] = answer[1].strip() if answer else None
    available, swap = psutil.virtual_memory().available, psutil.swap_memory().used
    return {**answers, "available_bytes": available, "swap_bytes": swap}


def output(command: tuple[str, ...]) -> str:
    """What a command prints; nothing where there is none, or it hangs."""
    try:
        ended = subprocess.run(command, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout.decode(errors="replace")


def wheel_tags() -> dict[str, list[str]]:
    """The tags of MLX's installed wheels, such as `py3-none-macosx_15_0_arm64`."""
    tags = {}
    for name in WHEELS:
        try:
            text = metadata.distribution(name).read_text("WHEEL") or ""
        except metadata.PackageNotFoundError:
            continue
        tags[name] = re.findall(r"^Tag: (\S+)", text, re.MULTILINE)
    return tags
