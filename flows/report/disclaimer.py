"""What stands below every comparison: what the figures are not."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tasks.bundle.bundle import NOT_A_DEVICE, SYNTHETIC
from tasks.corpus.manifest import DatasetManifest
from tasks.runtime.home import home


def disclaimer(set_digests: Collection[str]) -> str:
    """One sentence about evaluations on these sets; it speaks of synthetic cases only where some
    are embedded ones.
    """
    if set(_embedded_digests()) & set(set_digests):
        return f"{NOT_A_DEVICE}; {SYNTHETIC}."
    return f"{NOT_A_DEVICE}."


def _embedded_digests() -> Iterator[str]:
    """Digests of the sets in this home that hold the project's own synthetic cases."""
    folder = home() / "data"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (manifest := DatasetManifest.read_if_complete(path)) is not None:
            yield from (one.digest for one in manifest.sets.values() if one.source == "embedded")
