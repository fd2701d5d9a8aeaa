"""A Hugging Face repository as a source of weights: pinned to a commit, only the files needed, no pickled weights.

Files go through the Hub's own cache (resumable, shared with other tools) and are then placed in our folder. HF_ENDPOINT,
HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they mean everywhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tasks.models import layout
from tasks.models.transfer import Progress, hub_bar
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.store import file_digest
from tasks.spec import HubSource

CONNECT_SECONDS = 4.0
T = TypeVar("T")
BUSY_PAUSES = (1.0, 3.0)  # seconds between attempts while the server says that it is busy


def describe(source: HubSource) -> str:
    return f"Hub {source.repo}@{source.revision}"


def key(source: HubSource) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude={"mirror"})


def fill(source: HubSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Put config, tokenizer and safetensors of the repository into `target`.

    Raises SourceUnavailable if the Hub cannot be reached or refuses, BadInput for a repository that cannot be used.
    """
    snapshot = _snapshot(source, not _reachable(source, target), progress)
    for path in sorted(snapshot.iterdir()):
        if layout.wanted(path.name):
            verify_blob(path)
            _place(path.resolve(), target / path.name)
    facts = layout.check(target, f"{source.repo}@{source.revision}")
    commit = snapshot.name
    return {
        **facts, "weights_source": f"Hub {source.repo}@{commit[:12]}",
        "source": {"kind": "hub", "repo": source.repo, "revision": source.revision, "commit": commit},
    }  # fmt: skip


def probe(source: HubSource) -> str:
    """`reachable` if the Hub answers for the repository's config.json. Raises SourceUnavailable with the reason."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source.repo, "config.json", revision=source.revision), str):
        return "in the local Hub cache"
    if constants.is_offline_mode():
        raise SourceUnavailable("HF_HUB_OFFLINE is set and the model is not in the local Hub cache.")
    with sentences(source):
        get_hf_file_metadata(hf_hub_url(source.repo, "config.json", revision=source.revision), timeout=CONNECT_SECONDS)
    return "reachable"


def _reachable(source: HubSource, target: Path) -> bool:
    """True if the Hub answers; False if it does not, but its local cache has the revision.

    Raises BadInput if the repository has no safetensors, or if the disk is too small for what would be fetched.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        with sentences(source):
            info = patiently(
                lambda: HfApi().model_info(
                    source.repo, revision=source.revision, files_metadata=True, timeout=CONNECT_SECONDS
                )
            )
    except SourceUnavailable:
        if isinstance(try_to_load_from_cache(source.repo, "config.json", revision=source.revision), str):
            return False
        raise
    sizes = {f.rfilename: f.size or 0 for f in info.siblings or [] if layout.wanted(f.rfilename)}
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in sizes):
        raise BadInput(
            f"{source.repo} has no model*.safetensors weights; pickled weights (*.bin, *.pt) are never loaded."
        )
    need, free = sum(sizes.values()), shutil.disk_usage(target).free
    if need > free:
        raise BadInput(
            f"{source.repo} needs {need / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; free some space."
        )
    return True


def _snapshot(source: HubSource, local: bool, progress: Progress) -> Path:
    """The folder of the revision's commit in the Hub's cache, completed by what is missing. The config comes first."""
    from huggingface_hub import hf_hub_download, snapshot_download

    bar = hub_bar(source.repo, progress)
    options: dict[str, Any] = {"etag_timeout": CONNECT_SECONDS, "local_files_only": local, "tqdm_class": bar}
    with sentences(source):
        config = Path(
            patiently(lambda: hf_hub_download(source.repo, "config.json", revision=source.revision, **options))
        )
        layout.check_config(config, source.repo)
        commit = config.parent.name  # the cache keeps each commit in a folder of that name
        patterns = list(layout.PATTERNS)
        return Path(
            patiently(lambda: snapshot_download(source.repo, revision=commit, allow_patterns=patterns, **options))
        )


def patiently(ask: Callable[[], T]) -> T:
    """Ask again where a busy server refused; what was fetched before is kept by the cache."""
    from huggingface_hub import errors

    for pause in BUSY_PAUSES:
        try:
            return ask()
        except errors.HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in (429, 500, 502, 503, 504):
                raise
            time.sleep(pause)
    return ask()


@contextmanager
def sentences(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into a sentence."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        mirror = f", or list its open mirror {source.mirror} as a source" if source.mirror else ""
        raise SourceUnavailable(
            f"{source.repo} is gated: accept its licence on its Hub page and set HF_TOKEN to a token of that account"
            f"{mirror}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SourceUnavailable(f"{source.repo} has no revision {source.revision}.") from error
    except errors.RepositoryNotFoundError as error:
        raise SourceUnavailable(
            f"there is no repository {source.repo}, or it is private and HF_TOKEN is not set."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise SourceUnavailable(
            "the Hub cannot be reached and its local cache lacks files of this repository."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise SourceUnavailable("HF_HUB_OFFLINE is set and the repository is not in the local Hub cache.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        if status in (401, 403):
            raise SourceUnavailable(
                f"the Hub does not let you read {source.repo} ({status}); look at the token in HF_TOKEN."
            ) from error
        raise SourceUnavailable(f"the Hub answered with an error ({status}).") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SourceUnavailable(
            f"what answered is not the Hub ({type(error).__name__}); look at HF_ENDPOINT."
        ) from error
    except (httpx.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadInput("The disk of the Hub's cache is full; free some space or set HF_HOME.") from error
        raise SourceUnavailable(f"the Hub cannot be reached ({type(error).__name__}).") from error


def verify_blob(path: Path) -> None:
    """Compare a cached file with its name in the Hub's cache, which is its digest: SHA-256, or git's SHA-1."""
    blob = path.resolve()
    if len(blob.name) == 64:
        found = file_digest(blob)
    elif len(blob.name) == 40:
        content = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    else:
        return
    if found != blob.name:
        blob.unlink(missing_ok=True)  # its name promises other bytes; a new attempt downloads it again
        raise SourceUnavailable(
            f"{path.name} was damaged on its way from the Hub; run the command again to fetch it anew."
        )


def _place(path: Path, target: Path) -> None:
    try:
        os.link(path, target)  # the cache never changes a blob, so both may share one copy
    except OSError:
        shutil.copyfile(path, target)
