"""A local folder in the Hugging Face layout as a source of weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasks.models import layout
from tasks.models.transfer import Progress
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.spec import FolderSource, digest_of


def describe(source: FolderSource) -> str:
    return f"folder {source.path}"


def key(source: FolderSource) -> dict[str, Any] | None:
    """Identity without reading the weights: path, sizes and times, so that a changed folder is a new source."""
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        return None
    files = [
        (p.name, p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(folder.iterdir())
        if p.is_file()
    ]
    return {"kind": "folder", "path": str(folder.resolve()), "files": digest_of(files)}


def fill(source: FolderSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Copy what a model needs into `target`, and licence texts into `licences` there.

    Raises BadInput if the folder does not hold a model we know.
    """
    probe(source)
    origin = Path(source.path).expanduser()
    ours = (
        text for pattern in layout.LICENCES for text in origin.glob(f"licences/{pattern}")
    )  # as we keep them
    for path in sorted([*origin.iterdir(), *ours]):
        if path.is_file() and layout.wanted(path.name):
            shutil.copyfile(path, layout.place(target, path.name))
    facts = layout.check(target, str(origin))
    return {
        **facts,
        "weights_source": describe(source),
        "source": {"kind": "folder", "path": str(origin.resolve())},
    }


def probe(source: FolderSource) -> str:
    """`reachable`. Raises SourceUnavailable if there is no such folder, BadInput if it is not a model."""
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise SourceUnavailable(f"there is no folder {folder}.", transient=False)
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"The folder {folder} has no config.json; name a folder in the Hugging Face layout."
        )
    return "reachable"
