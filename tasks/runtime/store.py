"""Folders that are either complete or absent.

A folder is built under a temporary name, gets its `manifest.json` last, and is renamed into place.
The manifest lists the SHA-256 and size of each file and carries a digest of itself; its presence
means "complete". Readers verify, and a broken folder is rebuilt, never trusted. The half-built
folder of a killed process is removed by the next one that needs the folder, and by the next sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.runtime.errors import BadInput, BrokenFolder, disk_error
from tasks.runtime.files import file_digest, write_atomic
from tasks.runtime.locks import replacing
from tasks.runtime.private import close_to_others, folder_mode, make_parent
from tasks.runtime.temporary import remove_abandoned, temporary_folder
from tasks.spec import digest_of

MANIFEST = "manifest.json"
CHECKED = ".checked.json"
SEAL = frozenset({"files", "created", "digest", "check"})  # entries that `seal` adds

# The JSON of a manifest. Read it into a class with tasks/runtime/manifest.py.
ManifestDict = dict[str, Any]


def seal(folder: Path, extra: ManifestDict, files: list[str] | None = None) -> ManifestDict:
    """Write the manifest of `folder` (all files below it, or the named ones) and return it.

    `extra` is stored beside the file list: versions, seed, timings, anything that the step records.

    Raises BrokenFolder where there is no folder any more.
    """
    if not folder.is_dir():
        raise BrokenFolder(f"{folder} was removed while it was filled; run the command again.")

    names = files if files is not None else _files_below(folder)
    entries = {name: _file_entry(folder / name) for name in sorted(names)}
    manifest: ManifestDict = {
        **extra,
        "files": entries,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    manifest["digest"] = content_digest(manifest)
    # As its readers will see it: keys are text, tuples are lists.
    manifest = json.loads(json.dumps(manifest))
    manifest["check"] = _check_digest(manifest)

    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomic(folder / MANIFEST, text)
    return manifest


def _file_entry(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "size": path.stat().st_size}


def _files_below(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    ]


def content_digest(manifest: ManifestDict) -> str:
    """Digest of a manifest's file list: the same bytes have the same digest, whenever they were
    written.
    """
    return digest_of({name: entry["sha256"] for name, entry in manifest["files"].items()})


def _check_digest(manifest: ManifestDict) -> str:
    """Digest of the manifest itself, but for the entry `check` that holds it."""
    entries = {key: value for key, value in manifest.items() if key != "check"}
    text = json.dumps(entries, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> ManifestDict | None:
    """The manifest of a complete folder, unchecked, or None if there is none yet.

    Raises BrokenFolder if it is not a JSON object.
    """
    path = folder / MANIFEST
    try:
        manifest: ManifestDict = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise BadInput(
            f"{path} may not be read ({error.strerror}); choose another folder with TRIAGE_HOME."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenFolder(
            f"{path} is not readable JSON ({error}); delete the folder to rebuild it."
        ) from error

    if not isinstance(manifest, dict):
        raise BrokenFolder(f"{path} is not a manifest; delete the folder to rebuild it.")
    return manifest


def verify(folder: Path, deep: bool = True) -> ManifestDict:
    """Check a folder against its manifest and return the manifest.

    `deep` compares SHA-256 digests; otherwise only presence and size, which is enough after a first
    full check. Raises BrokenFolder with the name of the first file that does not match.
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
    """A name for this process and the children it starts: they share the record of verified
    folders.
    """
    return os.environ.setdefault("TRIAGE_CHAIN", secrets.token_hex(8))


def verified_manifest(folder: Path) -> ManifestDict | None:
    """Like `intact_manifest(folder, deep=True)`, but reads the files only on a process chain's first use
    of them.

    Afterwards sizes, modification times and the manifest's digest are enough: for folders of
    gigabytes.
    """
    manifest = intact_manifest(folder)
    if manifest is None:
        return None

    record = folder / CHECKED
    fingerprint = _fingerprint(folder, manifest)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(record.read_text(encoding="utf-8")) == fingerprint:
            return manifest

    manifest = intact_manifest(folder, deep=True)
    if manifest is not None:
        # A folder that may not be written to is verified every time.
        with contextlib.suppress(Exception):
            write_atomic(record, json.dumps(fingerprint))

    return manifest


def verify_once(folder: Path) -> None:
    """Like `verify`, but reads the files only on a process chain's first use of them.

    Raises BrokenFolder with the name of the first file that does not match.
    """
    if verified_manifest(folder) is None:
        verify(folder)


def _fingerprint(folder: Path, manifest: ManifestDict) -> dict[str, Any]:
    """The state of a folder in which this process chain verified it."""
    stats = {name: (folder / name).stat() for name in manifest["files"]}
    times = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return {"chain": process_chain(), "check": manifest["check"], "files": times}


def build_folder(
    final: Path,
    build: Callable[[Path], ManifestDict],
    single_check: bool = False,
    private: bool = False,
) -> ManifestDict:
    """Return the manifest of `final`, building the folder first if it is not complete.

    `build(temporary)` fills a temporary folder and returns the manifest's extra entries. Nothing
    half-built stays: the temporary folder is removed on any error, and a broken `final` is
    replaced. `single_check`: see `verified_manifest`. `private`: only its owner may read it.
    """
    if private:
        close_to_others(final)

    manifest = verified_manifest(final) if single_check else intact_manifest(final, deep=True)
    # Also beside a complete folder: a leftover may have been too young to go before.
    remove_abandoned(final)
    if manifest is not None:
        mark_used(final)
        return manifest

    try:
        make_parent(final, private)
        with temporary_folder(final, folder_mode(private)) as temporary:
            manifest = seal(temporary, build(temporary))
            if private:
                # Before it has its name: its files were made with the user's umask.
                close_to_others(temporary)
            return _put_in_place(temporary, final, manifest)
    except OSError as error:
        raise disk_error(error, final) from error


def _put_in_place(temporary: Path, final: Path, manifest: ManifestDict) -> ManifestDict:
    """Rename a sealed folder to `final`; returns the manifest of the folder that is there now."""
    with replacing(final):
        faster = intact_manifest(final, deep=True)
        if faster is not None:
            # Another process has built the same folder in the meantime.
            return faster
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)
    return manifest
