"""Where cases come from: a file, a folder of tables, or a dataset on the Hub, of which tables alone are
fetched, at one commit. A table's name says which set it is; a source of which rows would be
missing is refused.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from tasks.corpus.case import SETS
from tasks.corpus.reading.rows import label_words
from tasks.corpus.reading.tables import READERS
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import ask, expanded
from tasks.spec import Columns, Data, EvaluationSet, HubSource

Files = dict[str, list[Path]]
"""The files of each set by its name, or all of them under `all` where the project splits them."""


@dataclass(frozen=True)
class Located:
    """The files of a source; `origin` says what was read, e.g. the commit on the Hub."""

    columns: Data | EvaluationSet
    name: str
    files: Files
    origin: dict[str, str] = field(default_factory=dict)


def locate(columns: Data | EvaluationSet) -> Located:
    """The files of a source, fetched first if it is on the Hub; of an evaluation set its test file,
    or all of its tables; none of embedded cases. Raises BadInput, or SourceUnavailable for the Hub.
    """
    check_settings(columns)
    source = columns.source
    if source == "embedded":
        return Located(columns, "embedded", {})

    if is_hub(source, columns.folder):
        try:
            folder = _fetch_tables(source, columns)
            files = _folder_files(folder, columns)
        except BadInput as error:  # how to get a copy that can be changed
            raise BadInput(
                f"{str(error).removesuffix('.')}; for that, download it (`hf download --repo-type "
                f"dataset {source} --local-dir FOLDER`) and name its folder as source."
            ) from error
        origin = {"hub": source, "revision": columns.revision, "commit": folder.name}
        return Located(columns, _folder_name(source.replace("/", "-")), files, origin)

    path = _existing(source, columns.folder)
    files = _folder_files(path, columns) if ask(Path.is_dir, path) else {"all": [path]}
    return Located(columns, _folder_name(Path(source).stem), files)


def check_local(columns: Data | EvaluationSet) -> None:
    """Refuse wrong settings, and a local source that does not exist or whose files cannot be read as
    sets (BadInput).
    """
    check_settings(columns)
    if not is_hub(columns.source, columns.folder):
        locate(columns)


def check_settings(columns: Data | EvaluationSet) -> None:
    """Refuse an address, label words that are other labels, and a revision that would be ignored
    (BadInput).
    """
    source = columns.source
    if not source.strip():
        raise BadInput(
            "The source is empty; name a file, a folder of tables, a dataset on the Hub "
            "(owner/name), or embedded."
        )

    if address := re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://", source):
        on_hub = re.search(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)", source)
        remedy = f", or write {on_hub[1]} for the dataset on the Hub" if on_hub else ""
        raise BadInput(
            f"{source!r} begins with {address[0].strip()}, as an address does. Addresses are not "
            f"read; download it first and name the file{remedy}."
        )

    label_words(columns)
    is_set = columns.revision != Columns.model_fields["revision"].default
    if is_set and not is_hub(source, columns.folder):
        raise no_revision(source)


def no_revision(source: str) -> BadInput:
    """The error for a revision of a source that is not on the Hub."""
    return BadInput(
        f"revision (--revision) is for datasets on the Hub, and {source!r} is none; leave it out."
    )


def _existing(source: str, folder: Path | None) -> Path:
    """The path of a local source, in `folder` or else in the working folder."""
    path = expanded(source)
    # An absolute path stays itself when it is joined to a folder.
    for place in [path] if folder is None else [folder / path, path]:
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            pass  # what may not be seen is something, and so is a broken link
        return place

    if path.is_absolute():
        raise BadInput(
            f"{path} cannot be read (No such file or directory); check the path and its "
            "permissions."
        )

    raise BadInput(
        f"There is no file or folder {source!r} in {_searched_folders(folder)}; "
        "correct the path, or write owner/name for a dataset on the Hub."
    )


def _searched_folders(folder: Path | None) -> str:
    """Where a relative source is looked up, each folder once."""
    working = f"{Path.cwd()} (the working folder)"
    if folder is None or folder.resolve() == Path.cwd().resolve():
        return working
    return f"{folder.resolve()} (the grid's folder) or in {working}"


def is_hub(source: str, folder: Path | None = None) -> bool:
    """Whether a source is a Hub id (`owner/name`): nothing is at that path, also not in `folder`, and
    it does not end like a table.
    """
    if (
        re.fullmatch(r"[\w.-]+/[\w.-]+", source) is None
        or source[0] == "."
        or Path(source).suffix in READERS
    ):
        return False

    # Only the path itself counts here: a folder `owner` beside the grid must not hide the Hub's.
    if folder is not None and ask(Path.exists, folder / source):
        return False

    return not ask(Path.exists, Path(source)) and not ask(Path.is_dir, Path(source).parent)


def _folder_name(text: str) -> str:
    """The readable part of a dataset folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "cases"


# What others call the sets, as the beginning of a file's name.
NAMES = {
    "train": r"train(ing)?",
    "valid": r"valid(ation|ate)?|val|dev",
    "calibration": r"calib(ration)?",
    "test": "test",
}
# Shards end in -00000-of-00002, or in that and 16 hex digits.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]{16})?$")
COMPRESSED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
# A folder with more is not one of tables but, say, a home folder or a whole disk.
MOST_ENTRIES = 20_000
UNREAD_TABLES = (".ndjson", ".tsv", ".xls", ".xlsx", ".ods", ".arrow", ".feather")


def _folder_files(folder: Path, columns: Data | EvaluationSet) -> Files:
    """The tables of a folder by set."""
    paths = list(itertools.islice(_entries_below(folder), MOST_ENTRIES + 1))
    if len(paths) > MOST_ENTRIES:
        raise BadInput(
            f"{columns.source} holds more than {MOST_ENTRIES:,} files and folders, too many to "
            "look for tables in; name as source the folder or the file that is meant."
        )

    files = _files_of(paths, columns, folder)
    return {name: [folder / path for path in tables] for name, tables in files.items()}


def _entries_below(folder: Path) -> Iterator[Path]:
    """Files and folders at every depth, but for those in hidden folders, one by one, as paths below
    `folder`.
    """
    data = folder / "data"  # which may be a link

    def refuse(error: OSError) -> None:
        if Path(str(error.filename)) in (folder, data):
            raise BadInput(
                f"{error.filename} cannot be read ({error.strerror}); check its permissions."
            ) from error

    has_linked_data = data.is_symlink() and ask(Path.is_dir, data)
    for root in (folder, data) if has_linked_data else (folder,):
        for parent, folders, names in os.walk(root, onerror=refuse):
            yield from (Path(parent, name).relative_to(folder) for name in (*folders, *names))
            folders[:] = [name for name in folders if not name.startswith(".")]


def _files_of(paths: list[Path], columns: Data | EvaluationSet, root: Path | None = None) -> Files:
    """The tables of each set; a source of which rows would be missing is refused (BadInput).

    `paths`: relative ones of all files; `root`: the folder of these, None before the download.
    Tables are read in a folder and in `data` in it, without hidden ones (._cases.csv).
    """

    def is_file(path: Path) -> bool:
        return root is None or ask(Path.is_file, root / path)

    def check(path: Path) -> None:
        shown_path = f"{columns.source}: {path}" if root is None else str(root / path)
        suffix = path.suffix.lower()
        if suffix in COMPRESSED:
            raise BadInput(
                f"{shown_path} is compressed; unpack it first, or remove it if it is not meant."
            )
        if suffix in (*UNREAD_TABLES, ".json", ".txt"):
            raise BadInput(
                f"{shown_path} is of a kind that is not read ({', '.join(READERS)} are); convert "
                "it, or remove it if it is not meant."
            )
        if suffix in READERS and not is_file(path):
            raise BadInput(
                f"{shown_path} is no file but a folder or a link that leads nowhere; repair it or "
                "remove it."
            )

    entries = []
    for path in sorted(paths):
        if any(part.startswith(".") for part in path.parts):
            continue
        if path.parent in (Path(), Path("data")):
            entries.append(path)
        elif path.suffix.lower() in READERS and is_file(path):
            raise BadInput(
                f"{columns.source}: {path} lies deeper than the folder and its folder data, where "
                "tables are read; move it up, remove it, or name as source the folder or file that "
                "is meant."
            )

    for path in entries:
        stem = SHARD.sub("", path.name.split(".")[0])
        if any(re.fullmatch(name, stem, re.IGNORECASE) for name in NAMES.values()):
            check(path)

    tables = [path for path in entries if path.suffix.lower() in READERS and is_file(path)]
    files = _assign(tables, columns)
    # Read as one table: refuse what would be missing, a compressed, broken or other file. A .json
    # or .txt file that is not named like a set may stay: in such a folder it describes the tables.
    for path in entries if "all" in files else ():
        is_compressed = path.suffix.lower() in COMPRESSED
        ending = Path(path.stem).suffix if is_compressed else path.suffix
        if ending.lower() in (*READERS, *UNREAD_TABLES):
            check(path)

    return files


def _assign(tables: list[Path], columns: Data | EvaluationSet) -> Files:
    """The tables of each set where train and test are given (for an evaluation set: test alone), else
    all as one, under `all`. Tables of which only some are named like sets are refused.
    """
    source = columns.source
    by_stem: dict[str, list[Path]] = {}
    for path in tables:
        by_stem.setdefault(SHARD.sub("", path.stem), []).append(path)

    files: Files = {}
    for name in SETS:
        stems = [stem for stem in by_stem if re.fullmatch(NAMES[name], stem, re.IGNORECASE)]
        paths = sorted(path for stem in stems for path in by_stem[stem])
        if len(paths) > 1 and not all(SHARD.search(path.stem) for path in paths):
            raise BadInput(
                f"{source} holds {paths[0].name} and {paths[1].name}; keep one file of each set."
            )
        _check_parts(source, name, paths)
        if paths:
            files[name] = paths

    is_evaluation_set = isinstance(columns, EvaluationSet)
    missing = [name for name in ("train", "test")[is_evaluation_set:] if name not in files]
    if not missing:
        unread = {*tables}.difference(*files.values())
        if unread:  # its rows would be missing
            raise BadInput(
                f"{source}: {min(unread).name} is not named after a set, unlike the files beside "
                f"it, so it would not be read; rename it to its set ({', '.join(SETS)}), or move "
                "it away."
            )
        return {"test": files["test"]} if is_evaluation_set else files

    if not tables:
        raise BadInput(
            f"{source} holds no table, nor has its folder data; put {', '.join(READERS)} files "
            "into it."
        )

    if not files or files == {"train": tables}:
        for stem, parts in by_stem.items():
            _check_parts(source, stem, parts)
        return {"all": tables}

    table_names = ", ".join(path.name for path in tables[:5])
    raise BadInput(
        f"{source} has no {missing[0]} file, and only some of its tables are named like sets "
        f"({table_names}); add {missing[0]}.jsonl, {missing[0]}.csv or {missing[0]}.parquet, or "
        "give its tables other names and they are read as one."
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


def _fetch_tables(repo: str, columns: Data | EvaluationSet) -> Path:
    """The folder in the Hub's cache with the tables of a dataset; its name is their commit.

    Where the Hub is out of reach, the cache answers. What is refused of a folder is refused before
    the download.
    """
    from huggingface_hub import HfApi, snapshot_download

    from tasks.models.sources.hub_source import (
        CONNECT_SECONDS,
        explain_hub_errors,
        is_refusal,
        retry_while_busy,
        verify_blob,
    )

    revision = columns.revision
    source = HubSource(kind="hub", repo=repo, revision=revision)
    unreachable: SourceUnavailable | None = None  # the local cache may have the dataset then
    commit = ""
    patterns = [f"*{suffix}" for suffix in READERS]
    try:
        with explain_hub_errors(source):
            info = retry_while_busy(
                lambda: HfApi().dataset_info(repo, revision=revision, timeout=CONNECT_SECONDS)
            )
    except SourceUnavailable as error:
        if is_refusal(error):
            raise _unavailable(columns, error, transient=False) from error
        unreachable = error
    else:
        commit = str(info.sha)
        files = [file.rfilename for file in info.siblings or []]
        patterns = [escape(name) for name in files if Path(name).suffix.lower() in READERS]
        if not patterns:
            raise BadInput(
                f"{repo} holds no {', '.join(READERS)} file; its loading code is never run."
            )
        _files_of([Path(name) for name in files], columns)

    # By the revision's own name: only then does the cache note which commit it means.
    def download() -> str:
        return snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=patterns,
            etag_timeout=CONNECT_SECONDS,
            local_files_only=unreachable is not None,
        )

    try:
        with explain_hub_errors(source):
            folder = Path(retry_while_busy(download))
    except SourceUnavailable as error:
        reason = unreachable or error
        raise _unavailable(columns, reason, reason.transient) from error

    if unreachable is None and folder.name != commit:
        raise SourceUnavailable(
            f"The dataset {repo} was listed at commit {commit[:12]} and came at "
            f"{folder.name[:12]}: it changed meanwhile, or the Hub was too busy to say; run the "
            "command again."
        )

    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)

    return folder


def _unavailable(
    columns: Data | EvaluationSet, reason: SourceUnavailable, transient: bool
) -> SourceUnavailable:
    """The error for a dataset that does not come; the reader may have meant a path."""
    return SourceUnavailable(
        f"The dataset {columns.source}, which is no local path: {reason} There is no file or folder "
        f"{columns.source!r} in {_searched_folders(columns.folder)} either; if you meant a path, "
        "correct it.",
        transient,
    )
