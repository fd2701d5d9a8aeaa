"""What machines share: landing folders and finished adapters, sealed, in a mounted folder or at an
fsspec URL.

    TRIAGE_SHARED/landing/<id>          what completed: the first version stays
    TRIAGE_SHARED/failed/<id>           trainings that failed: the last version, until one completes
    TRIAGE_SHARED/experiments/<id>      an adapter, its curve and its summary

    .../<id>/<digest>/...               the files of one version
    .../<id>/manifest.json              names the version that counts

Nothing is renamed, since object stores cannot. Files come first, in a folder named by their
content, so that two machines never write into each other's; the manifest comes last, and the first
one stays. Folders are found by name, never by a listing, which may lag.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BadInput, BrokenFolder, Locked, NotShared, TriageError
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.files import write_atomic
from tasks.runtime.locks import locked, replacing
from tasks.runtime.store import (
    MANIFEST,
    ManifestDict,
    check_names,
    intact_manifest,
    read_manifest,
    temporary_folder,
    verify,
)

VARIABLE = "TRIAGE_SHARED"
READS = 3  # of what another machine may be writing at this moment
READ_SECONDS = 0.5
AT_ONCE = 8  # files that are copied side by side
LANDING = "landing"
FAILED = "failed"
EXPERIMENTS = "experiments"
MARK = ".shared.json"  # in a landing folder: where it was copied to
KINDS = ("training", "evaluation", "variant", "fidelity", "dataset")  # whose id is their content's


@dataclass(frozen=True)
class SharedFolder:
    """A place on a file system of fsspec. Every refusal of it is raised as NotShared."""

    fs: Any  # fsspec's AbstractFileSystem, which has no types
    root: str
    url: str  # without a password

    def put(self, folder: Path, name: str) -> ManifestDict:
        """Copy a sealed folder unless a version of it is there already; returns the manifest of the
        version that counts, which is the first that any machine has put there.
        """
        stored_manifest = self.manifest(name)
        if stored_manifest is not None:
            return stored_manifest

        manifest = verify(folder, deep=True)

        def copy(file: str) -> None:
            target = f"{self.root}/{name}/{_version(manifest)}/{file}"
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(folder / file), target)

        with self._refusals():
            _for_each(copy, manifest["files"])
            content = (folder / MANIFEST).read_bytes()
            path = f"{self.root}/{name}/{MANIFEST}"
            try:
                if "file" in self.fs.protocol:
                    with Path(path).open("xb") as file:  # fsspec looks first and writes then
                        file.write(content)
                else:
                    self.fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                faster = self.manifest(name)
                if faster is not None:
                    return faster
                self.fs.pipe_file(path, content)  # in place of a broken one

        return manifest

    def get(self, name: str, final: Path) -> bool:
        """Copy the version that counts to `final`, in place of whatever is there; False if there is
        none.

        Raises BrokenFolder if its files do not match its manifest, or one is missing. That version
        no longer counts then, so that a machine which has it, or makes it again, can put it there.
        """
        manifest = self.manifest(name)
        if manifest is None:
            return False

        place = f"{self.root}/{name}"
        with self._refusals(), contextlib.ExitStack() as stack:
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(final))

            def copy(file: str) -> None:
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(f"{place}/{_version(manifest)}/{file}", str(temporary / file))

            try:
                # Before a file is copied, whose name might lead out of the folder.
                check_names(manifest, f"{self.url}/{name}")
                _for_each(copy, manifest["files"])
                (temporary / MANIFEST).write_bytes(self.fs.cat_file(f"{place}/{MANIFEST}"))
                verify(temporary, deep=True)
            except (BrokenFolder, FileNotFoundError) as error:
                # Unless another version has taken its place, or the whole place is gone.
                if self.manifest(name) == manifest:
                    self.remove(f"{name}/{MANIFEST}")
                    raise BrokenFolder(
                        f"{self.url}/{name} is damaged ({error}); it no longer counts."
                    ) from error
                raise

            with replacing(final):
                shutil.rmtree(final, ignore_errors=True)
                temporary.replace(final)

        return True

    def manifest(self, name: str) -> ManifestDict | None:
        """The manifest of the version that counts; None if it is missing, or is still unreadable
        after a moment.
        """
        for _ in range(READS):
            with self._refusals():
                try:
                    value = json.loads(self.fs.cat_file(f"{self.root}/{name}/{MANIFEST}"))
                    return value if isinstance(value, dict) else None
                except FileNotFoundError:
                    return None
                except ValueError:  # another machine is writing it
                    time.sleep(READ_SECONDS)
        return None

    def remove(self, name: str) -> None:
        """Remove a folder with all its versions, or a file, if it is there."""
        with self._refusals(), contextlib.suppress(FileNotFoundError):
            self.fs.rm(f"{self.root}/{name}", recursive=True)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise NotShared for what the place, or the library that reads it, refuses."""
        try:
            yield
        except TriageError:
            raise
        except Exception as error:  # each library of an object store has errors of its own
            raise NotShared(
                f"The shared folder {self.url} cannot be used ({type(error).__name__}: {error}); check "
                "that it is mounted, has space and may be written. Nothing is lost: results stay on "
                "this machine, and are copied with its next experiment."
            ) from error


def shared_place() -> str:
    """What `TRIAGE_SHARED` is set to; empty where it is not."""
    return os.environ.get(VARIABLE, "").strip()


def shared_folder() -> SharedFolder | None:
    """The place that `TRIAGE_SHARED` names, or None. Raises BadInput where it names none."""
    url = shared_place()
    if not url:
        return None

    from fsspec.core import url_to_fs

    public_url = without_password(url)
    try:
        if "://" not in url:
            public_url = url = str(Path(url).expanduser().resolve())
        fs, root = url_to_fs(url)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        raise BadInput(
            f"{VARIABLE}={public_url} cannot be used ({error}); give a mounted folder, or a URL "
            "whose library is installed."
        ) from error

    return SharedFolder(fs, root.rstrip("/"), public_url)


def without_password(url: str) -> str:
    """A URL without the user and the password that it may hold: it stands in sentences and marks."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _for_each(copy: Callable[[str], None], files: Iterable[str]) -> None:
    """Copy files side by side, since each call may take seconds."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(copy, files))


def _version(manifest: ManifestDict) -> str:
    """The folder of a version. Raises BrokenFolder for a digest that is none: it is part of paths."""
    digest = str(manifest.get("digest"))
    if not re.fullmatch(r"[0-9a-f]{12,}", digest):
        raise BrokenFolder(f"A {MANIFEST} has the digest {digest[:20]!r}, which is none.")
    return digest[:12]


def share(shared: SharedFolder, folder: Path, is_failed: bool = False, look: bool = True) -> bool:
    """Copy a landing folder to the shared place, once; False if another machine's version is there,
    which stays. Raises NotShared.

    One that was copied before is copied again where it is gone since, being damaged; it is not
    looked for without `look`.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("kind") not in KINDS:
        return True

    name = f"{FAILED if is_failed else LANDING}/{folder.name}"
    mark = None
    with contextlib.suppress(OSError, ValueError):
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    if mark == {"url": shared.url} and not (look and shared.manifest(name) is None):
        return True

    if is_failed:
        shared.remove(name)
    if shared.put(folder, name)["digest"] != manifest["digest"]:
        return False

    # Last, so that a copy that was cut off is made again.
    write_atomic(folder / MARK, json.dumps({"url": shared.url}))
    return True


def fetch(shared: SharedFolder, id: str, landing: Path, place: str = LANDING) -> bool:
    """Bring the version that counts to `landing`, unless it is here, undamaged; whether it is here
    now. Raises NotShared, and BrokenFolder for a damaged one.

    `place`: LANDING or FAILED.
    """
    manifest = shared.manifest(f"{place}/{id}")
    if manifest is None:
        return False
    local_manifest = intact_manifest(landing / id, deep=True)
    if local_manifest is not None and local_manifest["digest"] == manifest["digest"]:
        return True
    if not shared.get(f"{place}/{id}", landing / id):
        return False

    write_atomic(landing / id / MARK, json.dumps({"url": shared.url}))
    return True


def bring_adapter(shared: SharedFolder, folder: Path, emit: Emit) -> bool:
    """Bring a finished training from the shared place, unless it is here; whether it was brought.

    One that is damaged is left out, with a warning, and one that another process of this home trains
    is left to it. Raises NotShared.
    """
    if intact_manifest(folder) is not None:
        return False
    try:
        with locked(folder):
            return shared.get(f"{EXPERIMENTS}/{folder.name}", folder)
    except BrokenFolder as error:
        emit(StepWarning(f"What another machine trained is not used: {error}"))
    except Locked:
        pass
    return False


def share_adapter(shared: SharedFolder, folder: Path) -> None:
    """Copy a finished training to the shared place, unless one is there. Raises NotShared."""
    if intact_manifest(folder) is not None:
        shared.put(folder, f"{EXPERIMENTS}/{folder.name}")
