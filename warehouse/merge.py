"""Takes over the landing folders of another machine, or of a published study.

A study is published as a pack: a Parquet file for each table, with the rows of every folder.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder, TriageError
from tasks.runtime.locks import locked
from tasks.runtime.store import read_manifest
from warehouse.landing import (
    LandingManifest,
    kind_of,
    landed_status,
    landing_folders,
    write_tables,
)
from warehouse.schema import FACTS, refuse_newer_columns, tables

LOCK_SECONDS = 5.0
PACK = "pack"
MEMBERS = "sweep_member.parquet"


@dataclass
class MergeReport:
    """Ids that were taken over, that are here already, of which another version is here and stays,
    why folders were refused, and how many of each kind were skipped that this version does not
    know.
    """

    additions: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


def merge(source: Path, landing: Path) -> MergeReport:
    """Copy the landing folders of another machine into `landing`: those of a home, of its folder
    `landing`, or of a pack.

    What is here stays, but a training that did not finish here is replaced by one that did, and
    a sweep by its later state. Damaged folders, and those of a newer version, are refused.
    Loading is left to the caller. Raises BadInput where `source` has no landing folders.
    """
    with folders_at(source) as folders:
        if not folders:
            raise BadInput(
                f"{source} has no landing folders; name the other machine's home, or the folder "
                "`landing` in it."
            )
        if folders[0].parent.resolve() == landing.resolve():
            raise BadInput(f"{source} is this machine's own; name the folder of another one.")

        report = MergeReport()
        for folder in folders:
            try:
                _take(folder, landing / folder.name, report)
            except (TriageError, OSError) as error:
                report.refused[folder.name] = str(error)

    return report


def _take(source: Path, target: Path, report: MergeReport) -> None:
    manifest = LandingManifest.read(source, deep=True)
    if kind_of(source, manifest) is None:
        report.skipped[str(manifest.kind)] += 1
        return

    for name in tables():
        path = source / f"{name}.parquet"
        if path.is_file():
            refuse_newer_columns(name, pq.ParquetFile(path).schema_arrow.names)

    with locked(target, LOCK_SECONDS):
        present_manifest = LandingManifest.read_if_complete(target, deep=True)
        if present_manifest is not None and present_manifest.digest == manifest.digest:
            report.present.append(target.name)
        elif present_manifest is not None and not _counts_more(source, target):
            report.differing.append(target.name)
        else:
            copy_folder(source, target)
            report.additions.append(target.name)


def _counts_more(source: Path, target: Path) -> bool:
    """Whether another machine's version takes the place of that of here: a training that finished,
    or a sweep that has gone on since.
    """
    if (source / MEMBERS).is_file() and (target / MEMBERS).is_file():
        return _extent(source) > _extent(target)
    return landed_status(source) == "completed" != landed_status(target)


def _extent(sweep: Path) -> tuple[int, bool]:
    """How many results belong to a sweep, and whether it has ended."""
    row = pq.ParquetFile(sweep / "sweep.parquet").read(columns=["finished_at"])
    members = pq.ParquetFile(sweep / MEMBERS).metadata.num_rows
    return members, row["finished_at"].null_count == 0


def copy_folder(source: Path, target: Path) -> None:
    """Copy a landing folder under a temporary name, and rename it into place."""
    aside = target.with_name(f".merging-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    # Hidden files, such as the mark of a shared place, speak of the other machine.
    shutil.copytree(source, aside, ignore=shutil.ignore_patterns(".*"))
    LandingManifest.read(aside, deep=True)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def is_pack(folder: Path) -> bool:
    """Whether a folder is a pack, damaged or not."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.get("kind") == PACK


def unpack(pack: Path, root: Path) -> None:
    """Write the landing folders of `pack` below `root`.

    Raises BrokenFolder where the pack is damaged or has a table that this version does not know,
    and BadInput for an id that names no folder below `root`.
    """
    LandingManifest.read(pack, deep=True)
    content = {path.stem: pq.ParquetFile(path).read() for path in sorted(pack.glob("*.parquet"))}
    if unknown := sorted(set(content) - set(tables())):
        raise BrokenFolder(
            f"{pack} holds the table {unknown[0]!r}, which this version does not know; update "
            "triage."
        )

    for kind, fact in FACTS.items():
        if fact.tables[0] not in content:
            continue
        for id in pc.unique(content[fact.tables[0]][fact.id_column]).to_pylist():
            of_id = {}
            for name in fact.tables:
                if name in content:
                    rows = content[name].filter(pc.equal(content[name][fact.id_column], id))
                    # One chunk, as when it landed: the file is then the same byte for byte.
                    of_id[name] = rows.combine_chunks()
            write_tables(root, id, kind, of_id)


@contextlib.contextmanager
def folders_at(source: Path) -> Iterator[list[Path]]:
    """The landing folders of a home, of its folder `landing`, or of a pack at one of these places.

    Those of a pack are gone with the block.
    """
    pack = next((place for place in (source / "landing", source) if is_pack(place)), None)
    if pack is None:
        yield landing_folders(source / "landing") or landing_folders(source)
        return

    with TemporaryDirectory() as aside:
        unpack(pack, Path(aside))
        yield landing_folders(Path(aside))
