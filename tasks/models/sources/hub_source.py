"""A Hugging Face repository as a source of weights: pinned to a commit, without pickled weights.

Files go through the Hub's own cache, which other tools share, and are then placed in a source
folder. A broken connection continues where it broke, and complete files stay in the cache; a killed
process starts its current file again, since huggingface_hub keeps no part of one. HF_ENDPOINT,
HF_TOKEN, HF_HOME and HF_HUB_OFFLINE have their usual meaning.

A Hub that is busy (429, 503) or silent is asked again after each of `PAUSES`. If the last attempt
fails too, the error is transient: without another source, the Prefect task starts the step again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tasks.models.sources import folder_source
from tasks.models.sources.folder_source import Progress, check_room
from tasks.runtime.errors import BadInput, SourceUnavailable, TriageError, is_disk_full
from tasks.runtime.files import file_digest
from tasks.spec import HubSource, short_digest

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

T = TypeVar("T")

CONNECT_SECONDS = 15.0
# Request timeout, too many requests, and the server errors that a later request may not meet.
BUSY_STATUSES = (408, 429, 500, 502, 503, 504)
PAUSES = (1.0, 4.0)  # seconds between attempts
PATIENT_SECONDS = 60.0  # of all attempts, each of which may try several addresses
_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# huggingface_hub raises the first for a file of another size than announced, httpx the second for a
# broken connection.
_CUT_SHORT = re.compile(r"Consistency check failed|without sending complete message body")


def describe(source: HubSource) -> str:
    """The source in words, with the first digits of its commit."""
    return f"Hub {source.repo}@{source.revision[:12] if is_pinned(source) else source.revision}"


def is_pinned(source: HubSource) -> bool:
    """True if the revision is a commit, which never changes, rather than a branch or a tag."""
    return _COMMIT.fullmatch(source.revision) is not None


def identity(source: HubSource) -> str:
    """Digest of repository and revision."""
    return short_digest(source.model_dump(mode="json", exclude={"mirror"}))


def fetch(source: HubSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Put the files of the model into `target`, and licence texts into `licences` below it.

    Raises SourceUnavailable if the Hub is out of reach or refuses, BadInput for an unusable
    repository.
    """
    snapshot = _snapshot(source, target, progress)
    for path in sorted(snapshot.iterdir()):
        if folder_source.is_needed(path.name):
            verify_blob(path)
            copy = folder_source.target_path(target, path.name)
            try:
                # The cache never changes a file, so both folders may share it.
                os.link(path.resolve(), copy)
            except OSError:
                shutil.copyfile(path.resolve(), copy)

    commit = snapshot.name
    return {
        **folder_source.weights_entries(target, f"{source.repo}@{source.revision}"),
        "weights_source": f"Hub {source.repo}@{commit[:12]}",
        "source": {
            "kind": "hub",
            "repo": source.repo,
            "revision": source.revision,
            "commit": commit,
        },
    }


def probe(source: HubSource, patiently: bool = False) -> str:
    """`reachable` if the Hub answers for the repository's config.json: at once, or `patiently` after
    some attempts. Raises SourceUnavailable.
    """
    with explain_hub_errors(source):
        if _cached_snapshot(source):
            return "in the local Hub cache"
        retry(lambda: _request_config(source), once=not patiently)

    return "reachable"


def verify_blob(path: Path) -> None:
    """Compare a cached file with its name in the Hub's cache: its SHA-256, or git's SHA-1. If they
    differ, delete it from the cache and raise SourceUnavailable.
    """
    blob = path.resolve()
    digest = blob.name  # if that is no digest
    if len(blob.name) == 64:
        digest = file_digest(blob)
    elif len(blob.name) == 40:
        content = blob.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if digest == blob.name:
        return

    blob.unlink(missing_ok=True)  # so that the next attempt downloads it again
    raise SourceUnavailable(
        f"{path.name} was damaged on its way from the Hub, and the next attempt fetches it again.",
        elsewhere=False,
    )


def _snapshot(source: HubSource, target: Path, progress: Progress) -> Path:
    """The folder of the revision's commit in the Hub's cache, with all files that are needed.

    Where the Hub does not answer, the cache is used unchanged. An answer of the Hub, a refusal too,
    is never hidden by an older copy.
    """
    try:
        listing = _request_listing(source)
    except SourceUnavailable as error:
        snapshot = None if is_refusal(error) else _cached_snapshot(source)
        if snapshot is None:
            raise
        return snapshot

    with explain_hub_errors(source):
        _check_room(source, listing, target)
        return _download(source, progress)


def _request_listing(source: HubSource) -> ModelInfo:
    """The Hub's listing of the revision: its commit, its files and their sizes. Raises BadInput if it
    is not a whole model, SourceUnavailable if the Hub does not give its files.
    """
    from huggingface_hub import HfApi

    with explain_hub_errors(source):
        listing = retry(
            lambda: HfApi().model_info(
                source.repo, revision=source.revision, files_metadata=True, timeout=CONNECT_SECONDS
            )
        )
        # Before gigabytes are fetched.
        names = {file.rfilename for file in listing.siblings or []}
        folder_source.refuse_incomplete(names, source.repo)

        # Anyone may see the listing of a gated repository; a request for one file shows whether its
        # files may be read.
        retry(lambda: _request_config(source))

    return listing


def _request_config(source: HubSource) -> None:
    """Ask the Hub whether it gives the revision's config.json, without fetching it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(
        hf_hub_url(source.repo, "config.json", revision=source.revision), timeout=CONNECT_SECONDS
    )


def _cached_snapshot(source: HubSource) -> Path | None:
    """The revision's folder in the Hub's local cache if it holds a whole model, else None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
    if not isinstance(config, str):
        return None

    snapshot = Path(config).parent
    names = {path.name for path in snapshot.iterdir() if path.is_file()}
    # `model.safetensors`, or all of `model-00001-of-00003.safetensors` and so on.
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    is_whole = bool(shards) and len(shards) == int(shards[0][1])
    has_weights = "model.safetensors" in names or is_whole
    return snapshot if "tokenizer.json" in names and has_weights else None


def _check_room(source: HubSource, listing: ModelInfo, target: Path) -> None:
    """Raise BadInput if there is no room for the files that are not in the Hub's cache yet. They are
    linked from `target`, or copied there if it is on another disk.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    sizes = {
        file.rfilename: file.size or 0
        for file in listing.siblings or []
        if folder_source.is_needed(file.rfilename)
    }
    missing = [
        size
        for name, size in sizes.items()
        if not isinstance(try_to_load_from_cache(source.repo, name, revision=listing.sha), str)
    ]
    cache = Path(constants.HF_HUB_CACHE).resolve()
    existing = next(path for path in (cache, *cache.parents) if path.exists())

    check_room(source.repo, sum(missing), existing, "set HF_HOME to a folder")
    if existing.stat().st_dev != target.stat().st_dev:
        check_room(source.repo, sum(sizes.values()), target, "set TRIAGE_HOME to a folder")


def _download(source: HubSource, progress: Progress) -> Path:
    """Download what the Hub's cache lacks, the config first; returns the folder of the commit."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):
        """Prints nothing, and reports bytes to `progress`, which may raise to end the download."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.counts_bytes = kwargs.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.counts_bytes and self.total:
                progress(source.repo, min(int(self.n), int(self.total)), int(self.total))

    options: dict[str, Any] = {"etag_timeout": CONNECT_SECONDS, "tqdm_class": Bar}
    path = retry(
        lambda: hf_hub_download(source.repo, "config.json", revision=source.revision, **options),
        is_download=True,
    )
    config = Path(path)
    verify_blob(config)  # before it is read: a damaged one must not stay in the cache
    folder_source.check_config(config, source.repo)

    # All files at one commit, although a branch may move between two requests.
    commit = config.parent.name  # the cache has a folder of that name for each commit
    snapshot = retry(
        lambda: snapshot_download(
            source.repo, revision=commit, allow_patterns=list(folder_source.PATTERNS), **options
        ),
        is_download=True,
    )
    return Path(snapshot)


def retry(request: Callable[[], T], once: bool = False, is_download: bool = False) -> T:
    """The result of `request`, made `once`, or again after each of PAUSES while the Hub answers with
    one of BUSY_STATUSES, or not at all and PATIENT_SECONDS have not passed.

    A download that gets no answer is not begun again: huggingface_hub has tried several times. One
    that is begun again continues with the files that are not complete.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    end = time.monotonic() + PATIENT_SECONDS
    for pause in () if once else PAUSES:
        try:
            return request()
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in BUSY_STATUSES:
                raise
        except httpx.TransportError:
            if is_download or time.monotonic() > end:
                raise
        time.sleep(pause)

    return request()


def is_refusal(error: SourceUnavailable) -> bool:
    """True if the Hub itself refused, so that an older copy in the local cache must not hide it."""
    from huggingface_hub import constants

    return not error.transient and not constants.is_offline_mode()


@contextmanager
def explain_hub_errors(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into SourceUnavailable, transient where another attempt may
    not meet it, or BadInput.
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
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx  # httpx2 from huggingface_hub 2 on

    # The order matters: huggingface_hub's errors are also OSError, ValueError or errors of httpx.
    if isinstance(error, errors.OfflineModeIsEnabled):
        return SourceUnavailable(
            "HF_HUB_OFFLINE is set and the repository is not in the local Hub cache.",
            transient=False,
        )
    # Of a file that is not in the local cache the cause is the Hub's answer to the request for it.
    is_missing = isinstance(error, errors.LocalEntryNotFoundError)
    answer = error.__cause__ if is_missing else error
    if isinstance(answer, errors.HfHubHTTPError):
        return _explain_answer(answer, source)
    if is_missing:
        return SourceUnavailable(
            "the Hub cannot be reached and its local cache lacks files of this repository."
        )

    # On one line.
    words = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
    if isinstance(error, errors.HFValidationError):
        return BadInput(f"{source.repo} cannot be a Hub repository ({words}); correct `repo`.")
    if isinstance(error, ValueError | TypeError | KeyError):
        return SourceUnavailable(
            f"the server is not a Hub ({type(error).__name__}); check HF_ENDPOINT and HTTPS_PROXY."
        )
    if not isinstance(error, httpx.HTTPError | OSError | RuntimeError):
        return None

    in_text = _OS_ERROR.search(str(error))  # hf_xet gives the number in its message only
    number = getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)
    if is_disk_full(error) or number in _FULL:
        return BadInput("The disk of the Hub's cache is full; free some space or set HF_HOME.")
    if number in _FORBIDDEN:
        path = getattr(error, "filename", None) or constants.HF_HUB_CACHE
        return BadInput(
            f"The Hub's cache may not be written ({os.strerror(number)}: {path}); "
            "set HF_HOME to a folder that you may write to."
        )
    # hf_xet, for large files, raises RuntimeError for everything.
    if isinstance(error, RuntimeError) or _CUT_SHORT.search(words):
        return SourceUnavailable(f"the download from the Hub broke off ({words}).", elsewhere=False)
    return SourceUnavailable(f"the Hub cannot be reached ({type(error).__name__}){_proxy()}.")


def _proxy() -> str:
    """The proxy on the way to the Hub, in words and without a password; nothing without one."""
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(hub.scheme, "").rpartition("@")[2]
    if not proxy or proxy_bypass(hub.hostname or ""):
        return ""
    return f" through the proxy {proxy}; correct HTTPS_PROXY or the system's settings"


def _explain_answer(error: HfHubHTTPError, source: HubSource) -> SourceUnavailable:
    """An HTTP error that the Hub answered with. Only a busy server is worth another attempt."""
    from huggingface_hub import constants, errors

    status = error.response.status_code
    sentence = f"the Hub answered with an error ({status})."
    if isinstance(error, errors.GatedRepoError):
        mirror = f", or list its open mirror {source.mirror} as a source" if source.mirror else ""
        sentence = (
            f"{source.repo} is gated: accept its licence on its page, {constants.ENDPOINT}/"
            f"{source.repo}, and set HF_TOKEN to a token of that account{mirror}."
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        sentence = f"{source.repo} has no revision {source.revision}."
    elif isinstance(error, errors.RepositoryNotFoundError):
        sentence = (
            f"there is no repository {source.repo}, or it is private and HF_TOKEN is not set."
        )
    elif isinstance(error, errors.EntryNotFoundError):
        sentence = f"{source.repo} lacks a file that a model needs, such as config.json."
    elif status in (401, 403):
        sentence = (
            f"the Hub does not let you read {source.repo} ({status}); check the token in HF_TOKEN."
        )

    is_busy = status in BUSY_STATUSES or status >= 500
    return SourceUnavailable(sentence, transient=is_busy, elsewhere=not is_busy)
