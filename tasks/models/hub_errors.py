"""What may go wrong with the Hub, in a sentence, and whether it may pass by itself."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import HubSource

T = TypeVar("T")
BUSY = (408, 429, 500, 502, 503, 504)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# What huggingface_hub raises for a file of another size than was announced, and httpx where the connection ends within.
_CUT_SHORT = re.compile(r"Consistency check failed|without sending complete message body")
BUSY_PAUSES = (1.0, 3.0)  # seconds between attempts while the server says that it is busy


def patiently(ask: Callable[[], T]) -> T:
    """Ask again where a busy server refused; what was fetched before is kept by the cache."""
    from huggingface_hub import errors

    for pause in BUSY_PAUSES:
        try:
            return ask()
        except errors.HfHubHTTPError as error:
            if status_of(error) not in BUSY:
                raise
            time.sleep(pause)
    return ask()


def refused(error: SourceUnavailable) -> bool:
    """True if the Hub itself said no, so that an older copy in the local cache must not hide it."""
    from huggingface_hub import constants

    return not error.transient and not constants.is_offline_mode()


@contextmanager
def sentences(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into a sentence; only what may pass by itself is marked as transient."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise SourceUnavailable(
            "HF_HUB_OFFLINE is set and the repository is not in the local Hub cache.",
            transient=False,
        ) from error
    except (
        errors.LocalEntryNotFoundError
    ) as error:  # its cause is what the Hub said to the question for the file
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _answered(error.__cause__, source) from error
        raise SourceUnavailable(
            "the Hub cannot be reached and its local cache lacks files of this repository."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _answered(error, source) from error
    except (
        errors.HFValidationError
    ) as error:  # a ValueError too, but of a name that never reached the Hub
        raise BadInput(
            f"{source.repo} cannot be a Hub repository ({_line(error)}); correct `repo`."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise SourceUnavailable(
            f"what answered is not the Hub ({type(error).__name__}); look at HF_ENDPOINT."
        ) from error
    except (httpx.HTTPError, OSError) as error:
        if isinstance(error, OSError) and (refusal := _disk_refusal(error)) is not None:
            raise refusal from error
        if _CUT_SHORT.search(str(error)):
            raise SourceUnavailable(
                "a file arrived shorter than the Hub said, and the next attempt fetches it anew.",
                elsewhere=False,
            ) from error
        raise SourceUnavailable(f"the Hub cannot be reached ({type(error).__name__}).") from error
    except RuntimeError as error:  # hf_xet, which moves large files, has no errors of its own
        if (refusal := _disk_refusal(error)) is not None:
            raise refusal from error
        raise SourceUnavailable(
            f"the download from the Hub broke off ({_line(error)}).", elsewhere=False
        ) from error


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error of huggingface_hub carries, if any."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _disk_refusal(error: Exception) -> BadInput | None:
    """The sentence where the disk refused what goes into the Hub's cache; None if it did not. hf_xet tells it in words."""
    from huggingface_hub import constants

    found = _OS_ERROR.search(str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return BadInput("The disk of the Hub's cache is full; free some space or set HF_HOME.")
    if number in _FORBIDDEN:
        place = getattr(error, "filename", None) or constants.HF_HUB_CACHE
        return BadInput(
            f"The Hub's cache may not be written ({os.strerror(number)}: {place}); set HF_HOME to a folder of your own."
        )
    return None


def _answered(error: Exception, source: HubSource) -> SourceUnavailable:
    """The sentence for what the Hub answered."""
    from huggingface_hub import errors

    status, repo = status_of(error), source.repo
    if isinstance(error, errors.GatedRepoError):
        mirror = f", or list its open mirror {source.mirror} as a source" if source.mirror else ""
        text = f"{repo} is gated: accept its licence on its Hub page and set HF_TOKEN to a token of that account{mirror}."
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"{repo} has no revision {source.revision}."
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"there is no repository {repo}, or it is private and HF_TOKEN is not set."
    elif isinstance(error, errors.EntryNotFoundError):
        text = f"{repo} lacks a file that a model needs, such as config.json."
    elif status in (401, 403):
        text = f"the Hub does not let you read {repo} ({status}); look at the token in HF_TOKEN."
    else:
        text = f"the Hub answered with an error ({status or 'no status'})."
    busy = status in BUSY or (status or 500) >= 500
    return SourceUnavailable(text, transient=busy, elsewhere=not busy)


def _line(error: Exception) -> str:
    """An error's text on one line, without the full stop, and not too long."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
