"""Where cases come from: a file, a folder of tables, or a dataset on the Hub, of which tables alone are
fetched, at one commit, into the Hub's own cache, and never its code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from tasks.corpus.reading.rows import label_words
from tasks.corpus.reading.set_files import Files, check_listing, folder_files
from tasks.corpus.reading.tables import READERS
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import ask, expanded
from tasks.spec import Columns, Data, EvaluationSet, HubSource


@dataclass(frozen=True)
class Located:
    """The files of a source; `origin` says what was read, e.g. the commit on the Hub."""

    name: str
    files: Files
    origin: dict[str, str] = field(default_factory=dict)


def locate(source: str, columns: Columns) -> Located:
    """The files of a source, fetched first if it is on the Hub.

    Raises BadInput, or SourceUnavailable for the Hub.
    """
    _check_form(source)
    if is_hub(source, columns.folder):
        return _locate_on_hub(source, columns)

    path = _existing(source, columns.folder)
    name = _folder_name(Path(source).stem)
    if ask(Path.is_dir, path):
        return Located(name, folder_files(path, source, columns))

    return Located(name, {"all": [path]})


def check_local(columns: Data | EvaluationSet) -> None:
    """Refuse a local source that does not exist or whose files cannot be read as sets (BadInput)."""
    check_settings(columns)
    source = columns.source
    if source != "embedded" and not is_hub(source, columns.folder):
        locate(source, columns)


def check_settings(columns: Data | EvaluationSet) -> None:
    """Refuse an address, label words that are other labels, and a revision that would be ignored.

    Raises BadInput.
    """
    _check_form(columns.source)
    label_words(columns)
    if columns.revision != Columns.model_fields["revision"].default:
        check_revision(columns.source, columns.folder)


def check_revision(source: str, folder: Path | None = None) -> None:
    """Refuse a revision of a source that is not on the Hub (BadInput)."""
    if source == "embedded" or not is_hub(source, folder):
        raise BadInput(
            f"revision (--revision) is for datasets on the Hub, and {source!r} is none; leave it "
            "out."
        )


def _check_form(source: str) -> None:
    """Refuse what can be neither a path nor the name of a dataset."""
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


def _locate_on_hub(repo: str, columns: Columns) -> Located:
    def check(files: list[Path]) -> None:
        with _download_remedy(repo):
            check_listing(files, repo, columns)

    try:
        folder = fetch_tables(repo, columns.revision, check)
    except SourceUnavailable as error:
        # The reader may have meant a path: say where that was looked up, too.
        raise SourceUnavailable(
            f"{error} There is no file or folder {repo!r} in {_searched_folders(columns.folder)} "
            "either; if you meant a path, correct it.",
            error.transient,
            error.elsewhere,
        ) from error

    origin = {"hub": repo, "revision": columns.revision, "commit": folder.name}
    with _download_remedy(repo):
        files = folder_files(folder, repo, columns)

    return Located(_folder_name(repo.replace("/", "-")), files, origin)


def _existing(source: str, folder: Path | None) -> Path:
    """The path of a local source, which may be in `folder` or, failing that, in the working folder.

    The name of a dataset's folder and its digest come from `source` as it is written, so that they
    do not depend on where the project lies.
    """
    path = expanded(source)
    # An absolute path stays itself when it is joined to a folder.
    places = [path] if folder is None else [folder / path, path]
    for place in places:
        if not _is_missing(place):
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


def _is_missing(path: Path) -> bool:
    """Whether nothing is at a path. A broken link is something, and so is what may not be seen."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False

    return False


@contextmanager
def _download_remedy(repo: str) -> Iterator[None]:
    """Adds to an error about the files of a Hub dataset how to get a copy that can be changed."""
    try:
        yield
    except BadInput as error:
        raise BadInput(
            f"{str(error).removesuffix('.')}; for that, download it (`hf download --repo-type "
            f"dataset {repo} --local-dir FOLDER`) and name its folder as source."
        ) from error


def is_hub(source: str, folder: Path | None = None) -> bool:
    """Whether a source is a Hub id (`owner/name`).

    Something at that path, also in `folder`, or the ending of a table says that it is not.
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


CheckFiles = Callable[[list[Path]], None]
"""Gets the relative paths of all files of a dataset, to refuse them before any is fetched."""


def fetch_tables(repo: str, revision: str, check: CheckFiles) -> Path:
    """The folder in the Hub's cache with the tables of a dataset; its name is their commit.

    Where the Hub is out of reach, the cache answers. Raises BadInput, or SourceUnavailable.
    """
    from huggingface_hub import HfApi, snapshot_download

    from tasks.models.sources.hub_errors import explain_hub_errors, is_refusal, retry_while_busy
    from tasks.models.sources.hub_source import CONNECT_SECONDS, verify_blob

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
            raise _unavailable(repo, error, transient=False) from error
        unreachable = error
    else:
        commit = str(info.sha)
        files = [file.rfilename for file in info.siblings or []]
        patterns = [escape(name) for name in files if Path(name).suffix.lower() in READERS]
        if not patterns:
            raise BadInput(
                f"{repo} holds no {', '.join(READERS)} file; its loading code is never run."
            )
        check(sorted(map(Path, files)))

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
        raise _unavailable(repo, reason, reason.transient) from error

    if commit and folder.name != commit:
        raise SourceUnavailable(
            f"The dataset {repo} was listed at commit {commit[:12]} and came at "
            f"{folder.name[:12]}: it changed meanwhile, or the Hub was too busy to say; run the "
            "command again."
        )

    for path in folder.rglob("*"):
        if path.is_file():
            verify_blob(path)

    return folder


def _unavailable(repo: str, reason: SourceUnavailable, transient: bool) -> SourceUnavailable:
    return SourceUnavailable(f"The dataset {repo}, which is no local path: {reason}", transient)
