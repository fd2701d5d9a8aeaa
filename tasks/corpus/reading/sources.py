"""Where cases come from: a file, a folder of tables, or a dataset on the Hub, of which tables alone are
fetched, at one commit. A table's name says which set it is; a source of which rows would be
missing is refused.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.corpus.case import SETS
from tasks.corpus.reading.rows import label_words
from tasks.corpus.reading.tables import READERS, SAVE_AS_CSV
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import ask, expanded
from tasks.spec import Columns, Data, EvaluationSet, HubSource

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
UNREAD_TABLES = (".ndjson", ".xls", ".xlsx", ".ods", ".arrow", ".feather")
# A folder with more is not one of tables but, say, a home folder or a whole disk.
MOST_ENTRIES = 20_000

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

    origin: dict[str, str] = {}
    if is_hub(source, columns.folder):
        folder = _fetch_tables(source, columns)
        origin = {"hub": source, "revision": columns.revision, "commit": folder.name}
        name = source.replace("/", "-")
    else:
        folder = _existing(source, columns.folder)
        name = Path(source).stem

    files = {"all": [folder]}
    if ask(Path.is_dir, folder):
        paths = list(itertools.islice(_entries_below(folder), MOST_ENTRIES + 1))
        if len(paths) > MOST_ENTRIES:
            raise BadInput(
                f"{source} holds more than {MOST_ENTRIES:,} files and folders, too many to look for "
                "tables in; name as source the folder or the file that is meant."
            )
        by_set = _files_of(paths, columns, folder)
        files = {name: [folder / path for path in tables] for name, tables in by_set.items()}

    # The readable part of a dataset folder's name.
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "cases"
    return Located(columns, readable, files, origin)


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
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise BadInput(
            f"{source!r} is an address, and addresses are not read; download it first and name the "
            "file, or write owner/name for a dataset on the Hub."
        )

    label_words(columns)
    is_set = columns.revision != Columns.model_fields["revision"].default
    if is_set and not is_hub(source, columns.folder):
        raise BadInput(
            f"revision (--revision) is for datasets on the Hub, and {source!r} is none; leave it "
            "out."
        )


def _existing(source: str, folder: Path | None) -> Path:
    """The path of a local source, in `folder` or else in the working folder."""
    path = expanded(source)
    # An absolute path stays itself when it is joined to a folder. A broken link is something, too.
    for place in [path] if folder is None else [folder / path, path]:
        if os.path.lexists(place):
            return place

    raise BadInput(
        f"There is no file or folder {source!r} in {_searched_folders(folder)}; correct the path, or "
        "write owner/name for a dataset on the Hub."
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
    looks_like_one = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None
    if not looks_like_one or Path(source).suffix in READERS:
        return False
    # Only the path itself counts here: a folder `owner` beside the grid must not hide the Hub's.
    if folder is not None and ask(Path.exists, folder / source):
        return False
    return not ask(Path.exists, Path(source)) and not ask(Path.is_dir, Path(source).parent)


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

    is_linked = data.is_symlink() and ask(Path.is_dir, data)
    for root in (folder, data) if is_linked else (folder,):
        for parent, folders, names in os.walk(root, onerror=refuse):
            yield from (Path(parent, name).relative_to(folder) for name in (*folders, *names))
            folders[:] = [name for name in folders if not name.startswith(".")]


def _files_of(
    paths: Sequence[Path], columns: Data | EvaluationSet, root: Path | None = None
) -> Files:
    """The tables of each set where train and test are given (for an evaluation set: test alone), else
    all as one, under `all`. A source of which rows would be missing is refused (BadInput).

    `paths`: relative ones of all files; `root`: the folder of these, None before the download.
    Tables are read in a folder and in `data` in it, without hidden ones (._cases.csv).
    """
    source = columns.source
    set_of: dict[Path, str] = {}  # of what is named like a set
    by_stem: dict[str, list[Path]] = defaultdict(list)  # tables, the parts of one together
    entries = []
    for path in sorted(paths):
        is_table = path.suffix.lower() in READERS
        if any(part.startswith(".") for part in path.parts):
            continue
        if path.parent not in (Path(), Path("data")):
            if is_table:
                raise BadInput(
                    f"{source}: {path} lies deeper than the folder and its folder data, where "
                    "tables are read; move it up, remove it, or name as source the folder or file "
                    "that is meant."
                )
            continue

        entries.append(path)
        stem = SHARD.sub("", path.stem if is_table else path.name.split(".")[0])
        for name, pattern in NAMES.items():
            if re.fullmatch(pattern, stem, re.IGNORECASE):
                set_of[path] = name
        if is_table:
            if root is not None and not ask(Path.is_file, root / path):
                raise BadInput(
                    f"{root / path} is no file but a folder or a link that leads nowhere; repair it "
                    "or remove it."
                )
            by_stem[SHARD.sub("", path.stem)].append(path)

    tables = sorted(itertools.chain.from_iterable(by_stem.values()))
    needed = {"test"} if isinstance(columns, EvaluationSet) else {"train", "test"}
    has_sets = needed <= {set_of.get(path) for path in tables}
    for path in entries:
        suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
        may_be_table = suffixes and (
            suffixes[-1] in UNREAD_TABLES
            or (suffixes[-1] in COMPRESSED and suffixes[0] in (*READERS, *UNREAD_TABLES))
        )
        # A .json or .txt file that is not named like a set describes the tables.
        is_named = path in set_of and suffixes and suffixes[-1] in (".json", ".txt", *COMPRESSED)
        if is_named or (may_be_table and (path in set_of or not has_sets)):
            raise BadInput(
                f"{source}: {path} is compressed or of a kind that is not read "
                f"({', '.join(READERS)} are); unpack or convert it, or remove it if it is not meant; {SAVE_AS_CSV}."
            )

    for stem, parts in by_stem.items():
        marks = [
            (int(mark[1]), int(mark[2])) for path in parts if (mark := SHARD.search(path.stem))
        ]
        if marks and sorted(marks) != [(part, marks[0][1]) for part in range(marks[0][1])]:
            raise BadInput(
                f"{source} does not hold each of the {marks[0][1]} parts of {stem} once; add those "
                "that are missing, and remove those that are older."
            )

    if not tables:
        raise BadInput(
            f"{source} holds no table, nor has its folder data; put {', '.join(READERS)} files "
            "into it."
        )
    names = {set_of.get(path) for path in tables}
    if (not has_sets and names <= {None}) or names == {"train"}:
        return {"all": tables}

    unnamed = [path.name for path in tables if path not in set_of]
    if unnamed or not has_sets:
        raise BadInput(
            f"{source} has only some tables that are named like sets "
            f"({', '.join(path.name for path in tables[:5])}); name each after its set "
            f"({', '.join(SETS)}), with a train and a test file among them, or name none so and they "
            "are read as one."
        )

    files: Files = {}
    for name in SETS:
        of_set = [path for path in tables if set_of[path] == name]
        if len(of_set) > 1 and not all(SHARD.search(path.stem) for path in of_set):
            raise BadInput(
                f"{source} holds {of_set[0].name} and {of_set[1].name}; keep one file of each set."
            )
        if of_set and (name == "test" or isinstance(columns, Data)):
            files[name] = of_set
    return files


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
        retry,
        verify_blob,
    )

    revision = columns.revision
    source = HubSource(kind="hub", repo=repo, revision=revision)
    unreachable: SourceUnavailable | None = None  # the local cache may have the dataset then

    def unavailable(reason: SourceUnavailable) -> SourceUnavailable:
        return SourceUnavailable(
            f"The dataset {repo}, which is no local path: {reason} If you meant a path, correct it: "
            f"there is none in {_searched_folders(columns.folder)}.",
            reason.transient,
        )

    try:
        with explain_hub_errors(source):
            info = retry(
                lambda: HfApi().dataset_info(repo, revision=revision, timeout=CONNECT_SECONDS)
            )
        _files_of([Path(file.rfilename) for file in info.siblings or []], columns)
    except SourceUnavailable as error:
        if is_refusal(error):
            raise unavailable(error) from error
        unreachable = error
    except BadInput as error:  # how to get a copy that can be changed
        raise BadInput(
            f"{str(error).removesuffix('.')}; for that, download it (`hf download --repo-type "
            f"dataset {repo} --local-dir FOLDER`) and name its folder as source."
        ) from error

    # A suffix of any case: `*.[cC][sS][vV]`.
    patterns = [
        "*." + "".join(f"[{letter}{letter.upper()}]" for letter in suffix[1:]) for suffix in READERS
    ]

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
            folder = Path(retry(download, is_download=True))
    except SourceUnavailable as error:
        raise unavailable(unreachable or error) from error

    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)
    return folder
