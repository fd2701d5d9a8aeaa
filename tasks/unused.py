"""Which stored folders of a home no result refers to, or nobody has used for long.

A folder's last use is the newest time of change in it: a step that finds it complete notes its use
there (`store.mark_used`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.manifest import DatasetManifest
from tasks.removal import RemovedFolder, bytes_below, leftovers, status_below
from tasks.runtime.errors import BrokenFolder
from tasks.runtime.store import read_manifest
from tasks.tuning.training_rows import sets_digest

# Behind a training id: the folder of its scores, or of those of `valid`.
SCORED = re.compile(r"-[ev][0-9a-f]{12}$")
Refers = Callable[[Path], bool]
PREFIXES = "stored prefixes"


@dataclass(frozen=True)
class Stored:
    """A folder of a home. `used`: seconds since 1970; `is_referred_to`: by a result."""

    part: RemovedFolder
    used: float
    is_referred_to: bool


def prunable(
    root: Path, referred: Collection[str], unused_since: float, only_unreferenced: bool
) -> Iterator[RemovedFolder]:
    """The folders of a home that may go: not used since `unused_since` (seconds since 1970), and
    referred to by no result. Stored prefixes are computed again, so they go by their use
    alone unless `only_unreferenced`.

    `referred`: what results refer to, as ids of trainings and digests of weights, data sets and
    sets of cases.
    """
    for entry in stored(root, referred):
        is_needed = entry.is_referred_to and (only_unreferenced or entry.part.kind != PREFIXES)
        if entry.used < unused_since and not is_needed:
            yield entry.part
    for path in leftovers(root):
        yield RemovedFolder("leftovers", path, bytes_below(path))


def stored(root: Path, referred: Collection[str]) -> Iterator[Stored]:
    """What a home stores beside what has landed, kind by kind."""
    models = _Models(root, referred)

    def is_of_result(scores: Path) -> bool:
        return SCORED.sub("", scores.name) in referred

    kinds: dict[str, tuple[str, Refers]] = {
        PREFIXES: ("prefixes/*/", models.has_prefix),
        "variants": ("models/*/", models.is_variant_kept),
        "base conversions": ("models/*-base-*/", models.is_base_kept),
        "sources": ("sources/*/", models.is_source_kept),
        "experiments": ("experiments/*/", lambda folder: folder.name in referred),
        "scores": ("baselines/*/", is_of_result),
        "scores of moved adapters": ("moved/*/", is_of_result),
        "scores of valid": ("valid/*/", is_of_result),
        "data sets": ("data/*/", lambda folder: _is_data_kept(folder, referred)),
    }
    for kind, (pattern, is_referred_to) in kinds.items():
        for folder in sorted(root.glob(pattern)):
            # The pattern of variants matches base conversions too, which are a kind of their own.
            is_other = kind == "variants" and "-base-" in folder.name
            if not folder.name.startswith(".") and not is_other:
                part = RemovedFolder(kind, folder, bytes_below(folder))
                yield Stored(part, last_used(folder), is_referred_to(folder))


def last_used(folder: Path) -> float:
    """The newest time of change in a folder, in seconds since 1970; infinity if it is gone."""
    return max((status.st_mtime for status in status_below(folder)), default=math.inf)


class _Models:
    """The model folders of a home: which of them results refer to, and what those were made from."""

    def __init__(self, root: Path, referred: Collection[str]) -> None:
        manifests = [_manifest(folder) for folder in (root / "models").glob("[!.]*/")]
        in_use = [manifest for manifest in manifests if manifest.get("digest") in referred]
        self._digests = {manifest["digest"] for manifest in in_use}
        self._sources = {manifest.get("source_digest") for manifest in in_use}

    def has_prefix(self, folder: Path) -> bool:
        return _manifest(folder).get("variant") in self._digests

    def is_variant_kept(self, folder: Path) -> bool:
        return _manifest(folder).get("digest") in self._digests

    def is_base_kept(self, folder: Path) -> bool:
        manifest = _manifest(folder)
        return manifest.get("source_digest") in self._sources or self.is_variant_kept(folder)

    def is_source_kept(self, folder: Path) -> bool:
        return _manifest(folder).get("digest") in self._sources


def _is_data_kept(folder: Path, referred: Collection[str]) -> bool:
    """Whether a result was made on a data set, or judged on a set of it."""
    try:
        dataset = DatasetManifest.read(folder)
        own_digests = {dataset.dataset_digest, sets_digest(dataset)}
    except (BrokenFolder, KeyError):
        return folder.name.rpartition("-")[2] in referred
    judged_on = {dataset.sets[name].digest for name in dataset.evaluation_sets}
    return not (own_digests | judged_on).isdisjoint(referred)


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, empty where there is none that can be read."""
    try:
        return read_manifest(folder) or {}
    except BrokenFolder:
        return {}
