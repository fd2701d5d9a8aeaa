"""Errors of the package index, from pip's output: as sentences, and whether to try again."""

from __future__ import annotations

import re

from tasks.models.sources.hub_retry import BUSY_STATUSES
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError

_NETWORK = re.compile(
    r"connection broken|ConnectionError|Timeout|failed to resolve|unreachable|ProxyError|SSLError",
    re.IGNORECASE,
)
# A wheel that is no zip file, one with another digest, and one that ends early after pip resumed it
# several times.
_DAMAGED = re.compile(
    r"located at .* is invalid|DO NOT MATCH THE HASHES|not enough bytes were received"
)
# pip itself repeats requests that end in the second form, and names the status in its traceback
# only.
_STATUS = re.compile(r"HTTP error (\d{3})\b|too many (\d{3}) error responses")
# A line that pip prints, or the last line of its traceback.
_ERROR_LINE = re.compile(r"^[\w.]*error: (.+)", re.IGNORECASE | re.MULTILINE)


def pip_error(output: str, package: str, version: str) -> TriageError:
    """The error with a sentence for what pip printed to standard error.

    A network that is down and a reason that is not known are transient.
    """
    if "No space left" in output:
        return BadInput(
            f"The disk is full: the package {package} could not be downloaded; "
            "free some space and try again."
        )
    if "No module named pip" in output:
        return SourceUnavailable(
            "pip, which fetches it, is not installed in this environment.", transient=False
        )
    if _DAMAGED.search(output):
        return SourceUnavailable(
            f"the wheel of {package} {version} was damaged on its way.", elsewhere=False
        )
    if status := _STATUS.search(output):
        return _status_error(int(status[1] or status[2]), package, version)
    if "EOFError" in output:  # pip asked for a user name, and standard input is closed
        return _status_error(401, package, version)
    if _NETWORK.search(output):
        return SourceUnavailable("the package index cannot be reached.")
    if "No matching distribution" in output:
        return SourceUnavailable(f"the package index has no {package} {version}.", transient=False)

    reason = (_ERROR_LINE.findall(output) or ["no message"])[-1][:200].rstrip(".")
    return SourceUnavailable(f"pip could not download {package} {version} ({reason}).")


def _status_error(status: int, package: str, version: str) -> SourceUnavailable:
    """The error with a sentence for the HTTP status that the index answered with."""
    if status in BUSY_STATUSES or status >= 500:
        return SourceUnavailable(
            f"the package index answered with an error ({status}).", elsewhere=False
        )
    return SourceUnavailable(
        f"the package index refuses {package} {version} ({status}); "
        "look at its address and your access in pip's settings.",
        transient=False,
    )
