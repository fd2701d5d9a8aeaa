"""Where cases come from: a file, a folder of tables, or a dataset on the Hub (tables only, never its code)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tasks.corpus.case import SETS
from tasks.corpus.hub_tables import fetch_tables
from tasks.corpus.tables import READERS
from tasks.runtime.errors import BadInput
from tasks.spec import Columns, EvaluationSet

# What others call the sets, as the beginning of a file's name; shards end in -00000-of-00002, or that and 16 hex digits.
VALID = r"valid(ation|ate)?|val|dev"
NAMES = {"train": r"train(ing)?", "valid": VALID, "calibration": r"calib(ration)?", "test": "test"}
COMPRESSED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
OTHER_TABLES = (
    ".ndjson",
    ".tsv",
    ".xls",
    ".xlsx",
    ".ods",
    ".arrow",
    ".feather",
)  # which are not read
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]{16})?$")


@dataclass(frozen=True)
class Located:
    """Files by set name, or one entry `all` where the split is ours; `origin` says what was read, e.g. the commit."""

    name: str
    files: dict[str, list[Path]]
    origin: dict[str, str] = field(default_factory=dict)


def locate(source: str, columns: Columns) -> Located:
    """The files of a source, fetched first if it is on the Hub. Raises BadInput, or SourceUnavailable for the Hub."""
    if is_hub(source):
        folder = fetch_tables(
            source, columns.revision, lambda files: _check_listing(files, source, columns)
        )
        origin = {"hub": source, "revision": columns.revision, "commit": folder.name}
        with _to_be_downloaded(source):
            return Located(
                _name(source.replace("/", "-")), _folder_files(folder, source, columns), origin
            )
    path = Path(source)
    if not _is(Path.is_dir, path):
        return Located(_name(path.stem), {"all": [path]})
    return Located(_name(path.stem), _folder_files(path, source, columns))


def _check_listing(files: list[Path], repo: str, columns: Columns) -> None:
    """Refuse before the download what `_folder_files` would refuse of a folder. `files`: relative paths of all files."""
    with _to_be_downloaded(repo):
        _check_unread((path for path in files if path.suffix.lower() in READERS), repo)
        entries = [path for path in files if _is_read(path) and path.name[0] != "."]
        for path in entries:
            if _named_like_a_set(path):
                _check_kind(path, f"{repo}: {path}")
        found = _assigned(
            [path for path in entries if path.suffix.lower() in READERS], repo, columns
        )
        for path in entries if "all" in found else ():
            if _is_table(path):
                _check_kind(path, f"{repo}: {path}")


@contextmanager
def _to_be_downloaded(repo: str) -> Iterator[None]:
    """To what is wrong with the files of a Hub dataset, and how to mend it, add where that can be done."""
    try:
        yield
    except BadInput as error:
        raise BadInput(
            f"{str(error).removesuffix('.')}; for that, download it (`hf download --repo-type dataset {repo} --local-dir "
            "FOLDER`) and name its folder as source."
        ) from error


def is_hub(source: str) -> bool:
    """Whether a source is a Hub id (`owner/name`): something at that path, or the ending of a table, says it is not."""
    if (
        re.fullmatch(r"[\w.-]+/[\w.-]+", source) is None
        or source[0] == "."
        or Path(source).suffix in READERS
    ):
        return False
    return not _is(Path.exists, Path(source)) and not _is(Path.is_dir, Path(source).parent)


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """A question about a path; no where the path cannot even be asked about (too long a name, say)."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _folder_files(folder: Path, source: str, columns: Columns) -> dict[str, list[Path]]:
    """The tables of a folder by the set that they are; see `_assigned`."""
    tables = _tables(folder)
    inside = (
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in READERS and _is(Path.is_file, path)
    )
    _check_unread((path.relative_to(folder) for path in inside), source)
    found = _assigned(tables, source, columns)
    if "all" in found:
        _check_whole(folder)
    return found


def _assigned(tables: list[Path], source: str, columns: Columns) -> dict[str, list[Path]]:
    """The tables per set where train and test are there (for an evaluation set: test); else all as one table.

    Rows under one entry `all` are split by us. Tables of which only some are named like sets are refused.
    """
    found = _by_set(source, tables)
    needed = ("test",) if isinstance(columns, EvaluationSet) else ("train", "test")
    missing = [name for name in needed if name not in found]
    if not missing:
        _check_none_left(tables, found, source)
        return found
    if not tables:
        raise BadInput(
            f"{source} holds no table, nor has its folder data; put {', '.join(READERS)} files into it."
        )
    if not found or found == {"train": tables}:
        for stem in {SHARD.sub("", path.stem) for path in tables}:
            _check_parts(
                source, stem, [path for path in tables if SHARD.sub("", path.stem) == stem]
            )
        return {"all": tables}
    shown = ", ".join(path.name for path in tables[:5])
    raise BadInput(
        f"{source} has no {missing[0]} file, and only some of its tables are named like sets ({shown}); "
        f"add {missing[0]}.jsonl, {missing[0]}.csv or {missing[0]}.parquet, or give its tables other names and they "
        "are read as one."
    )


def _check_none_left(tables: Iterable[Path], found: dict[str, list[Path]], source: str) -> None:
    """Refuse a table beside the sets that is none of them: its rows would be missing."""
    taken = {path for own in found.values() for path in own}
    for path in tables:
        if path not in taken:
            raise BadInput(
                f"{source}: {path.name} is named like none of the sets that lie beside it, so it would not be read; "
                f"rename it to the one that it is ({', '.join(SETS)}), or move it away."
            )


def _check_whole(folder: Path) -> None:
    """Refuse what would be missing from a folder that is read as one table: a compressed, broken or other file.

    A .json or .txt file that is not named like a set is left alone: in a folder of tables it describes them.
    """
    for path in _entries(folder):
        if _is_table(path):
            _check_table(path)


def _is_table(path: Path) -> bool:
    """By its ending, or the one before that of its compression."""
    inner = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return inner.lower() in (*READERS, *OTHER_TABLES)


def _named_like_a_set(path: Path) -> bool:
    stem = SHARD.sub("", path.name.split(".")[0])
    return any(re.fullmatch(name, stem, re.IGNORECASE) for name in NAMES.values())


def _tables(folder: Path) -> list[Path]:
    """The table files of a folder and of `data` in it, by name; what is named like a set and is none is refused."""
    paths = _entries(folder)
    for path in paths:
        if _named_like_a_set(path):
            _check_table(path)
    return [path for path in paths if path.suffix.lower() in READERS and _is(Path.is_file, path)]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder and in `data` in it, by name; hidden files (a Mac's ._cases.csv, say) are none of it."""
    try:
        paths = sorted(
            path
            for place in (folder, folder / "data")
            if place.is_dir()
            for path in place.iterdir()
        )
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be read ({error.strerror}); check its permissions."
        ) from error
    return [path for path in paths if not path.name.startswith(".")]


def _check_unread(tables: Iterable[Path], source: str) -> None:
    """Refuse tables that lie deeper than a folder and `data` in it: their rows would be missing. The paths are relative."""
    for inside in tables:
        if not _is_read(inside) and not any(part.startswith(".") for part in inside.parts):
            raise BadInput(
                f"{source}: {inside} lies deeper than the folder and its folder data, where tables are read; move it up, "
                "remove it, or name as source the folder or file that is meant."
            )


def _is_read(inside: Path) -> bool:
    return inside.parent in (Path(), Path("data"))


def _check_table(path: Path) -> None:
    """Refuse what is not read in a table's place, compressed files and broken links: its rows would silently be missing."""
    _check_kind(path, str(path))
    if path.suffix.lower() in READERS and not _is(Path.is_file, path):
        raise BadInput(
            f"{path} is no file but a folder or a link that leads nowhere; repair it or remove it."
        )


def _check_kind(path: Path, shown: str) -> None:
    if path.suffix.lower() in COMPRESSED:
        raise BadInput(f"{shown} is compressed; unpack it first, or remove it if it is not meant.")
    if path.suffix.lower() in (*OTHER_TABLES, ".json", ".txt"):
        kinds = ", ".join(READERS)
        raise BadInput(
            f"{shown} is of a kind that is not read ({kinds} are); convert it, or remove it if it is not meant."
        )


def _by_set(source: str, tables: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name in SETS:
        own = [
            path
            for path in tables
            if re.fullmatch(NAMES[name], SHARD.sub("", path.stem), re.IGNORECASE)
        ]
        if len(own) > 1 and not all(SHARD.search(path.stem) for path in own):
            raise BadInput(
                f"{source} holds {own[0].name} and {own[1].name}; keep one file of each set."
            )
        _check_parts(source, name, own)
        if own:
            found[name] = own
    return found


def _check_parts(source: str, name: str, parts: list[Path]) -> None:
    """Refuse a table in parts of which some are not there, or twice. `parts`: the files that are."""
    marks = [(int(found[1]), int(found[2])) for path in parts if (found := SHARD.search(path.stem))]
    if not marks:
        return
    whole = max(total for _, total in marks)
    if lacking := {(i, whole) for i in range(whole)} - set(marks):
        raise BadInput(
            f"{source} holds {whole - len(lacking)} of the {whole} parts of {name}; add the others."
        )
    if len(parts) > whole:
        raise BadInput(
            f"{source} holds {len(parts)} files for the {whole} parts of {name}; remove those that are older."
        )


def _name(text: str) -> str:
    """The readable part of a dataset folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "cases"
