"""What may go wrong with the package index, read from what pip says: in a sentence, and whether it may pass by itself."""

from __future__ import annotations

import re

from tasks.models.hub_errors import BUSY
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError

_NETWORK = re.compile(
    r"connection broken|ConnectionError|Timeout|failed to resolve|unreachable|ProxyError|SSLError",
    re.IGNORECASE,
)
# A wheel that pip finds to be no zip file, one of another digest, and one that ended early however often pip resumed it.
_DAMAGED = re.compile(
    r"located at .* is invalid|DO NOT MATCH THE HASHES|not enough bytes were received"
)
# The last one pip itself repeats, and then only its traceback tells the status.
_STATUS = re.compile(r"HTTP error (\d{3})\b|too many (\d{3}) error responses")
_TOLD = re.compile(
    r"^[\w.]*error: (.+)", re.IGNORECASE | re.MULTILINE
)  # by pip, or at the end of its traceback


def pip_error(errors: str, name: str, version: str) -> TriageError:
    """What pip said, in a sentence; a network that is down and an unknown reason may pass by themselves."""
    if "No space left" in errors:
        return BadInput(
            f"The disk is full: the package {name} could not be downloaded; free some space and try again."
        )
    if "No module named pip" in errors:
        return SourceUnavailable(
            "pip, which fetches it, is not installed in this environment.", transient=False
        )
    if _DAMAGED.search(errors):
        return SourceUnavailable(
            f"the wheel of {name} {version} was damaged on its way.", elsewhere=False
        )
    if found := _STATUS.search(errors):
        return _answered(int(found[1] or found[2]), name, version)
    if "EOFError" in errors:  # pip asked for a user name, and nobody is here to give one
        return _answered(401, name, version)
    if _NETWORK.search(errors):
        return SourceUnavailable("the package index cannot be reached.")
    if "No matching distribution" in errors:
        return SourceUnavailable(f"the package index has no {name} {version}.", transient=False)
    reason = (_TOLD.findall(errors) or ["no message"])[-1][:200].rstrip(".")
    return SourceUnavailable(f"pip could not download {name} {version} ({reason}).")


def _answered(status: int, name: str, version: str) -> SourceUnavailable:
    """The sentence for the HTTP status with which the index answered."""
    if status in BUSY or status >= 500:
        return SourceUnavailable(
            f"the package index answered with an error ({status}).", elsewhere=False
        )
    return SourceUnavailable(
        f"the package index refuses {name} {version} ({status}); look at its address and your access in pip's settings.",
        transient=False,
    )
