"""Removes what came from a data set from TRIAGE_HOME: texts, prefixes, adapters and scores.

Which adapters and scores those are stands in the `spec.json` of the child processes that made them.
Each folder is renamed first and removed then, so that what is interrupted is found again.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.manifest import DatasetManifest
from tasks.removal import ASIDE, Part, bytes_below, leftovers, refuse_while_working, remove
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.temporary import PREFIX

MADE_IN = ("experiments", "moved", "baselines", "valid")  # where jobs put adapters and scores


@dataclass(frozen=True)
class Forgetting:
    """What forgetting data sets removes.

    `names`: of their folders in `data/`; `elsewhere`: names of data sets that stay although they
    share whole sets with these.
    """

    names: tuple[str, ...]
    parts: tuple[Part, ...]
    elsewhere: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class _Job:
    """What a child process was told: the data set it read, the adapter, the folders it made."""

    data: str | None
    adapter: Path | None
    folders: tuple[Path, ...]


def matching_names(root: Path, data: str) -> list[str]:
    """The data sets of a home that `data` means: `name-digest`, a digest, or a name, which means
    all of that name; `dataset-digest`, as in the warehouse, too.
    """
    names = known_names(root)
    digest = data.removeprefix("dataset-")
    exact = [name for name in names if name == data or name.rpartition("-")[2] == digest]
    return exact or [name for name in names if name.rpartition("-")[0] == data]


def known_names(root: Path) -> list[str]:
    """Names of the data sets of which a home holds texts, or adapters and scores."""
    prepared = {path.name for path in _data_folders(root)}
    trained_data = {
        job.data for job in _jobs(root) if any(folder.exists() for folder in job.folders)
    }
    return sorted(prepared | {name for name in trained_data if name})


def unknown_data(root: Path, data: str) -> BadInput:
    """The sentence for a data set that a home does not know, with the nearest name."""
    names = known_names(root)
    sentence = f"{root} holds nothing of a data set {data!r}"
    if not names:
        return BadInput(f"{sentence}, nor of any other.")
    nearest = difflib.get_close_matches(data, names, n=1, cutoff=0.3)
    also = f"; did you mean {nearest[0]}?" if nearest else "."
    return BadInput(f"{sentence}{also} It holds {', '.join(names)}.")


def plan(root: Path, names: list[str]) -> Forgetting:
    """What forgetting the data sets `names` removes from a home. Changes nothing.

    A prefix does not say which cases it is of, so all of them go: they are computed again.
    """
    jobs = list(_jobs(root))
    job_folders = {folder for job in jobs if job.data in names for folder in job.folders}
    job_folders |= {folder for job in jobs if job.adapter in job_folders for folder in job.folders}
    experiments = {path for path in job_folders if path.parent == root / "experiments"}
    scores = {path for path in job_folders - experiments if not experiments & set(path.parents)}
    folders: dict[str, list[Path]] = {
        "texts": [path for name in names for path in _texts(root, name)],
        "adapters": sorted(experiments),
        "scores": sorted(scores),
        "prefixes": _prefixes(root),
        "leftovers": leftovers(root),
    }
    parts = (
        Part(kind, path, bytes_below(path))
        for kind, paths in folders.items()
        for path in paths
        if path.is_dir()
    )

    return Forgetting(tuple(names), tuple(parts), tuple(_elsewhere(root, names)))


def forget(root: Path, forgetting: Forgetting) -> None:
    """Remove what was planned. Raises Locked while anything works in this home."""
    refuse_while_working(root)
    remove(forgetting.parts)


def _jobs(root: Path) -> Iterator[_Job]:
    for pattern in ("experiments/*/spec.json", "logs/*/spec.json"):
        for path in sorted(root.glob(pattern)):
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                yield _job(root, json.loads(path.read_text(encoding="utf-8"))["args"])


def _job(root: Path, args: dict[str, Any]) -> _Job:
    """A job's arguments, with its folders as they are called in this home, which may have moved."""

    def existing_path(path_text: str) -> Path | None:
        path = Path(path_text)
        if not path.is_relative_to(args["home"]):
            return None
        parts = path.relative_to(args["home"]).parts
        is_a_folder_there = len(parts) > 1 and parts[0] in MADE_IN and ".." not in parts
        return root.joinpath(*parts) if is_a_folder_there else None

    names = [args.get("folder"), args.get("scores"), *(args.get("sets") or {}).values()]
    adapter = args.get("adapter")
    return _Job(
        data=Path(args["data"]).name if "data" in args else None,
        adapter=existing_path(adapter) if adapter else None,
        folders=tuple(
            path for path in (existing_path(name) for name in names if name) if path is not None
        ),
    )


def _texts(root: Path, name: str) -> list[Path]:
    """The folder of a data set, and what killed builders of it left."""
    return [root / "data" / name, *sorted((root / "data").glob(f"{PREFIX}{name}-*"))]


def _prefixes(root: Path) -> list[Path]:
    """All stored prefixes, and what killed builders left."""
    folders = sorted((root / "prefixes").glob("*/"))
    return [path for path in folders if not path.name.startswith(ASIDE)]


def _data_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / "data").glob("*-*/") if not path.name.startswith("."))


def _elsewhere(root: Path, names: list[str]) -> list[str]:
    """Data sets that stay and share a whole set with those that go."""
    digests = {path.name: _set_digests(path) for path in _data_folders(root)}
    going = set().union(*(digests.get(name, set()) for name in names))
    return [
        name for name, own_digests in digests.items() if name not in names and own_digests & going
    ]


def _set_digests(folder: Path) -> set[str]:
    with contextlib.suppress(BrokenFolder):
        if manifest := DatasetManifest.read_if_complete(folder):
            return {entry.digest for entry in manifest.sets.values()}
    return set()
