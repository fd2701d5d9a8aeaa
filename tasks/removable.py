"""Which folders of a home may go: what came from a data set, and what no result needs.

Which adapters and scores came from a data set is recorded in the `spec.json` of the child processes
that made them, and in the ingredients of each training. A folder's last use is the newest time of
change in it: a step that finds it complete notes its use there (`store.mark_used`).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.manifest import DatasetManifest
from tasks.grids.grid import shortened
from tasks.identity import INGREDIENTS
from tasks.runtime.errors import BadInput, BrokenFolder
from tasks.runtime.store import (
    ASIDE,
    PREFIX,
    aside_of,
    kept_passes,
    leftovers,
    read_manifest,
    status_below,
)
from tasks.tuning.rows import sets_digest

RESULTS = ("experiments", "moved", "baselines", "valid")  # where jobs put adapters and scores
# A folder in `data/`: complete, or half-built by a process that was killed, and perhaps set aside.
DATA_FOLDER = re.compile(
    rf"({re.escape(ASIDE)})?({re.escape(PREFIX)}(?P<building>.+)-[0-9a-f]{{12}}|(?P<built>[^.].*))"
)
# Behind a training id: the folder of its scores, or of those of `valid`.
SCORED = re.compile(r"-[ev][0-9a-f]{12}$")
# Digests of the `train` and the `valid` that an adapter learned from.
Learned = tuple[str | None, str | None]


# --- What came from a data set -------------------------------------------------------------------


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
        job.data for job in _jobs(root) if any(_is_there(root, folder) for folder in job.folders)
    }
    return sorted(name for name in with_texts | with_results if name)


def unknown_data(root: Path, data: str) -> BadInput:
    """The sentence for a data set that a home does not know, with the nearest name."""
    names = known_names(root)
    sentence = f"{root} holds nothing of a data set {shortened(data)!r}"
    if names:
        nearest = difflib.get_close_matches(data, names, n=1, cutoff=0.3)
        hint = f"; did you mean {nearest[0]}?" if nearest else "."
        sentence += f"{hint} It holds {', '.join(names)}."
    else:
        sentence += ", nor of any other."

    if left := leftovers(root):
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        sentence += (
            f" An interrupted removal left {left[0].relative_to(root)}{more}, which may be of it: "
            "`triage clean --yes` removes that."
        )
    return BadInput(sentence)


def of_data(root: Path, names: Collection[str]) -> list[Path]:
    """What came from the data sets `names` (of their folders in `data/`), their texts last: the
    folder of the texts tells the name by which an interrupted removal is typed again.

    A prefix does not say which cases it is of, so all of them go: they are computed again. What
    killed builders left of adapters and scores goes for the same reason.
    """
    jobs = list(_jobs(root))
    results = {folder for job in jobs if job.data in names for folder in job.folders}
    # An adapter from the shared folder has no job in this home, and of two data sets with the same
    # cases to learn from only the first has one.
    texts = [path for path in _data_folders(root) if _data_name(path) in names]
    learned = {_learned_by(folder) for folder in results} - {None}
    for path in texts:
        digests = _set_digests(path)
        learned.add((digests.get("train"), digests.get("valid")))
    experiments = (root / "experiments").glob("[!.]*/")
    results |= {folder for folder in experiments if _learned_by(folder) in learned}
    results |= {folder for job in jobs if job.adapter in results for folder in job.folders}

    outermost = sorted(path for path in results if results.isdisjoint(path.parents))
    prefixes = sorted((root / "prefixes").glob("*/"))
    half_built = sorted(path for place in RESULTS for path in root.glob(f"{place}/{PREFIX}*/"))
    left = leftovers(root)
    left_of_results = [path for path in left if path.parent.name != "data"]
    candidates = [*outermost, *prefixes, *left_of_results, *half_built, *texts, *left]
    return [path for path in dict.fromkeys(candidates) if path.is_dir()]


def sharing_sets(root: Path, names: Collection[str]) -> list[str]:
    """Data sets other than `names` that share a whole set with one of these."""
    folders = _data_folders(root)
    own_digests = {
        digest
        for path in folders
        if _data_name(path) in names
        for digest in _set_digests(path).values()
    }
    others = [path for path in folders if _data_name(path) == path.name not in names]
    return [path.name for path in others if own_digests & set(_set_digests(path).values())]


@dataclass(frozen=True)
class _Job:
    """What a child process was told: the data set it read, the adapter, the folders it made."""

    data: str | None
    adapter: Path | None
    folders: list[Path]


def _jobs(root: Path) -> Iterator[_Job]:
    """The jobs of a home whose specs can be read."""
    for pattern in ("experiments/*/spec.json", "logs/*/spec.json"):
        for path in sorted(root.glob(pattern)):
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                args = json.loads(path.read_text(encoding="utf-8"))["args"]
                made = [args.get("folder"), args.get("scores"), *(args.get("sets") or {}).values()]
                paths = [Path(name) for name in made if name]
                paths += [kept_passes(path) for path in paths]
                folders = [_here(root, path, args["home"]) for path in paths]
                yield _Job(
                    data=Path(args["data"]).name if "data" in args else None,
                    adapter=_here(root, args.get("adapter") or "", args["home"]),
                    folders=[folder for folder in folders if folder is not None],
                )


def _here(root: Path, name: Path | str, home: str) -> Path | None:
    """A job's folder as it is called in this home, which may have moved; None for another place."""
    path = Path(name)
    if not path.is_relative_to(home):
        return None
    parts = path.relative_to(home).parts
    is_result = len(parts) > 1 and parts[0] in RESULTS and ".." not in parts
    return root.joinpath(*parts) if is_result else None


def _is_there(root: Path, folder: Path) -> bool:
    """Whether a folder is in a home, or what an interrupted removal left of it."""
    paths = (path for path in (folder, *folder.parents) if root in path.parents)
    return folder.exists() or any(aside_of(path).exists() for path in paths)


def _data_folders(root: Path) -> list[Path]:
    return sorted((root / "data").glob("*-*/"))


def _data_name(folder: Path) -> str | None:
    """The data set that a folder in `data/` is of, whatever state it is in; None for another one."""
    match = DATA_FOLDER.fullmatch(folder.name)
    return (match["building"] or match["built"]) if match else None


def _learned_by(experiment: Path) -> Learned | None:
    """What the adapter of an experiment learned from; None where its folder does not say so."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        ingredients = json.loads((experiment / INGREDIENTS).read_text(encoding="utf-8"))
        return ingredients["train"], ingredients["valid"]
    return None


def _set_digests(data: Path) -> dict[str, str]:
    """The digest of each set of a data set by its manifest alone: a text may be gone already."""
    with contextlib.suppress(BrokenFolder):
        if manifest := read_manifest(data):
            sets = DatasetManifest.parse(manifest, data).sets
            return {name: entry.digest for name, entry in sets.items()}
    return {}


# --- What no result needs ------------------------------------------------------------------------


def unneeded(
    root: Path, referred: Collection[str], unused_since: float, only_unreferenced: bool
) -> list[Path]:
    """The folders of a home that were not used since `unused_since` (seconds since 1970) and that no
    result refers to, and what an interrupted removal left. Stored prefixes are computed again, so
    they go by their use alone unless `only_unreferenced`.

    `referred`: what results refer to, as ids of trainings and digests of weights, data sets and
    sets of cases.
    """
    needed = set(referred)
    for folder in (root / "models").glob("[!.]*/"):
        manifest = _manifest(folder)
        if manifest.get("digest") in referred:
            needed.add(manifest.get("source_digest", ""))

    going = []
    for place in ("prefixes", "models", "sources", *RESULTS, "data"):
        for folder in sorted((root / place).glob("[!.]*/")):
            by_use_alone = place == "prefixes" and not only_unreferenced
            is_needed = not needed.isdisjoint(names_of(folder)) and not by_use_alone
            if not is_needed and last_used(folder) < unused_since:
                going.append(folder)
    return [*going, *leftovers(root)]


def last_used(folder: Path) -> float:
    """The newest time of change in a folder, in seconds since 1970; infinity if it is gone."""
    return max((status.st_mtime for status in status_below(folder)), default=math.inf)


def names_of(folder: Path) -> set[str]:
    """The ids and digests by which a result, or a model of one, refers to a stored folder."""
    place = folder.parent.name
    if place in RESULTS:
        return {SCORED.sub("", folder.name)}
    if place == "data":
        try:
            data = DatasetManifest.read(folder)
            sets = [data.sets[name].digest for name in data.evaluation_sets]
            return {data.dataset_digest, sets_digest(data), *sets}
        except (BrokenFolder, KeyError):
            return {folder.name.rpartition("-")[2]}

    manifest = _manifest(folder)
    keys = ["variant"] if place == "prefixes" else ["digest"]
    if "-base-" in folder.name:  # it is needed as long as what was made from the same source
        keys.append("source_digest")
    return {manifest[key] for key in keys if key in manifest}


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, empty where there is none that can be read."""
    try:
        return read_manifest(folder) or {}
    except BrokenFolder:
        return {}
