"""A Hugging Face repository as a source of weights: pinned to a commit, only the files needed, no pickled weights.

Files go through the Hub's own cache (shared with other tools) and are then placed in our folder. A connection that breaks
is taken up where it broke, and files that are complete are kept; a process that is killed begins its current file again,
since huggingface_hub keeps no part of one. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what they mean everywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tasks.models import layout
from tasks.models.hub_errors import patiently, refused, sentences
from tasks.models.transfer import Progress, check_room, hub_bar
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.store import file_digest
from tasks.spec import HubSource

CONNECT_SECONDS = 4.0
_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def describe(source: HubSource) -> str:
    return f"Hub {source.repo}@{source.revision[:12] if is_pinned(source) else source.revision}"


def is_pinned(source: HubSource) -> bool:
    """True if the revision is a commit, which never changes, and not the name of a branch or a tag."""
    return _COMMIT.fullmatch(source.revision) is not None


def key(source: HubSource) -> dict[str, Any]:
    return source.model_dump(mode="json", exclude={"mirror"})


def fill(source: HubSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Put config, tokenizer and safetensors of the repository into `target`, and its licence texts into `licences` there.

    Raises SourceUnavailable if the Hub cannot be reached or refuses, BadInput for a repository that cannot be used.
    """
    snapshot = _snapshot(source, target, progress)
    for path in sorted(snapshot.iterdir()):
        if layout.wanted(path.name):
            verify_blob(path)
            _place(path.resolve(), layout.place(target, path.name))
    facts = layout.check(target, f"{source.repo}@{source.revision}")
    commit = snapshot.name
    return {
        **facts, "weights_source": f"Hub {source.repo}@{commit[:12]}",
        "source": {"kind": "hub", "repo": source.repo, "revision": source.revision, "commit": commit},
    }  # fmt: skip


def import_ahead() -> None:
    """Import what `probe` needs: on a busy machine that takes longer than the Hub has to answer."""
    import httpx  # noqa: F401
    import huggingface_hub.file_download  # noqa: F401


def probe(source: HubSource) -> str:
    """`reachable` if the Hub answers for the repository's config.json. Raises SourceUnavailable with the reason."""
    from huggingface_hub import constants

    with sentences(source):
        if _cached(source):
            return "in the local Hub cache"
        if constants.is_offline_mode():
            raise SourceUnavailable(
                "HF_HUB_OFFLINE is set and the model is not in the local Hub cache.",
                transient=False,
            )
        _ask_for_config(source)
    return "reachable"


def _snapshot(source: HubSource, target: Path, progress: Progress) -> Path:
    """The folder of the revision's commit in the Hub's cache, completed by what is missing; the cache as it is where
    the Hub does not answer. What the Hub answers, a refusal too, is never hidden by an older copy."""
    try:
        info = _ask(source)
    except SourceUnavailable as error:
        if refused(error) or (folder := _cached(source)) is None:
            raise
        return folder
    with sentences(source):  # it looks into the cache, which may be closed to us
        _check_room(source, info, target)
    return _download(source, progress)


def _ask(source: HubSource) -> Any:
    """The Hub's listing of the revision: its commit, its files and their sizes. Raises BadInput if it is no whole model.

    Raises SourceUnavailable if the Hub does not give the files, which it tells for one of them.
    """
    from huggingface_hub import HfApi

    with sentences(source):
        info = patiently(
            lambda: HfApi().model_info(
                source.repo, revision=source.revision, files_metadata=True, timeout=CONNECT_SECONDS
            )
        )
    _refuse_unless_whole(source.repo, {f.rfilename for f in info.siblings or []})
    with sentences(
        source
    ):  # anyone may see the listing of a gated repository; its files tell whether we may read them
        patiently(lambda: _ask_for_config(source))
    return info


def _refuse_unless_whole(repo: str, names: set[str]) -> None:
    """Raise BadInput for what the listing lacks, before gigabytes are fetched."""
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        raise BadInput(
            f"{repo} has no model*.safetensors weights; pickled weights (*.bin, *.pt) are never loaded."
        )
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise BadInput(
                f"{repo} has no {name}, without which its model cannot be rebuilt; name another repository."
            )


def _ask_for_config(source: HubSource) -> None:
    """Ask the Hub whether it gives the revision's config.json, without fetching it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(
        hf_hub_url(source.repo, "config.json", revision=source.revision), timeout=CONNECT_SECONDS
    )


def _cached(source: HubSource) -> Path | None:
    """The revision's folder in the Hub's local cache if it holds a whole model, else None. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
    if not isinstance(config, str):
        return None
    names = {path.name for path in Path(config).parent.iterdir() if path.is_file()}
    return Path(config).parent if "tokenizer.json" in names and _whole_weights(names) else None


def _whole_weights(names: set[str]) -> bool:
    """True if the files hold all weights: `model.safetensors`, or every one of `model-00001-of-00003.safetensors`."""
    shards = [found for name in names if (found := _SHARD.fullmatch(name))]
    return "model.safetensors" in names or (bool(shards) and len(shards) == int(shards[0][1]))


def _check_room(source: HubSource, info: Any, target: Path) -> None:
    """Raise BadInput if what is still to be fetched does not fit where it goes: the Hub's cache, and the disk of
    `target` if that is another one, since files cannot be shared across disks."""
    from huggingface_hub import constants, try_to_load_from_cache

    sizes = {f.rfilename: f.size or 0 for f in info.siblings or [] if layout.wanted(f.rfilename)}
    cached = {
        n
        for n in sizes
        if isinstance(try_to_load_from_cache(source.repo, n, revision=info.sha), str)
    }
    cache = Path(constants.HF_HUB_CACHE).resolve()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    check_room(
        source.repo,
        sum(size for name, size in sizes.items() if name not in cached),
        there,
        "HF_HOME",
    )
    if there.stat().st_dev != target.stat().st_dev:
        check_room(source.repo, sum(sizes.values()), target, "TRIAGE_HOME")


def _download(source: HubSource, progress: Progress) -> Path:
    """The folder of the revision's commit in the Hub's cache, completed by what is missing. The config comes first."""
    from huggingface_hub import hf_hub_download, snapshot_download

    options: dict[str, Any] = {
        "etag_timeout": CONNECT_SECONDS,
        "tqdm_class": hub_bar(source.repo, progress),
    }
    with sentences(source):
        config = Path(
            patiently(
                lambda: hf_hub_download(
                    source.repo, "config.json", revision=source.revision, **options
                )
            )
        )
        verify_blob(config)  # before it is read: a damaged one must not stay in the cache
        layout.check_config(config, source.repo)
        commit = config.parent.name  # the cache keeps each commit in a folder of that name
        patterns = list(layout.PATTERNS)
        return Path(
            patiently(
                lambda: snapshot_download(
                    source.repo, revision=commit, allow_patterns=patterns, **options
                )
            )
        )


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
        blob.unlink(
            missing_ok=True
        )  # its name promises other bytes; a new attempt downloads it again
        raise SourceUnavailable(
            f"{path.name} was damaged on its way from the Hub, and the next attempt fetches it anew.",
            elsewhere=False,
        )


def _place(path: Path, target: Path) -> None:
    try:
        os.link(path, target)  # the cache never changes a blob, so both may share one copy
    except OSError:
        shutil.copyfile(path, target)
