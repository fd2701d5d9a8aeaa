"""Takes over the landing folders of another machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder, TriageError
from tasks.runtime.locks import locked
from tasks.runtime.store import MANIFEST
from warehouse.landing import LandingManifest, is_completed
from warehouse.load import kind_of
from warehouse.packs import folders_at
from warehouse.schema import refuse_newer_columns, tables

LOCK_SECONDS = 5.0
MEMBERS = "sweep_member.parquet"


@dataclass
class MergeReport:
    """Ids that were taken over, that are here already, of which another version is here and stays,
    and why folders were refused.
    """

    additions: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def merge(source: Path, landing: Path) -> MergeReport:
    """Copy the landing folders of another machine into `landing`: those of a home, of its folder
    `landing`, or of a pack (`packs.py`).

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
    kind_of(source, manifest)
    _refuse_newer_columns(source)

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
    return is_completed(source) and not is_completed(target)


def _extent(sweep: Path) -> tuple[int, bool]:
    """How many results belong to a sweep, and whether it has ended."""
    row = pq.ParquetFile(sweep / "sweep.parquet").read(columns=["finished_at"])
    members = pq.ParquetFile(sweep / MEMBERS).metadata.num_rows
    return members, row["finished_at"].null_count == 0


def _refuse_newer_columns(folder: Path) -> None:
    for name, table in tables().items():
        path = folder / f"{name}.parquet"
        if path.is_file():
            landed_columns = pq.ParquetFile(path).schema_arrow.names
            try:
                refuse_newer_columns(name, landed_columns, table.columns)
            except BadInput as error:
                raise BrokenFolder(f"{folder}: {error}") from error


def copy_folder(source: Path, target: Path) -> None:
    """Copy a landing folder under a temporary name, its manifest last, and rename it into place."""
    aside = target.with_name(f".merging-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)

    for file in source.iterdir():
        # Hidden files, such as the mark of a shared place, speak of the other machine.
        if file.is_file() and file.name != MANIFEST and not file.name.startswith("."):
            shutil.copyfile(file, aside / file.name)

    shutil.copyfile(source / MANIFEST, aside / MANIFEST)
    LandingManifest.read(aside, deep=True)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
