"""Folders that are either complete or not there.

A folder is built under a temporary name, gets its `manifest.json` last, and is renamed into place. The manifest
lists the SHA-256 and size of each file and carries a digest of itself; its presence means "complete". Readers verify,
and a broken folder is rebuilt, never trusted. What a killed process left half-built is removed by the next builder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BrokenFolder, Locked, disk_error
from tasks.runtime.home import existing_home as existing_home
from tasks.runtime.home import home as home
from tasks.spec import digest_of

MANIFEST = "manifest.json"
CHECKED = ".checked.json"
ABANDONED_SECONDS = 60.0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of our own making with one line of JSON each."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path) from error


def seal(folder: Path, extra: dict[str, Any], files: list[str] | None = None) -> dict[str, Any]:
    """Write the manifest of `folder` (all files below it, or those named) and return it.

    `extra` is stored beside the file list: versions, seed, timings, whatever the step wants to remember.
    """
    names = files if files is not None else _files_below(folder)
    listed = {
        n: {"sha256": file_digest(folder / n), "size": (folder / n).stat().st_size}
        for n in sorted(names)
    }
    manifest: dict[str, Any] = {
        **extra,
        "files": listed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    manifest["digest"] = content_digest(manifest)
    manifest = json.loads(
        json.dumps(manifest)
    )  # as its readers will see it: keys are text, tuples are lists
    manifest["check"] = _own_digest(manifest)
    write_atomic(
        folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    )
    return manifest


def content_digest(manifest: dict[str, Any]) -> str:
    """Digest of a manifest's file list: the same bytes give the same digest, whenever they were made."""
    return digest_of({name: entry["sha256"] for name, entry in manifest["files"].items()})


def _own_digest(manifest: dict[str, Any]) -> str:
    text = json.dumps(
        {key: value for key, value in manifest.items() if key != "check"}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete folder, or None where there is none yet."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BrokenFolder(
            f"{folder / MANIFEST} is not readable JSON ({error}); delete the folder to rebuild it."
        ) from error
    if not isinstance(manifest, dict):
        raise BrokenFolder(
            f"{folder / MANIFEST} is not a manifest; delete the folder to rebuild it."
        )
    return manifest


def verify(folder: Path, deep: bool = True) -> dict[str, Any]:
    """Check a folder against its manifest and return the manifest.

    `deep` compares SHA-256 digests; otherwise only presence and size, which is enough after a first full check.
    Raises BrokenFolder with the name of the first file that does not match.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise BrokenFolder(
            f"{folder} has no {MANIFEST}: it was never completed and must be rebuilt."
        )
    if manifest.get("check") != _own_digest(manifest):
        raise BrokenFolder(
            f"{folder / MANIFEST} does not match its own digest; the folder must be rebuilt."
        )
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


def complete(folder: Path, deep: bool = False) -> dict[str, Any] | None:
    """The manifest if the folder is complete and intact, else None."""
    try:
        return verify(folder, deep=deep)
    except BrokenFolder:
        return None


def process_chain() -> str:
    """A name for this process and the children it starts: they share what one of them has checked."""
    return os.environ.setdefault("TRIAGE_CHAIN", secrets.token_hex(8))


def complete_once(folder: Path) -> dict[str, Any] | None:
    """Like `complete(folder, deep=True)`, but reads the files only on a process chain's first use of them.

    Afterwards sizes, modification times and the manifest's digest are enough: for folders of gigabytes.
    """
    if (manifest := complete(folder)) is None:
        return None
    note, seen = folder / CHECKED, _seen(folder, manifest)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(note.read_text(encoding="utf-8")) == seen:
            return manifest
    if (manifest := complete(folder, deep=True)) is not None:
        with contextlib.suppress(
            Exception
        ):  # a folder that may not be written to is checked every time
            write_atomic(note, json.dumps(seen))
    return manifest


def _seen(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    stats = {name: (folder / name).stat() for name in manifest["files"]}
    times = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return {"chain": process_chain(), "check": manifest["check"], "files": times}


def build_folder(
    final: Path, build: Callable[[Path], dict[str, Any]], once: bool = False
) -> dict[str, Any]:
    """Return the manifest of `final`, building the folder first if it is not complete.

    `build(temporary)` fills a temporary folder and returns the manifest's extra entries. Nothing half-made stays:
    the temporary folder is removed on any error, and a broken `final` is replaced. `once`: see `complete_once`.
    """
    if (manifest := complete_once(final) if once else complete(final, deep=True)) is not None:
        return manifest
    temporary = final.with_name(f"{_temporary_prefix(final)}{secrets.token_hex(6)}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final)
        temporary.mkdir()
        with _held(temporary):
            manifest = seal(temporary, build(temporary))
            with replacing(final):
                if (other := complete(final, deep=True)) is not None:  # another process was faster
                    return other
                if final.exists():
                    shutil.rmtree(final)
                temporary.replace(final)
    except OSError as error:
        raise disk_error(error, final) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _temporary_prefix(final: Path) -> str:
    return f".tmp-{final.name}-"


@contextlib.contextmanager
def replacing(final: Path) -> Iterator[None]:
    """Look at a folder, remove it or put another in its place while nobody else does; waits for whoever is at it.

    The lock is that of the folder above, which stays: between a look and a removal another builder's folder may appear.
    """
    with _flock(final.parent, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a temporary folder itself, so that others can tell that its builder is alive."""
    with _flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextlib.contextmanager
def _flock(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(
            OSError
        ):  # a file system without locks keeps its leftovers, and its races
            fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(final: Path) -> None:
    """Delete what killed builders of `final` left. Young folders are spared: their builder may not hold them yet."""
    for left in final.parent.iterdir():
        if not left.name.startswith(_temporary_prefix(final)):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(left)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock for `folder`; raises Locked if another process has it, after `wait` seconds. Freed when the
    process dies."""
    path = folder.parent / f".{folder.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError as error:
        raise disk_error(error, path) from error
    with handle:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"Another process is working on {folder}; wait for it or stop it."
                    ) from error
            time.sleep(0.02)
        yield


def _files_below(folder: Path) -> list[str]:
    return [
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != MANIFEST
    ]
