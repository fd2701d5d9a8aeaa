"""Results as immutable folders of Parquet files, one file per fact table.

`landing/<id>/` appears complete, by atomic rename, or not at all. Writing the same rows
again changes nothing. The warehouse can be rebuilt from these folders.

`merge` takes over those of another machine, or of a published study: a study is published as a
pack, a Parquet file for each table, with the rows of every folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.runtime.errors import BadInput, BrokenFolder, TriageError
from tasks.runtime.locks import locked
from tasks.runtime.store import MANIFEST, Manifest, build_folder, read_manifest
from tasks.spec import digest_of
from warehouse.connect import reading, warehouse_path
from warehouse.schema import FACTS, FactTable, Kind, check, refuse_equal_keys, refuse_newer_columns
from warehouse.schema import tables as tables_by_name

Row = Mapping[str, object]  # value by column; None: not available
Rows = Sequence[Row]


class LandingManifest(Manifest):
    """The manifest of a landing folder; `id` and `kind` are None in a folder of another sort."""

    id: str | None = None
    kind: str | None = None


def write_landing(root: Path, id: str, kind: Kind, tables: Mapping[str, Rows]) -> Path:
    """Land the rows of `id` under `root` and return the folder `root/<id>`.

    `tables` maps the tables of `kind` to rows; each row has exactly the table's columns, None
    meaning "not available". Numbers that are not finite land as NULL. A table left out lands empty;
    the first table of the kind has a row. Raises BadInput naming table and column where a row
    breaks a CHECK or has the key of another.
    """
    fact = FACTS[kind]
    landing = {name: _arrow_table(id, name, fact, tables.get(name, [])) for name in fact.tables}
    check(landing)
    return write_tables(root, id, kind, landing)


def write_tables(root: Path, id: str, kind: Kind, tables: Mapping[str, pa.Table]) -> Path:
    """Land Arrow tables that were checked when their rows first landed, as `write_landing` does.

    Raises BadInput for an id that cannot name a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise BadInput(
            f"{id!r} cannot name a landing folder; "
            "use letters, digits, dots, dashes and underscores."
        )

    # In memory first: their digest decides whether anything is written at all.
    files = {}
    for name, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        files[f"{name}.parquet"] = buffer.getvalue()
    digest = digest_of(
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    final = root / id

    def write(folder: Path) -> dict[str, str]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return {"id": id, "kind": kind}

    current = LandingManifest.read_if_complete(final, deep=True)
    if current is None or current.digest != digest:
        # Named by its content and built aside: a write that is killed leaves the old folder, and
        # the next completes it.
        staging = root / f".{id}.{digest[:12]}"
        build_folder(staging, write)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)

    return final


def _arrow_table(id: str, name: str, fact: FactTable, rows: Rows) -> pa.Table:
    """Rows with the types of `schema.sql`."""
    schema = tables_by_name()[name]
    for row in rows:
        assert row.keys() == set(schema.names), f"{name}: {row.keys() ^ set(schema.names)}"
        assert row[fact.id_column] == id, f"{name}: a row of {row[fact.id_column]}, not of {id}"

    columns = {}
    for column in schema:
        values = [row[column.name] for row in rows]
        if pa.types.is_timestamp(column.type):
            values = [_in_utc(value) for value in values]
        # Of NumPy's numbers, too; None where a number is not finite.
        array = pa.array(values, type=column.type, from_pandas=True)
        if pa.types.is_floating(column.type):
            array = pc.if_else(pc.is_finite(array), array, None)
        columns[column.name] = array

    table = pa.table(columns, schema=schema)
    refuse_equal_keys(name, fact, table)
    return table


def _in_utc(time: object) -> object:
    """A time, or its text in ISO 8601, in UTC without zone, as columns have it."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime) and time.tzinfo is not None:
        return time.astimezone(UTC).replace(tzinfo=None)
    return time


def landing_folders(root: Path) -> list[Path]:
    """Folders with a manifest; one whose name starts with a dot is being written."""
    folders = (manifest.parent for manifest in root.glob(f"*/{MANIFEST}"))
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def kind_of(folder: Path, manifest: LandingManifest) -> Kind | None:
    """The kind of a landing folder; None for one that left, or that a newer version landed.

    Raises BrokenFolder where it is no landing folder.
    """
    if manifest.id != folder.name or manifest.kind is None:
        raise BrokenFolder(
            f"{folder} is not a landing folder of this version (kind {manifest.kind!r}, "
            f"id {manifest.id!r})."
        )
    return manifest.kind if manifest.kind in FACTS else None


def landed_status(folder: Path) -> str | None:
    """The status of the training in a landing folder; None where there is none that can be read."""
    try:
        rows = pq.ParquetFile(folder / "experiment.parquet").read(columns=["status"])
    except (OSError, ValueError):
        return None
    return str(rows["status"][0])


REFERRING = {
    "experiment": ("training_id", "source_training_id", "weights_digest", "dataset_digest"),
    "evaluation": ("training_id", "set_digest"),
    "fidelity": ("variant_digest", "reference_digest", "dataset_digest"),
    "trial": ("training_id",),
}


def referred_to(landing: Path) -> frozenset[str]:
    """What any result refers to. Raises BadInput for a landing folder that cannot be read, and as
    `reading` does for the warehouse.
    """
    referred: set[str | None] = set()
    if warehouse_path().exists():
        with reading() as con:
            statement = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            # A file that an older version made lacks some.
            for table, name in con.execute(statement).fetchall():
                if name in REFERRING.get(table, ()):
                    rows = con.execute(f"SELECT DISTINCT {name} FROM {table}").fetchall()
                    referred.update(value for (value,) in rows)

    for table, names in REFERRING.items():
        for file in sorted(landing.glob(f"[!.]*/{table}.parquet")):
            try:
                landed = pq.read_table(file)
            except (OSError, pa.ArrowException) as error:
                raise BadInput(
                    f"{file} cannot be read ({type(error).__name__}), so it is not known what it "
                    "refers to; `triage warehouse check` says what to do."
                ) from error
            for name in set(names).intersection(landed.column_names):
                referred.update(landed[name].to_pylist())

    return frozenset(value for value in referred if value)


LOCK_SECONDS = 5.0
PACK = "pack"
MEMBERS = "sweep_member.parquet"


@dataclass
class MergeReport:
    """Ids that were taken over, that are here already, of which another version is here and stays,
    why folders were refused, and how many of each kind that this version does not know.
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

    for name in tables_by_name():
        path = source / f"{name}.parquet"
        if path.is_file():
            refuse_newer_columns(name, pq.ParquetFile(path).schema_arrow.names)

    with locked(target, LOCK_SECONDS):
        present_manifest = LandingManifest.read_if_complete(target, deep=True)
        if present_manifest is not None and present_manifest.digest == manifest.digest:
            report.present.append(target.name)
        elif present_manifest is not None and _extent(source) <= _extent(target):
            report.differing.append(target.name)
        else:
            copy_folder(source, target)
            report.additions.append(target.name)


def _extent(folder: Path) -> tuple[int, bool]:
    """How far a result has come: how many results a sweep has, and whether it, or a training, is
    complete. The version of another machine takes the place of that of here where it came further.
    """
    if not (folder / MEMBERS).is_file():
        return 0, landed_status(folder) == "completed"
    row = pq.ParquetFile(folder / "sweep.parquet").read(columns=["finished_at"])
    members = pq.ParquetFile(folder / MEMBERS).metadata.num_rows
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
    try:
        manifest = read_manifest(folder)
    except BrokenFolder:
        return True
    return manifest is not None and manifest.get("kind") == PACK


def unpack(pack: Path, root: Path) -> None:
    """Write the landing folders of `pack` below `root`.

    Raises BrokenFolder where the pack is damaged or has a table that this version does not know,
    and BadInput for an id that names no folder below `root`.
    """
    try:
        LandingManifest.read(pack, deep=True)
    except BrokenFolder as error:
        problem = str(error).partition("; ")[0]
        remedy = f"get the folder again, in a clone with `git restore {pack}`"
        raise BrokenFolder(f"{problem}. Nothing was taken over; {remedy}.") from error

    content = {path.stem: pq.ParquetFile(path).read() for path in sorted(pack.glob("*.parquet"))}
    if unknown := sorted(set(content) - set(tables_by_name())):
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
    """The landing folders of a home, of its folder `landing`, of a pack at one of these places, or of
    packs in them (`NAME.pack`).

    Those of packs are gone with the block.
    """
    places = (source / "landing", source)
    packs = [place for place in places if is_pack(place)][:1]
    packs = packs or [pack for place in places for pack in sorted(place.glob("*.pack"))]
    if not packs:
        yield landing_folders(source / "landing") or landing_folders(source)
        return

    with TemporaryDirectory() as aside:
        for pack in packs:
            unpack(pack, Path(aside))
        yield landing_folders(Path(aside))
