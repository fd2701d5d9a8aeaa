"""Retries of requests to the Hugging Face Hub: a busy server (429, 503) is asked again.

`retry_while_busy` makes three attempts, `BUSY_PAUSES` apart. If the last one fails too,
`hub_errors.explain_hub_errors` marks the error as transient, and the Prefect task
`tasks/acquire.py` starts the whole step again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Request timeout, too many requests, and the server errors that a later request may not meet.
BUSY_STATUSES = (408, 429, 500, 502, 503, 504)
BUSY_PAUSES = (1.0, 3.0)  # seconds between attempts


def retry_while_busy(request: Callable[[], T]) -> T:
    """The result of `request`, repeated while the Hub answers with one of BUSY_STATUSES.

    Files that are complete stay in the Hub's cache, so that a repeated download continues with the
    next one. Raises what `request` raises: at once for any other error, or after the last attempt.
    """
    from huggingface_hub import errors

    for pause in BUSY_PAUSES:
        try:
            return request()
        except errors.HfHubHTTPError as error:
            if status_of(error) not in BUSY_STATUSES:
                raise
            time.sleep(pause)

    return request()


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error of huggingface_hub; None if it has no response."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
