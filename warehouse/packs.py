"""Landing folders in a few small files, as they are published.

A pack has a Parquet file for each table, with the rows of every folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.runtime.errors import BrokenFolder
from tasks.runtime.store import read_manifest
from warehouse.landing import LandingManifest, write_tables
from warehouse.load import landing_folders
from warehouse.schema import FACTS, tables

PACK = "pack"


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
            of_id = {
                name: _rows_of(content[name], fact.id_column, id)
                for name in fact.tables
                if name in content
            }
            write_tables(root, id, kind, of_id)


def _rows_of(table: pa.Table, id_column: str, id: str) -> pa.Table:
    # One chunk, as when it landed: the file is then the same byte for byte, and its digest too.
    return table.filter(pc.equal(table[id_column], id)).combine_chunks()


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
