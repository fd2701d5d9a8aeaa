"""The tables of a dataset on the Hub, at one commit, in the Hub's own cache. Its loading code is never fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.corpus.tables import READERS
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import HubSource


def fetch_tables(repo: str, revision: str, check: Callable[[list[Path]], None]) -> Path:
    """The folder in the Hub's cache with the tables of a dataset; its name is their commit.

    `check` is given the paths of all files before any is fetched, to refuse them. Where the Hub is out of reach, the
    cache answers. Raises BadInput, or SourceUnavailable.
    """
    from huggingface_hub import HfApi, snapshot_download

    from tasks.models.hub_errors import explain_hub_errors, is_refusal
    from tasks.models.hub_retry import retry_while_busy
    from tasks.models.hub_source import CONNECT_SECONDS, verify_blob

    known = HubSource(kind="hub", repo=repo, revision=revision)
    wanted, listed, unreachable = [f"*{suffix}" for suffix in READERS], "", None
    try:
        with explain_hub_errors(known):
            info = retry_while_busy(
                lambda: HfApi().dataset_info(repo, revision=revision, timeout=CONNECT_SECONDS)
            )
        listed = str(info.sha)
        files = [f.rfilename for f in info.siblings or []]
        wanted = [name for name in files if Path(name).suffix.lower() in READERS]
        if not wanted:
            raise BadInput(
                f"{repo} holds no {', '.join(READERS)} file; its loading code is never run."
            )
        check(sorted(map(Path, files)))
    except SourceUnavailable as error:
        if is_refusal(error):
            raise SourceUnavailable(
                f"The dataset {repo}, which is no local path: {error}", transient=False
            ) from error
        unreachable = error  # the local cache may have it
    options: dict[str, Any] = {
        "etag_timeout": CONNECT_SECONDS,
        "local_files_only": unreachable is not None,
    }

    def download() -> (
        str
    ):  # by the revision's own name, whose commit the cache only notes when it is asked so
        return snapshot_download(
            repo, repo_type="dataset", revision=revision, allow_patterns=wanted, **options
        )

    try:
        with explain_hub_errors(known):
            folder = Path(retry_while_busy(download))
    except SourceUnavailable as error:
        reason = unreachable or error
        raise SourceUnavailable(
            f"The dataset {repo}, which is no local path: {reason}", reason.transient
        ) from error
    if listed and folder.name != listed:
        raise SourceUnavailable(
            f"The dataset {repo} was listed at commit {listed[:12]} and came at {folder.name[:12]}: it changed meanwhile, "
            "or the Hub was too busy to say; run the command again."
        )
    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)
    return folder
