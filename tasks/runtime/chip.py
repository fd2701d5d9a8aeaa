"""The processor by its maker's name: results of one seed are equal to the last bit only on processors
that add up a product in the same order.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from tasks.runtime.backend import is_mac, platform_name, processor

CPU_INFO = Path("/proc/cpuinfo")
_NUMBERS = {"cpu family": "family", "model": "model"}


def machine_name() -> str:
    """Operating system and processor, e.g. `Darwin arm64, Apple M2 Pro` or `Linux x86_64, AMD EPYC,
    family 26, model 2`.
    """
    name = chip()
    return platform_name() if name == processor() else f"{platform_name()}, {name}"


@cache
def chip() -> str:
    """The name of the processor as its maker gives it; the kind, e.g. `aarch64`, where the system
    does not know it.
    """
    name = _mac_chip() if is_mac() else _linux_chip()
    return name or processor()


def _mac_chip() -> str:
    # With its folder, which is not on the path of a cron job.
    return answer_of("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")


def answer_of(*command: str) -> str:
    """What a program of the system prints; empty where there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _linux_chip() -> str:
    """With family and model, since virtual machines shorten the name."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""

    pairs = [line.partition(":") for line in lines]
    # Reversed, so that of the lines with one key the first processor's stays.
    values = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
    name = values.get("model name", "")
    numbers = [f"{word} {values[key]}" for key, word in _NUMBERS.items() if key in values]
    return ", ".join([name, *numbers]) if name else ""
