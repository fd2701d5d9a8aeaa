"""What tells this machine from others that keep records in the same TRIAGE_HOME."""

from __future__ import annotations

import re
import socket
from functools import cache

from tasks.runtime.backend import is_mac
from tasks.runtime.device import answer_of

# Not `sysctl kern.uuid`: that is the build of the kernel, the same on Macs of one macOS version.
IOREG = ("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
_UUID = re.compile(r'"IOPlatformUUID" = "([0-9A-Fa-f-]+)"')


@cache
def machine_id() -> str:
    """The name of this machine in the names of records.

    A Mac's is that of its hardware, since its host name changes with its network: what a killed
    command left would never be found again.
    """
    return (_hardware_uuid() if is_mac() else "") or socket.gethostname()


def _hardware_uuid() -> str:
    """The UUID of this Mac; empty where it cannot be read."""
    uuid = _UUID.search(answer_of(*IOREG))
    return uuid[1] if uuid else ""
