"""The tables of a dataset on the Hub, at one commit, in the Hub's own cache. Its loading code is
never fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from tasks.corpus.reading.tables import READERS
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import HubSource

CheckFiles = Callable[[list[Path]], None]
"""Gets the relative paths of all files of a dataset, to refuse them before any is fetched."""


@dataclass(frozen=True)
class _Listing:
    """The commit of a dataset and the names of its tables.

    `unreachable`: why the Hub gave none; the local cache may have the dataset then.
    """

    commit: str
    tables: list[str]
    unreachable: SourceUnavailable | None = None

    @property
    def patterns(self) -> list[str]:
        """What is fetched: these files, or all tables that the cache has."""
        return [escape(name) for name in self.tables] or [f"*{suffix}" for suffix in READERS]


def fetch_tables(repo: str, revision: str, check: CheckFiles) -> Path:
    """The folder in the Hub's cache with the tables of a dataset; its name is their commit.

    Where the Hub is out of reach, the cache answers. Raises BadInput, or SourceUnavailable.
    """
    from tasks.models.sources.hub_source import verify_blob

    source = HubSource(kind="hub", repo=repo, revision=revision)
    listing = _list_tables(source, check)
    folder = _download(source, listing)
    if listing.commit and folder.name != listing.commit:
        raise SourceUnavailable(
            f"The dataset {repo} was listed at commit {listing.commit[:12]} and came at "
            f"{folder.name[:12]}: it changed meanwhile, or the Hub was too busy to say; run the "
            "command again."
        )

    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)

    return folder


def _list_tables(source: HubSource, check: CheckFiles) -> _Listing:
    from huggingface_hub import HfApi

    from tasks.models.sources.hub_errors import explain_hub_errors, is_refusal, retry_while_busy
    from tasks.models.sources.hub_source import CONNECT_SECONDS

    try:
        with explain_hub_errors(source):
            info = retry_while_busy(
                lambda: HfApi().dataset_info(
                    source.repo, revision=source.revision, timeout=CONNECT_SECONDS
                )
            )
    except SourceUnavailable as error:
        if is_refusal(error):
            raise _unavailable(source, error, transient=False) from error
        return _Listing("", [], unreachable=error)

    files = [file.rfilename for file in info.siblings or []]
    tables = [name for name in files if Path(name).suffix.lower() in READERS]
    if not tables:
        raise BadInput(
            f"{source.repo} holds no {', '.join(READERS)} file; its loading code is never run."
        )

    check(sorted(map(Path, files)))
    return _Listing(str(info.sha), tables)


def _download(source: HubSource, listing: _Listing) -> Path:
    from huggingface_hub import snapshot_download

    from tasks.models.sources.hub_errors import explain_hub_errors, retry_while_busy
    from tasks.models.sources.hub_source import CONNECT_SECONDS

    # By the revision's own name: only then does the cache note which commit it means.
    def download() -> str:
        return snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=listing.patterns,
            etag_timeout=CONNECT_SECONDS,
            local_files_only=listing.unreachable is not None,
        )

    try:
        with explain_hub_errors(source):
            return Path(retry_while_busy(download))
    except SourceUnavailable as error:
        reason = listing.unreachable or error
        raise _unavailable(source, reason, reason.transient) from error


def _unavailable(
    source: HubSource, reason: SourceUnavailable, transient: bool
) -> SourceUnavailable:
    return SourceUnavailable(
        f"The dataset {source.repo}, which is no local path: {reason}", transient
    )
