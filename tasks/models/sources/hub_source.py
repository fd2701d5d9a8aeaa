"""A Hugging Face repository as a source of weights: pinned to a commit, without pickled weights.

Files go through the Hub's own cache, which other tools share, and are then placed in a source
folder. A broken connection continues where it broke, and complete files stay in the cache; a killed
process starts its current file again, since huggingface_hub keeps no part of one. HF_ENDPOINT,
HF_TOKEN, HF_HOME and HF_HUB_OFFLINE have their usual meaning.

A busy Hub (503 and the like) is asked again, and errors become sentences, in hub_errors.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.models.manifest import FetchedWeights, Origin
from tasks.models.sources import folder_source
from tasks.models.sources.downloads import Progress, check_room, hub_bar
from tasks.models.sources.hub_errors import explain_hub_errors, is_refusal, retry_while_busy
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.files import file_digest
from tasks.spec import HubSource, short_digest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

CONNECT_SECONDS = 4.0
SHA256_LENGTH = 64
SHA1_LENGTH = 40
_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def describe(source: HubSource) -> str:
    """The source in words, with the first digits of its commit."""
    return f"Hub {source.repo}@{source.revision[:12] if is_pinned(source) else source.revision}"


def is_pinned(source: HubSource) -> bool:
    """True if the revision is a commit, which never changes, rather than a branch or a tag."""
    return _COMMIT.fullmatch(source.revision) is not None


def identity(source: HubSource) -> str:
    """Digest of repository and revision."""
    return short_digest(source.model_dump(mode="json", exclude={"mirror"}))


def fetch(source: HubSource, target: Path, progress: Progress) -> FetchedWeights:
    """Put the files of the model into `target`, and licence texts into `licences` below it.

    Raises SourceUnavailable if the Hub cannot be reached or refuses, BadInput for a repository that
    cannot be used.
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

    precision, digest = folder_source.check_weights(target, f"{source.repo}@{source.revision}")
    commit = snapshot.name
    origin = {"kind": "hub", "repo": source.repo, "revision": source.revision, "commit": commit}
    return FetchedWeights(
        format="safetensors",
        original_precision=precision,
        file_digest=digest,
        weights_source=f"Hub {source.repo}@{commit[:12]}",
        origin=Origin.model_validate(origin),
    )


def import_ahead() -> None:
    """Import what `probe` needs: on a busy machine that takes longer than the Hub's answer."""
    import httpx  # noqa: F401
    import huggingface_hub.file_download  # noqa: F401


def probe(source: HubSource) -> str:
    """`reachable` if the Hub answers for the repository's config.json.

    Raises SourceUnavailable with the reason.
    """
    from huggingface_hub import constants

    with explain_hub_errors(source):
        if _cached_snapshot(source):
            return "in the local Hub cache"

        if constants.is_offline_mode():
            raise SourceUnavailable(
                "HF_HUB_OFFLINE is set and the model is not in the local Hub cache.",
                transient=False,
            )
        _request_config(source)

    return "reachable"


def verify_blob(path: Path) -> None:
    """Compare a cached file with its name in the Hub's cache: its SHA-256, or git's SHA-1.

    Raises SourceUnavailable, and deletes the file from the cache, if they differ.
    """
    blob = path.resolve()
    if len(blob.name) == SHA256_LENGTH:
        digest = file_digest(blob)
    elif len(blob.name) == SHA1_LENGTH:
        content = blob.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    else:
        return  # the name is no digest

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

    with explain_hub_errors(source):  # the cache may belong to another user
        _check_room(source, listing, target)
    return _download(source, progress)


def _request_listing(source: HubSource) -> ModelInfo:
    """The Hub's listing of the revision: its commit, its files and their sizes.

    Raises BadInput if it is not a whole model, SourceUnavailable if the Hub does not give its
    files.
    """
    from huggingface_hub import HfApi

    with explain_hub_errors(source):
        listing = retry_while_busy(
            lambda: HfApi().model_info(
                source.repo, revision=source.revision, files_metadata=True, timeout=CONNECT_SECONDS
            )
        )

    # Before gigabytes are fetched.
    names = {file.rfilename for file in listing.siblings or []}
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        raise BadInput(
            f"{source.repo} has no model*.safetensors weights; "
            "pickled weights (*.bin, *.pt) are never loaded."
        )
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise BadInput(
                f"{source.repo} has no {name}, without which its model "
                "cannot be rebuilt; name another repository."
            )

    # Anyone may see the listing of a gated repository; a request for one file shows whether its
    # files may be read.
    with explain_hub_errors(source):
        retry_while_busy(lambda: _request_config(source))

    return listing


def _request_config(source: HubSource) -> None:
    """Ask the Hub whether it gives the revision's config.json, without fetching it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(
        hf_hub_url(source.repo, "config.json", revision=source.revision), timeout=CONNECT_SECONDS
    )


def _cached_snapshot(source: HubSource) -> Path | None:
    """The revision's folder in the Hub's local cache if it holds a whole model, else None.

    Uses no network.
    """
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
    """Raise BadInput if there is no room for the files that are not in the Hub's cache yet.

    They go into the cache, and are linked from `target`. If that is on another disk they are copied
    there.
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

    check_room(source.repo, sum(missing), existing, "HF_HOME")
    if existing.stat().st_dev != target.stat().st_dev:
        check_room(source.repo, sum(sizes.values()), target, "TRIAGE_HOME")


def _download(source: HubSource, progress: Progress) -> Path:
    """Download what the Hub's cache lacks; returns the folder of the commit there.

    The config comes first.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    options: dict[str, Any] = {
        "etag_timeout": CONNECT_SECONDS,
        "tqdm_class": hub_bar(source.repo, progress),
    }
    with explain_hub_errors(source):
        path = retry_while_busy(
            lambda: hf_hub_download(source.repo, "config.json", revision=source.revision, **options)
        )
        config = Path(path)
        verify_blob(config)  # before it is read: a damaged one must not stay in the cache
        folder_source.check_config(config, source.repo)

        # All files at one commit, although a branch may move between two requests.
        commit = config.parent.name  # the cache has a folder of that name for each commit
        snapshot = retry_while_busy(
            lambda: snapshot_download(
                source.repo, revision=commit, allow_patterns=list(folder_source.PATTERNS), **options
            )
        )
        return Path(snapshot)
