"""Fetches a base model's weights from the first of its listed sources that has them.

A source folder that exists is used without any request to a network. A busy Hub is retried in
hub_retry.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.models.sources.downloads import Progress, no_progress
from tasks.models.sources.kinds import KINDS, clause, describe, folder_of, listed_sources, stored
from tasks.runtime import store
from tasks.runtime.children import refuse_if_stopping
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.runtime.locks import BUILD_SECONDS, is_locked, locked
from tasks.spec import BaseModelSpec, HubSource, Source

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Fetcher:
    """A base model that is not on this machine yet, and where its sources report to."""

    spec: BaseModelSpec
    root: Path
    log: Log
    progress: Progress

    def fetch(self, source: Source, terms_notice: str | None) -> Path:
        """The folder of one source, built now.

        Raises SourceUnavailable if it does not have the weights.
        """
        kind = KINDS[source.kind]
        folder = folder_of(self.spec, source, self.root)
        if folder is None:
            raise SourceUnavailable(str(kind.probe(source)), transient=False)

        def build(temporary: Path) -> dict[str, Any]:
            self.log(f"Fetching {self.spec.name} from {describe(source)}.")
            weights = kind.fetch(source, temporary, self.progress)
            return {
                "base_model": self.spec.name,
                "licence": self.spec.licence,
                **_terms_entry(self.spec, terms_notice, temporary),
                **weights.manifest_entries(),
            }

        if is_locked(folder):
            self.log(f"Another process fetches {self.spec.name}; waiting for it.")
        with locked(folder, BUILD_SECONDS, refuse_if_stopping):
            store.build_folder(folder, build)
        return folder


def fetch_base(
    spec: BaseModelSpec,
    root: Path,
    log: Log = lambda line: None,
    progress: Progress = no_progress,
) -> Path:
    """The source folder of a base model, fetched if it does not exist.

    `log` gets lines before a download, the model's terms of use among them; `progress` its bytes.

    Raises SourceUnavailable with the reason of each source that does not have the weights; it is
    transient if one of the reasons is. A source that has them, but is busy or damaged on its way,
    ends the search.
    """
    if (folder := stored(spec, root)) is not None:
        return folder

    fetcher = _Fetcher(spec, root, log, progress)
    terms_notice = _show_terms(spec, log)

    reasons: list[str] = []
    transient = False
    for position, source in enumerate(listed_sources(spec)):
        try:
            return fetcher.fetch(source, terms_notice)
        except SourceUnavailable as error:
            if not error.elsewhere:
                raise _end_of_search(spec, position, error) from error
            reasons.append(f"{describe(source)}: {clause(error)}")
            transient |= error.transient
            log(f"{reasons[-1]}.")

    raise SourceUnavailable(
        f"No weights for {spec.name} are available ({'; '.join(reasons)}); "
        "connect to a network, or list a source with kind = 'folder' in the grid.",
        transient,
    )


def way_back(spec: BaseModelSpec, folder: Path) -> str | None:
    """How to return to the first listed source where `folder` is of a later one; else None."""
    first = spec.sources[0]
    if folder == folder_of(spec, first, folder.parents[1]):
        return None
    return f"{spec.name} is not from {describe(first)}: to try that source again, delete {folder}."


def _end_of_search(spec: BaseModelSpec, position: int, error: SourceUnavailable) -> TriageError:
    """The error for a source that has the weights, although they did not arrive, or not whole."""
    source = spec.sources[position]
    later_sources = [
        alternative
        for alternative in spec.sources[position + 1 :]
        if not isinstance(alternative, HubSource)
    ]

    if not error.transient:
        remedy = "no other source takes its place; correct this one, or remove it from the list"
    elif isinstance(source, HubSource) and later_sources:
        alternative = describe(later_sources[0])
        remedy = f"run the command again, or set HF_HUB_OFFLINE=1 to use {alternative} in its place"
    else:
        remedy = "run the command again"

    sentence = f"No weights for {spec.name} from {describe(source)}: {clause(error)}; {remedy}."
    return SourceUnavailable(sentence, error.transient, elsewhere=False)


def _show_terms(spec: BaseModelSpec, log: Log) -> str | None:
    """Log a model's terms of use before it is fetched.

    An unattended sweep continues: using the model accepts them.
    """
    if spec.terms is None:
        return None

    notice = (
        f"{spec.name} comes under the {spec.licence}, {spec.terms}: "
        "using it accepts them, with their prohibited uses, and they bind what is made "
        "of it too. What comes with the weights is kept in `licences` beside them."
    )
    log(notice)
    return notice


def _terms_entry(spec: BaseModelSpec, notice: str | None, folder: Path) -> dict[str, Any]:
    """The manifest's entry `terms` (see manifest.Terms); empty for a model without terms of use."""
    if notice is None:
        return {}

    texts = sorted(path.relative_to(folder).as_posix() for path in folder.glob("licences/*"))
    shown_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"terms": {"at": spec.terms, "notice": notice, "shown": shown_at, "texts": texts}}
