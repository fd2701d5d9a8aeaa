"""Where cases come from: a file, a folder of sets, or a dataset on the Hub (tables only, never its code)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.corpus.splits import SETS
from tasks.corpus.tables import READERS
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import Columns, EvaluationSet, HubSource

# What others call the sets, as the beginning of a file's name; shards end in -00000-of-00002.
NAMES = {"train": r"train(ing)?", "valid": r"valid(ation)?|val|dev", "calibration": r"calib(ration)?", "test": "test"}
COMPRESSED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True)
class Located:
    """Files by set name, or one entry `all` where the split is ours; `origin` says what was read, e.g. the commit."""

    name: str
    files: dict[str, list[Path]]
    origin: dict[str, str] = field(default_factory=dict)


def locate(source: str, columns: Columns) -> Located:
    """The files of a source, fetched first if it is on the Hub. Raises BadInput, or SourceUnavailable for the Hub."""
    if is_hub(source):
        folder, commit = _fetch(source, columns.revision)
        origin = {"hub": source, "revision": columns.revision, "commit": commit}
        return Located(_name(source.replace("/", "-")), _hub_files(folder, source, columns), origin)
    path = Path(source)
    if not _is(Path.is_dir, path):
        return Located(_name(path.stem), {"all": [path]})
    needed = ("test",) if isinstance(columns, EvaluationSet) else ("train", "test")
    return Located(_name(path.stem), set_files(path, needed))


def is_hub(source: str) -> bool:
    """Whether a source is a Hub id (`owner/name`): something at that path, or the ending of a table, says it is not."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) is None or source[0] == "." or Path(source).suffix in READERS:
        return False
    return not _is(Path.exists, Path(source)) and not _is(Path.is_dir, Path(source).parent)


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """A question about a path; no where the path cannot even be asked about (too long a name, say)."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def set_files(folder: Path, needed: Sequence[str] = ("train", "test")) -> dict[str, list[Path]]:
    """A folder's files per set; those `needed` must be there (an evaluation set needs its test file alone)."""
    found = _by_set(folder, _tables(folder))
    for name in needed:
        if name not in found:
            raise BadInput(f"{folder} has no {name} file; it needs {name}.jsonl, {name}.csv or {name}.parquet.")
    return found


def _hub_files(folder: Path, source: str, columns: Columns) -> dict[str, list[Path]]:
    """A repository's sets; where there is no test set, what there is (one table, or train) is split by us."""
    tables = _tables(folder)
    found = _by_set(folder, tables)
    if "test" in found and ("train" in found or isinstance(columns, EvaluationSet)):
        return found
    if set(found) == {"train"} or (not found and len(tables) == 1):
        return {"all": found.get("train", tables)}
    shown = ", ".join(path.name for path in tables[:5]) or "none"
    raise BadInput(
        f"{source} has no train and test files, nor a single table (its tables: {shown}); use another source."
    )


def _tables(folder: Path) -> list[Path]:
    """The table files of a folder and of `data` in it, by name; what is named like a set and is none is refused."""
    try:
        paths = sorted(path for place in (folder, folder / "data") if place.is_dir() for path in place.iterdir())
        for path in paths:
            _check_set_file(path)
        return [path for path in paths if path.suffix.lower() in READERS and path.is_file()]
    except OSError as error:
        raise BadInput(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error


def _check_set_file(path: Path) -> None:
    """Refuse a compressed file or a broken link with a set's name: skipped, it would silently be split off train."""
    stem = SHARD.sub("", path.name.split(".")[0])
    if not any(re.fullmatch(pattern, stem, re.IGNORECASE) for pattern in NAMES.values()):
        return
    if path.suffix.lower() in COMPRESSED:
        raise BadInput(f"{path} is compressed; unpack it first, or remove it if it is not meant.")
    if path.suffix.lower() in READERS and not path.is_file():
        raise BadInput(f"{path} is no file but a folder or a link that leads nowhere; repair it or remove it.")


def _by_set(folder: Path, tables: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name in SETS:
        own = [path for path in tables if re.fullmatch(NAMES[name], SHARD.sub("", path.stem), re.IGNORECASE)]
        shards = [SHARD.search(path.stem) for path in own]
        if len(own) > 1 and not all(shards):
            raise BadInput(f"{folder} holds {own[0].name} and {own[1].name}; keep one file of each set.")
        if shards and shards[0] and len(own) != int(shards[0].group(2)):
            raise BadInput(
                f"{folder} holds {len(own)} of the {int(shards[0].group(2))} parts of {name}; add the others."
            )
        if own:
            found[name] = own
    return found


def _name(text: str) -> str:
    """The readable part of a dataset folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "cases"


def _fetch(repo: str, revision: str) -> tuple[Path, str]:
    """The folder in the Hub's cache with the tables of a dataset at one commit, and that commit."""
    from huggingface_hub import HfApi, snapshot_download

    from tasks.models.hub import CONNECT_SECONDS, verify_blob
    from tasks.models.hub_errors import patiently, refused, sentences

    known = HubSource(kind="hub", repo=repo, revision=revision)
    wanted, commit, unreachable = [f"*{suffix}" for suffix in READERS], revision, None
    try:
        with sentences(known):
            info = patiently(lambda: HfApi().dataset_info(repo, revision=revision, timeout=CONNECT_SECONDS))
        commit = str(info.sha)
        wanted = [f.rfilename for f in info.siblings or [] if Path(f.rfilename).suffix.lower() in READERS]
        if not wanted:
            raise BadInput(f"{repo} holds no {', '.join(READERS)} file; its loading code is never run.")
    except SourceUnavailable as error:
        if refused(error):
            raise SourceUnavailable(f"The dataset {repo}, which is no local path: {error}", transient=False) from error
        unreachable = error  # the local cache may have it
    options: dict[str, Any] = {"etag_timeout": CONNECT_SECONDS, "local_files_only": unreachable is not None}

    def download() -> str:
        return snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=wanted, **options)

    try:
        with sentences(known):
            folder = Path(patiently(download))
    except SourceUnavailable as error:
        reason = unreachable or error
        raise SourceUnavailable(f"The dataset {repo}, which is no local path: {reason}", reason.transient) from error
    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)
    return folder, folder.name
