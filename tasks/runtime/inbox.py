"""What a parent sends to a step while it runs: lines of JSON on the step's standard input.

That pipe is also how a step knows that its parent lives (child.py): it closes with the parent, so a
step that reads requests is told in words when there are no more.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

WAITING_LINES = 32  # held here; what else is sent waits in the pipe, and then with the parent
END = {"end": True}

_lines: queue.Queue[bytes] = queue.Queue(WAITING_LINES)
_part = bytearray()


def receive(data: bytes) -> None:
    """Keep what has arrived; waits while the step has enough to do."""
    _part.extend(data)
    *lines, remainder = _part.split(b"\n")
    _part[:] = remainder
    for line in lines:
        _lines.put(bytes(line))


def requests(most: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of 1 to `most` requests, as many as wait, until the
    parent says that there are no more.
    """
    while True:
        group = [_next(block=True)]
        while len(group) < most and group[-1] not in (END, None):
            group.append(_next(block=False))

        waiting_requests = [request for request in group if request not in (END, None)]
        if waiting_requests:
            yield waiting_requests
        if END in group:
            return


def _next(block: bool) -> dict[str, Any] | None:
    """The next request; None if none waits."""
    try:
        request: dict[str, Any] = json.loads(_lines.get(block=block))
    except queue.Empty:
        return None
    return request
