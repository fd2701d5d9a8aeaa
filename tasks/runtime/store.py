"""Folders that are either complete or absent.

A folder is built under a temporary name, gets its `manifest.json` last, and is renamed into place.
The manifest lists the SHA-256 and size of each file and carries a digest of itself; its presence
means "complete". Readers verify, and a broken folder is rebuilt, never trusted. The half-built
folder of a killed process is removed by the next one that needs the folder, and by the next sweep.

A folder that is to go is renamed first, so that an interrupted removal is found again, and never
while something works in the home.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.runtime.errors import BadInput, BrokenFolder, Locked, disk_error
from tasks.runtime.files import file_digest, write_atomic
from tasks.runtime.locks import is_held, locked, locked_folder, remove_abandoned, replacing
from tasks.spec import digest_of

MANIFEST = "manifest.json"
CHECKED = ".checked.json"
CHAIN = "TRIAGE_CHAIN"
SEAL = frozenset({"files", "created", "digest", "check"})  # entries that `seal` adds
PREFIX = ".tmp-"
# Where temporary folders may lie in a home: of models, cases, landing folders and the like; of the
# scores and checkpoints of an experiment.
PLACES = (f"*/{PREFIX}*", f"experiments/*/*/{PREFIX}*")
ASIDE = ".forgotten-"
LOCKED = ("experiments", "landing")  # whose folders have a lock that is held while they are made
REMOVAL_SECONDS = 5.0  # to wait for a lock

ManifestDict = dict[str, Any]  # the JSON of a manifest


class Manifest(BaseModel):
    """What every manifest holds, parsed once: `digest`, the digest of the folder's content.

    A subclass per kind of folder names what it needs; other keys are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str

    @classmethod
    def read(cls, folder: Path, deep: bool = False) -> Self:
        """The manifest of a verified folder. Raises BrokenFolder, also if it lacks a field."""
        return cls.parse(verify(folder, deep=deep), folder)

    @classmethod
    def read_if_complete(cls, folder: Path, deep: bool = False) -> Self | None:
        """The manifest of an intact folder, else None. Raises BrokenFolder if it lacks a field."""
        manifest = intact_manifest(folder, deep=deep)
        return None if manifest is None else cls.parse(manifest, folder)

    @classmethod
    def parse(cls, values: dict[str, Any], folder: Path) -> Self:
        """This class from the verified manifest of `folder`, which the error names."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise BrokenFolder(
                f"{folder / MANIFEST}: {key}: {problem['msg']}; delete the folder to rebuild it."
            ) from error


def seal(folder: Path, extra: ManifestDict, files: list[str] | None = None) -> ManifestDict:
    """Write the manifest of `folder` (all files below it, or the named ones) and return it; `extra`,
    what the step records, is stored beside the file list.

    Raises BrokenFolder where the folder has been removed.
    """
    if not folder.is_dir():
        raise BrokenFolder(f"{folder} was removed while it was filled; run the command again.")

    if files is None:
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        files = [path.relative_to(folder).as_posix() for path in paths]
    entries = {
        name: {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
        for name in sorted(files)
    }
    manifest: ManifestDict = {
        **extra,
        "files": entries,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # Of the files alone: the same bytes have the same digest, whenever they were written.
    manifest["digest"] = digest_of({name: entry["sha256"] for name, entry in entries.items()})
    # As its readers will see it: keys are text, tuples are lists.
    manifest = json.loads(json.dumps(manifest))
    manifest["check"] = _check_digest(manifest)

    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomic(folder / MANIFEST, text)
    return manifest


def _check_digest(manifest: ManifestDict) -> str:
    """Digest of the manifest itself, but for the entry `check` that holds it."""
    entries = {key: value for key, value in manifest.items() if key != "check"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> ManifestDict | None:
    """The manifest of a folder, unchecked, or None. Raises BrokenFolder if it is no JSON object."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise BadInput(
            f"{path} may not be read ({error.strerror}); choose another folder with TRIAGE_HOME."
        ) from error
    except ValueError:
        manifest = None

    if not isinstance(manifest, dict):
        raise BrokenFolder(f"{path} is not a manifest; delete the folder to rebuild it.")
    return manifest


def verify(folder: Path, deep: bool = True) -> ManifestDict:
    """Check a folder against its manifest, which is returned: `deep` compares SHA-256 digests, else
    only presence and size. Raises BrokenFolder with the name of the first file that does not match.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise BrokenFolder(
            f"{folder} has no {MANIFEST}: it was never completed and must be rebuilt."
        )
    if manifest.get("check") != _check_digest(manifest):
        raise BrokenFolder(
            f"{folder / MANIFEST} does not match its own digest; the folder must be rebuilt."
        )

    check_names(manifest, folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["size"]:
            raise BrokenFolder(
                f"{path} is missing or has the wrong size; {folder} must be rebuilt."
            )
        if deep and file_digest(path) != entry["sha256"]:
            raise BrokenFolder(
                f"{path} does not have the digest of its manifest; {folder} must be rebuilt."
            )

    return manifest


def check_names(manifest: ManifestDict, place: Path | str) -> None:
    """Raise BrokenFolder where the manifest of a folder at `place`, which another machine or person
    may have written, names a file outside it.
    """
    for name in manifest["files"]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise BrokenFolder(f"The {MANIFEST} of {place} names a file outside it: {name}.")


def intact_manifest(folder: Path, deep: bool = False) -> ManifestDict | None:
    """The manifest of a folder that is complete and intact, else None."""
    try:
        return verify(folder, deep=deep)
    except BrokenFolder:
        return None


def mark_used(folder: Path) -> None:
    """Note in a folder's time of change that it is used, by which `triage clean` goes."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def process_chain() -> str:
    """A name of this process and the children it starts."""
    return os.environ.setdefault(CHAIN, secrets.token_hex(8))


def verified_manifest(folder: Path) -> ManifestDict | None:
    """Like `intact_manifest(folder, deep=True)`, but compares digests only on the first use by this
    process and the children it starts; afterwards sizes and modification times are enough. For
    folders of gigabytes.
    """
    manifest = intact_manifest(folder)
    if manifest is None:
        return None

    record = folder / CHECKED
    stats = {name: (folder / name).stat() for name in manifest["files"]}
    times = {name: [status.st_size, status.st_mtime_ns] for name, status in stats.items()}
    fingerprint = {"chain": process_chain(), "check": manifest["check"], "files": times}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(record.read_text(encoding="utf-8")) == fingerprint:
            return manifest

    manifest = intact_manifest(folder, deep=True)
    if manifest is not None:
        # A folder that may not be written to is verified every time.
        with contextlib.suppress(Exception):
            write_atomic(record, json.dumps(fingerprint))
    return manifest


def build_folder(
    final: Path, build: Callable[[Path], ManifestDict], private: bool = False
) -> ManifestDict:
    """Return the manifest of `final`, building the folder first unless it is intact.

    `build(temporary)` fills a temporary folder, which an error removes, and returns the manifest's
    extra entries. `private`: only the user may enter the folder that holds `final`.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if private:
            with contextlib.suppress(OSError):  # a disk without permissions
                final.parent.chmod(0o700)

        manifest = intact_manifest(final, deep=True)
        if manifest is not None:
            mark_used(final)
            return manifest

        with temporary_folder(final) as temporary:
            manifest = seal(temporary, build(temporary))
            with replacing(final):
                faster = intact_manifest(final, deep=True)
                if faster is not None:
                    # Another process has built the same folder in the meantime.
                    return faster
                if final.exists():
                    shutil.rmtree(final)
                temporary.replace(final)
            return manifest
    except OSError as error:
        raise disk_error(error, final) from error


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """A new folder beside `final`, to be filled and renamed to it; what was not renamed is removed,
    also of killed processes.
    """
    remove_abandoned(final.parent, f"{PREFIX}{escape(final.name)}-*")
    folder = final.with_name(f"{PREFIX}{final.name}-{secrets.token_hex(6)}")
    try:
        folder.mkdir()
        # So that other processes see that its builder is alive; who looks holds it for an instant.
        with locked_folder(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_while_working(root: Path) -> None:
    """Raise Locked if a process holds a lock in a home: it trains, scores, prepares, loads, or
    answers with a model of it.
    """
    for pattern in ("*/.*.lock", *PLACES):
        for path in root.glob(pattern):
            if is_held(path):
                raise Locked(
                    f"Another process is working in {root} ({path.parent.name}/"
                    f"{path.name.strip('.').removesuffix('.lock')}); wait for it or stop it, then "
                    "run the same command."
                )


def remove(folders: Collection[Path]) -> None:
    """Remove folders. Raises Locked, and removes none, if another process makes one of them."""
    with contextlib.ExitStack() as stack:
        for folder in folders:
            if folder.parent.name in LOCKED:
                stack.enter_context(locked(folder, REMOVAL_SECONDS))
        # All are renamed before the first is removed, so that what an interruption leaves is found
        # again.
        asides = []
        for folder in folders:
            aside = folder if folder.name.startswith(ASIDE) else aside_of(folder)
            if aside != folder:
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            asides.append(aside)
        for aside in asides:
            if aside.exists():  # one that lay in another one, or had its name, is gone by now
                shutil.rmtree(aside)


def kept_passes(scores: Path) -> Path:
    """Where dropout passes are kept until the folder `scores` is complete."""
    return scores.with_name(f"{scores.name}.passes")


def aside_of(folder: Path) -> Path:
    """What a folder that is to be removed is renamed to."""
    return folder.with_name(f"{ASIDE}{folder.name}")


def leftovers(root: Path) -> list[Path]:
    """What an interrupted removal left in a home."""
    places = (f"*/{ASIDE}*", f"experiments/*/scores/{ASIDE}*")
    return sorted(path for place in places for path in root.glob(place))


def bytes_below(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(one.st_size for one in status_below(folder) if not stat.S_ISDIR(one.st_mode))


def status_below(folder: Path) -> Iterator[os.stat_result]:
    """The status of a folder and of all that is below; what a running sweep removes meanwhile is
    left out.
    """
    for parent, _, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent) / name for name in files)):
            with contextlib.suppress(FileNotFoundError):
                yield path.lstat()
