"""How much memory this process may use and how much it holds, and what it keeps of what is freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
from pathlib import Path

from tasks.runtime.backend import is_mac

# Of `ri_phys_footprint` and `ri_lifetime_max_phys_footprint` in macOS's rusage_info_v4.
_FOOTPRINT_NOW = 7
_PEAK_FOOTPRINT = 28

# Parameters of mallopt, by their numbers in malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


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
