"""Landing folders in a few small files.

A pack has a Parquet file for each table, with the rows of every folder. The first rows of all
folders stand first, then the second ones: what evaluations of the same cases share, the digests of
the cases above all, takes its space once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.runtime.errors import BrokenFolder
from tasks.runtime.store import ManifestDict, build_folder, read_manifest
from warehouse.landing import LandingManifest, write_tables
from warehouse.load import kind_of, landing_folders
from warehouse.schema import FACTS, tables

PACK = "pack"
_PLACE = "place_in_folder"
_COMPRESSION_LEVEL = 19  # written once, read seldom


def write_pack(folders: Sequence[Path], target: Path) -> None:
    """Write the rows of landing folders into the folder `target`, replacing what is there.

    A column that only some of them have is NULL for the others. Raises BrokenFolder for a folder
    that is damaged or of a newer version.
    """
    parts: dict[str, list[pa.Table]] = {}
    for folder in folders:
        kind = kind_of(folder, LandingManifest.read(folder, deep=True))
        for name in FACTS[kind].tables:
            table = pq.ParquetFile(folder / f"{name}.parquet").read()
            places = pa.array(range(table.num_rows), type=pa.int32())
            parts.setdefault(name, []).append(table.append_column(_PLACE, places))

    def build(folder: Path) -> ManifestDict:
        for name, of_folders in parts.items():
            _write(_interleaved(of_folders), folder / f"{name}.parquet")
        return {"kind": PACK}

    # Built aside: a write that is killed leaves the pack of before.
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    build_folder(staging, build)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)


def _interleaved(parts: list[pa.Table]) -> pa.Table:
    """The rows of all folders in the order of their place; those of one place in the folders'."""
    together = pa.concat_tables(parts, promote_options="default")
    order = pc.array_sort_indices(together[_PLACE].combine_chunks())
    return together.take(order).drop_columns(_PLACE)


def _write(table: pa.Table, path: Path) -> None:
    """Probabilities hardly repeat: their bytes are compressed apart, that of the exponent first."""
    numbers = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [name for name in table.column_names if name not in numbers]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=_COMPRESSION_LEVEL,
        use_dictionary=others,
        use_byte_stream_split=numbers,
    )


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
