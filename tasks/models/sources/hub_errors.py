"""Errors of the Hugging Face Hub: a busy server (429, 503) is asked again, others become sentences.

`retry_while_busy` makes three attempts, `BUSY_PAUSES` apart. If the last one fails too,
`explain_hub_errors` marks the error as transient, and the Prefect task `tasks/acquire.py` starts
the whole step again.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError
from tasks.spec import HubSource

T = TypeVar("T")

# Request timeout, too many requests, and the server errors that a later request may not meet.
BUSY_STATUSES = (408, 429, 500, 502, 503, 504)
BUSY_PAUSES = (1.0, 3.0)  # seconds between attempts
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# huggingface_hub raises the first for a file of another size than announced, httpx the second for a
# broken connection.
_CUT_SHORT = re.compile(r"Consistency check failed|without sending complete message body")


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


def is_refusal(error: SourceUnavailable) -> bool:
    """True if the Hub itself refused, so that an older copy in the local cache must not hide it."""
    from huggingface_hub import constants

    return not error.transient and not constants.is_offline_mode()


@contextmanager
def explain_hub_errors(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into SourceUnavailable or BadInput with a sentence.

    Only errors that another attempt may not meet are marked as transient.
    """
    try:
        yield
    except Exception as error:
        explanation = _explain(error, source)
        if explanation is None:
            raise
        raise explanation from error


def _explain(error: Exception, source: HubSource) -> TriageError | None:
    """The explained error, or None for errors that are not huggingface_hub's."""
    import httpx
    from huggingface_hub import errors

    # The order matters: huggingface_hub's errors are also OSError, ValueError or errors of httpx.
    if isinstance(error, errors.OfflineModeIsEnabled):
        return SourceUnavailable(
            "HF_HUB_OFFLINE is set and the repository is not in the local Hub cache.",
            transient=False,
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        # A file that is not in the local cache; the cause is the Hub's answer to the request for it.
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            return _explain_answer(error.__cause__, source)
        return SourceUnavailable(
            "the Hub cannot be reached and its local cache lacks files of this repository."
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error, source)
    if isinstance(error, errors.HFValidationError):
        return BadInput(
            f"{source.repo} cannot be a Hub repository ({_one_line(error)}); correct `repo`."
        )
    if isinstance(error, ValueError | TypeError | KeyError):
        return SourceUnavailable(
            f"the server is not a Hub ({type(error).__name__}); check HF_ENDPOINT."
        )
    if isinstance(error, httpx.HTTPError | OSError):
        return _explain_connection(error)
    if isinstance(error, RuntimeError):  # which hf_xet, for large files, raises for everything
        return _disk_error(error) or SourceUnavailable(
            f"the download from the Hub broke off ({_one_line(error)}).", elsewhere=False
        )
    return None


def _explain_connection(error: Exception) -> TriageError:
    """A connection that failed or broke, or a disk that refused the file."""
    if isinstance(error, OSError) and (disk_error := _disk_error(error)) is not None:
        return disk_error
    if _CUT_SHORT.search(str(error)):
        return SourceUnavailable(
            "a file arrived shorter than the Hub said, and the next attempt fetches it again.",
            elsewhere=False,
        )

    return SourceUnavailable(f"the Hub cannot be reached ({type(error).__name__}).")


def _disk_error(error: Exception) -> BadInput | None:
    """The explained error if the disk refused to store what the Hub's cache needs, else None."""
    from huggingface_hub import constants

    in_text = _OS_ERROR.search(str(error))  # hf_xet gives the number in its message only
    number = getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)

    if number in _FULL or "No space left" in str(error):
        return BadInput("The disk of the Hub's cache is full; free some space or set HF_HOME.")
    if number in _FORBIDDEN:
        path = getattr(error, "filename", None) or constants.HF_HUB_CACHE
        return BadInput(
            f"The Hub's cache may not be written ({os.strerror(number)}: {path}); "
            "set HF_HOME to a folder that you may write to."
        )

    return None


def _explain_answer(error: Exception, source: HubSource) -> SourceUnavailable:
    """An HTTP error that the Hub answered with. Only a busy server is worth another attempt."""
    status = status_of(error)
    busy = status in BUSY_STATUSES or (status or 500) >= 500
    return SourceUnavailable(
        _answer_sentence(error, status, source), transient=busy, elsewhere=not busy
    )


def _answer_sentence(error: Exception, status: int | None, source: HubSource) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        mirror = f", or list its open mirror {source.mirror} as a source" if source.mirror else ""
        return (
            f"{source.repo} is gated: accept its licence on its Hub "
            f"page and set HF_TOKEN to a token of that account{mirror}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source.repo} has no revision {source.revision}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {source.repo}, or it is private and HF_TOKEN is not set."
    if isinstance(error, errors.EntryNotFoundError):
        return f"{source.repo} lacks a file that a model needs, such as config.json."
    if status in (401, 403):
        return (
            f"the Hub does not let you read {source.repo} ({status}); check the token in HF_TOKEN."
        )

    return f"the Hub answered with an error ({status or 'no status'})."


def _one_line(error: Exception) -> str:
    """An error's text on one line of at most 200 characters, without the full stop."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200].rstrip(".")
