"""Removes what came from a data set from TRIAGE_HOME: texts, prefixes, adapters and scores.

Which adapters and scores those are is recorded beside them (`recorded_jobs.py`). Each folder is
renamed first and removed then, the texts last, so that what is interrupted is found again by the
name of the data set.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.corpus.manifest import DatasetManifest
from tasks.grids.grid_errors import shortened
from tasks.recorded_jobs import MADE_IN, Learned, jobs, learned_by
from tasks.removal import (
    ASIDE,
    RemovedFolder,
    aside_of,
    bytes_below,
    leftovers,
    refuse_while_working,
    remove,
)
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import PREFIX, read_manifest

# A folder in `data/`: complete, or half-built by a process that was killed, and perhaps set aside.
DATA_FOLDER = re.compile(
    rf"({re.escape(ASIDE)})?({re.escape(PREFIX)}(?P<building>.+)-[0-9a-f]{{12}}|(?P<built>[^.].*))"
)
LEARNED_SETS = ("train", "valid")


@dataclass(frozen=True)
class Forgetting:
    """What forgetting data sets removes.

    `names`: of their folders in `data/`; `elsewhere`: names of data sets that stay although they
    share whole sets with these.
    """

    names: tuple[str, ...]
    parts: tuple[RemovedFolder, ...]
    elsewhere: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(part.size for part in self.parts)


def matching_names(root: Path, data: str) -> list[str]:
    """The data sets of a home that `data` means: `name-digest`, a digest, or a name, which means
    all of that name; `dataset-digest`, as in the warehouse, too.
    """
    names = known_names(root)
    digest = data.removeprefix("dataset-")
    exact = [name for name in names if name == data or name.rpartition("-")[2] == digest]
    return exact or [name for name in names if name.rpartition("-")[0] == data]


def known_names(root: Path) -> list[str]:
    """Names of the data sets of which a home holds texts, or adapters and scores, or what a killed
    builder or an interrupted removal left of them.
    """
    with_texts = {_data_name(path) for path in _data_folders(root)}
    with_results = {
        job.data for job in jobs(root) if any(_is_there(root, folder) for folder in job.folders)
    }
    return sorted(name for name in with_texts | with_results if name)


def unknown_data(root: Path, data: str) -> BadInput:
    """The sentence for a data set that a home does not know, with the nearest name."""
    names = known_names(root)
    sentence = f"{root} holds nothing of a data set {shortened(data)!r}"
    if not names:
        return BadInput(f"{sentence}, nor of any other.{_nameless(root)}")
    nearest = difflib.get_close_matches(data, names, n=1, cutoff=0.3)
    also = f"; did you mean {nearest[0]}?" if nearest else "."
    return BadInput(f"{sentence}{also} It holds {', '.join(names)}.{_nameless(root)}")


def _nameless(root: Path) -> str:
    """A sentence about what an interrupted removal left, which may be of any data set."""
    folders = [str(path.relative_to(root)) for path in leftovers(root)]
    if not folders:
        return ""
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    return (
        f" An interrupted removal left {folders[0]}{more}, which may be of it: `triage clean` "
        "removes that."
    )


def plan(root: Path, names: list[str]) -> Forgetting:
    """What forgetting the data sets `names` removes from a home. Changes nothing.

    A prefix does not say which cases it is of, so all of them go: they are computed again. What
    killed builders left of adapters and scores goes for the same reason.
    """
    all_jobs = list(jobs(root))
    results = {folder for job in all_jobs if job.data in names for folder in job.folders}
    results |= _of_the_same_cases(root, names, results)
    results |= {folder for job in all_jobs if job.adapter in results for folder in job.folders}
    experiments = {path for path in results if path.parent == root / "experiments"}
    scores = {path for path in results - experiments if not experiments & set(path.parents)}
    folders: dict[str, list[Path]] = {
        "texts": [path for name in names for path in _texts(root, name)],
        "adapters": sorted(experiments),
        "scores": sorted(scores),
        "prefixes": _prefixes(root),
        "leftovers": [*leftovers(root), *_half_built_results(root)],
    }
    parts = (
        RemovedFolder(kind, path, bytes_below(path))
        for kind, paths in folders.items()
        for path in paths
        if path.is_dir()
    )

    return Forgetting(tuple(names), tuple(parts), tuple(_elsewhere(root, names)))


def forget(root: Path, forgetting: Forgetting) -> None:
    """Remove what was planned. Raises Locked while anything works in this home."""
    refuse_while_working(root)
    # The folder of the texts, also one that is set aside, tells the name of the data set by which
    # an interrupted removal is typed again.
    remove(sorted(forgetting.parts, key=lambda part: part.folder.parent == root / "data"))


def _of_the_same_cases(root: Path, names: list[str], results: Collection[Path]) -> set[Path]:
    """Experiments that learned from the same `train` and `valid` as those data sets, or as an
    experiment among `results`.

    An adapter from a fleet's shared folder has no job in this home, and of two data sets with the
    same cases to learn from only the first has one.
    """
    learned = {learned_by(folder) for folder in results}
    learned |= {_learned_sets(path) for path in _data_folders(root) if _data_name(path) in names}
    return {
        folder
        for folder in (root / "experiments").glob("[!.]*/")
        if learned_by(folder) in learned - {None}
    }


def _is_there(root: Path, folder: Path) -> bool:
    """Whether a folder is in a home, or what an interrupted removal left of it."""
    paths = (path for path in (folder, *folder.parents) if root in path.parents)
    return folder.exists() or any(aside_of(path).exists() for path in paths)


def _texts(root: Path, name: str) -> list[Path]:
    """The folder of a data set, and what killed builders of it left."""
    folders = (path for path in _data_folders(root) if not path.name.startswith(ASIDE))
    return [path for path in folders if _data_name(path) == name]


def _prefixes(root: Path) -> list[Path]:
    """All stored prefixes, and what killed builders left."""
    folders = sorted((root / "prefixes").glob("*/"))
    return [path for path in folders if not path.name.startswith(ASIDE)]


def _half_built_results(root: Path) -> list[Path]:
    return sorted(path for place in MADE_IN for path in root.glob(f"{place}/{PREFIX}*/"))


def _data_folders(root: Path) -> list[Path]:
    return sorted((root / "data").glob("*-*/"))


def _data_name(folder: Path) -> str | None:
    """The data set that a folder in `data/` is of, whatever state it is in; None for another one."""
    match = DATA_FOLDER.fullmatch(folder.name)
    return (match["building"] or match["built"]) if match else None


def _elsewhere(root: Path, names: list[str]) -> list[str]:
    """Data sets that stay and share a whole set with those that go."""
    folders = _data_folders(root)
    going = [_set_digests(path).values() for path in folders if _data_name(path) in names]
    going_digests = {digest for digests in going for digest in digests}
    staying = [path for path in folders if _data_name(path) == path.name not in names]
    return [path.name for path in staying if going_digests & set(_set_digests(path).values())]


def _learned_sets(folder: Path) -> Learned | None:
    """The digests of the sets of a data set that an adapter learns from."""
    digests = _set_digests(folder)
    if not digests.keys() >= set(LEARNED_SETS):
        return None
    return digests["train"], digests["valid"]


def _set_digests(folder: Path) -> dict[str, str]:
    """The digest of each set of a data set by its manifest alone: a text may be gone already."""
    with contextlib.suppress(BrokenFolder):
        if manifest := read_manifest(folder):
            sets = DatasetManifest.parse(manifest, folder).sets
            return {name: entry.digest for name, entry in sets.items()}
    return {}
