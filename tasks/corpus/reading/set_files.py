"""Which files of a folder are which set, by their names; files whose rows would be missing are
refused."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.corpus.case import SETS
from tasks.corpus.reading.tables import READERS
from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask
from tasks.spec import Columns, EvaluationSet

# What others call the sets, as the beginning of a file's name.
VALID = r"valid(ation|ate)?|val|dev"
NAMES = {"train": r"train(ing)?", "valid": VALID, "calibration": r"calib(ration)?", "test": "test"}
# Shards end in -00000-of-00002, or in that and 16 hex digits.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]{16})?$")
COMPRESSED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
# A folder with more is not one of tables but, say, a home folder or a whole disk.
MOST_ENTRIES = 20_000
UNREAD_TABLES = (".ndjson", ".tsv", ".xls", ".xlsx", ".ods", ".arrow", ".feather")

Files = dict[str, list[Path]]
"""The files of each set by its name, or all of them under `all` where the project splits them."""


def folder_files(folder: Path, source: str, columns: Columns) -> Files:
    """The tables of a folder by set; see `_assign`."""
    nested = []
    for entry_count, path in enumerate(_entries_below(folder), start=1):
        if entry_count > MOST_ENTRIES:
            raise BadInput(
                f"{source} holds more than {MOST_ENTRIES:,} files and folders, too many to look "
                "for tables in; name as source the folder or the file that is meant."
            )
        if path.suffix.lower() in READERS and ask(Path.is_file, path):
            nested.append(path.relative_to(folder))

    paths = _entries(folder)
    for path in paths:
        if _is_named_like_a_set(path):
            _check_table(path)

    tables = [path for path in paths if path.suffix.lower() in READERS and ask(Path.is_file, path)]
    _check_depth(sorted(nested), source)

    files = _assign(tables, source, columns)
    if "all" in files:
        # Read as one table: refuse what would be missing, a compressed, broken or other file. A .json
        # or .txt file that is not named like a set may stay: in such a folder it describes the tables.
        for path in paths:
            if _is_table(path):
                _check_table(path)

    return files


def _entries_below(folder: Path) -> Iterator[Path]:
    """Files and folders at every depth, but for those in hidden folders, one by one."""
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                yield path
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    folders.append(path)


def _assign(tables: list[Path], source: str, columns: Columns) -> Files:
    """The tables of each set where train and test are given (for an evaluation set: test).

    Else all tables are one, under `all`. Tables of which only some are named like sets are refused.
    """
    files: Files = {}
    for name in SETS:
        paths = [
            path
            for path in tables
            if re.fullmatch(NAMES[name], SHARD.sub("", path.stem), re.IGNORECASE)
        ]
        if len(paths) > 1 and not all(SHARD.search(path.stem) for path in paths):
            raise BadInput(
                f"{source} holds {paths[0].name} and {paths[1].name}; keep one file of each set."
            )
        _check_parts(source, name, paths)
        if paths:
            files[name] = paths

    required = ("test",) if isinstance(columns, EvaluationSet) else ("train", "test")
    missing = [part for part in required if part not in files]
    if not missing:
        assigned = {path for paths in files.values() for path in paths}
        for path in tables:
            if path not in assigned:  # its rows would be missing
                raise BadInput(
                    f"{source}: {path.name} is not named after a set, unlike the files beside it, "
                    f"so it would not be read; rename it to its set ({', '.join(SETS)}), or move "
                    "it away."
                )
        return files

    if not tables:
        raise BadInput(
            f"{source} holds no table, nor has its folder data; put {', '.join(READERS)} files "
            "into it."
        )

    if not files or files == {"train": tables}:
        for stem in {SHARD.sub("", path.stem) for path in tables}:
            parts = [path for path in tables if SHARD.sub("", path.stem) == stem]
            _check_parts(source, stem, parts)
        return {"all": tables}

    table_names = ", ".join(path.name for path in tables[:5])
    raise BadInput(
        f"{source} has no {missing[0]} file, and only some of its tables are named like sets "
        f"({table_names}); add {missing[0]}.jsonl, {missing[0]}.csv or {missing[0]}.parquet, or "
        "give its tables other names and they are read as one."
    )


def _is_table(path: Path) -> bool:
    """By its ending, or the one before that of its compression."""
    is_compressed = path.suffix.lower() in COMPRESSED
    ending = Path(path.stem).suffix if is_compressed else path.suffix
    return ending.lower() in (*READERS, *UNREAD_TABLES)


def _is_named_like_a_set(path: Path) -> bool:
    stem = SHARD.sub("", path.name.split(".")[0])
    return any(re.fullmatch(name, stem, re.IGNORECASE) for name in NAMES.values())


def _entries(folder: Path) -> list[Path]:
    """The files of a folder and of `data` in it, by name, without hidden ones (._cases.csv)."""
    try:
        paths = sorted(
            path
            for parent in (folder, folder / "data")
            if parent.is_dir()
            for path in parent.iterdir()
        )
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be read ({error.strerror}); check its permissions."
        ) from error

    return [path for path in paths if not path.name.startswith(".")]


def _check_depth(tables: Iterable[Path], source: str) -> None:
    """Refuse tables deeper than a folder and `data` in it: their rows would be missing.

    `tables`: relative paths.
    """
    for path in tables:
        is_hidden = any(part.startswith(".") for part in path.parts)
        if not _is_read(path) and not is_hidden:
            raise BadInput(
                f"{source}: {path} lies deeper than the folder and its folder data, where tables "
                "are read; move it up, remove it, or name as source the folder or file that is "
                "meant."
            )


def _is_read(path: Path) -> bool:
    return path.parent in (Path(), Path("data"))


def _check_table(path: Path) -> None:
    """Refuse a compressed file, a folder or a broken link in a table's place: its rows would be
    missing."""
    _check_kind(path, str(path))
    if path.suffix.lower() in READERS and not ask(Path.is_file, path):
        raise BadInput(
            f"{path} is no file but a folder or a link that leads nowhere; repair it or remove it."
        )


def _check_kind(path: Path, shown_path: str) -> None:
    """Refuse an ending that is not read. `shown_path`: the path as the error names it."""
    if path.suffix.lower() in COMPRESSED:
        raise BadInput(
            f"{shown_path} is compressed; unpack it first, or remove it if it is not meant."
        )

    if path.suffix.lower() in (*UNREAD_TABLES, ".json", ".txt"):
        kinds = ", ".join(READERS)
        raise BadInput(
            f"{shown_path} is of a kind that is not read ({kinds} are); convert it, or remove it "
            "if it is not meant."
        )


def _check_parts(source: str, name: str, parts: list[Path]) -> None:
    """Refuse a table in parts of which some are missing or given twice."""
    marks = [(int(mark[1]), int(mark[2])) for path in parts if (mark := SHARD.search(path.stem))]
    if not marks:
        return

    total = max(count for _, count in marks)
    if missing := {(i, total) for i in range(total)} - set(marks):
        raise BadInput(
            f"{source} holds {total - len(missing)} of the {total} parts of {name}; add the others."
        )

    if len(parts) > total:
        raise BadInput(
            f"{source} holds {len(parts)} files for the {total} parts of {name}; remove those that "
            "are older."
        )


def check_listing(files: list[Path], repo: str, columns: Columns) -> None:
    """Refuse before the download what `folder_files` would refuse of a folder.

    `files`: relative paths of all files of the repository.
    """
    _check_depth((path for path in files if path.suffix.lower() in READERS), repo)
    entries = [path for path in files if _is_read(path) and path.name[0] != "."]
    for path in entries:
        if _is_named_like_a_set(path):
            _check_kind(path, f"{repo}: {path}")

    tables = [path for path in entries if path.suffix.lower() in READERS]
    files_by_set = _assign(tables, repo, columns)
    for path in entries if "all" in files_by_set else ():
        if _is_table(path):
            _check_kind(path, f"{repo}: {path}")
