"""Makes the folder of a data set: four JSONL files and a manifest, named by a digest of everything that went into it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.corpus.case import Case, to_json
from tasks.corpus.embedded import GENERATOR_VERSION, embedded_sets
from tasks.corpus.knowledge_base import knowledge_digest
from tasks.corpus.readers import read_cases
from tasks.corpus.splits import SETS, SHARES, check_sets, limited, split_cases
from tasks.corpus.tables import READERS, check_readable
from tasks.runtime.errors import BadInput
from tasks.runtime.store import build_folder, file_digest
from tasks.spec import LABELS, Data, short_digest

PREPARE_VERSION = 1
Sets = dict[str, list[Case]]


def prepare_dataset(data: Data, root: Path) -> Path:
    """The folder `root`/data/<name>-<digest>, made if it is not there yet.

    It holds train, valid, calibration and test as JSONL; its manifest gives, under `sets`, the cases, labels, groups
    and file digest of each. Changed files, settings or generator give another folder. Raises BadInput.
    """
    name, inputs = _inputs(data)
    folder = (
        root
        / "data"
        / f"{name}-{short_digest({'data': data.model_dump(mode='json'), 'version': PREPARE_VERSION, **inputs})}"
    )
    build_folder(folder, lambda temporary: _build(data, temporary))
    return folder


def read_sets(data: Data) -> Sets:
    """The four sets before any limit: embedded, a folder's own files, or one file split by us."""
    if data.source == "embedded":
        return embedded_sets(data.seed)
    path = Path(data.source)
    return _folder_sets(path, data) if path.is_dir() else split_cases(read_cases(path, data), data.seed)


def _inputs(data: Data) -> tuple[str, dict[str, Any]]:
    """The readable part of the folder's name, and the digests of what the cases are read from."""
    if data.source == "embedded":
        return "embedded", {"knowledge": knowledge_digest(), "generator": GENERATOR_VERSION}
    path = Path(data.source)
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "cases"
    files = _set_files(path) if path.is_dir() else {"all": path}
    for file in files.values():
        check_readable(file)
    return name, {"files": {key: file_digest(file) for key, file in files.items()}}


def _set_files(folder: Path) -> dict[str, Path]:
    """A folder's file per set; `train` and `test` must be there."""
    found: dict[str, Path] = {}
    for name in SETS:
        files = [folder / f"{name}{suffix}" for suffix in READERS if (folder / f"{name}{suffix}").is_file()]
        if len(files) > 1:
            raise BadInput(f"{folder} holds {files[0].name} and {files[1].name}; keep one file of each set.")
        if files:
            found[name] = files[0]
    for name in ("train", "test"):
        if name not in found:
            raise BadInput(f"{folder} has no {name} file; it needs {name}.jsonl, {name}.csv or {name}.parquet.")
    return found


def _folder_sets(folder: Path, data: Data) -> Sets:
    """The given sets; a missing valid or calibration set is split off from train, by group."""
    sets = {name: read_cases(path, data) for name, path in _set_files(folder).items()}
    shares = {name: SHARES[name] for name in ("train", "valid", "calibration") if name == "train" or name not in sets}
    whole = sum(shares.values())
    sets.update(split_cases(sets["train"], data.seed, {name: share / whole for name, share in shares.items()}))
    return {name: sets[name] for name in SETS}


def _build(data: Data, folder: Path) -> dict[str, Any]:
    sets = read_sets(data)
    check_sets(sets)
    limits: Mapping[str, int] = {str(name): limit for name, limit in data.limits.items()}
    sets = {name: limited(cases, limits.get(name, len(cases)), data.seed) for name, cases in sets.items()}
    _check_labels(sets, data.source)
    described = {}
    for name, cases in sets.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(to_json(case) + "\n" for case in cases), encoding="utf-8")
        described[name] = _describe(cases, path)
    return {
        "source": data.source, "seed": data.seed, "sets": described,
        "has_groups": all(case.group is not None for cases in sets.values() for case in cases),
    }  # fmt: skip


def _check_labels(sets: Mapping[str, Sequence[Case]], source: str) -> None:
    for name, cases in sets.items():
        if not cases:
            raise BadInput(f"{source}: no cases are left for {name}; give more cases or more groups.")
    missing = sorted(set(LABELS) - {case.label for case in sets["train"]})
    if missing:
        raise BadInput(
            f"{source}: train has no case labelled {missing[0]}; add some, or give more groups so that each set gets all labels."
        )


def _describe(cases: Sequence[Case], path: Path) -> dict[str, Any]:
    counts = Counter(case.label for case in cases)
    return {
        "cases": len(cases), "digest": file_digest(path), "labels": {label: counts[label] for label in LABELS},
        "groups": len({case.group for case in cases if case.group is not None}),
    }  # fmt: skip
