"""A local folder in the Hugging Face layout as a source of weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.models import hf_layout
from tasks.models.manifest import FetchedWeights, Origin
from tasks.models.sources.downloads import Progress
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.home import ask, expanded
from tasks.spec import FolderSource, digest_of, short_digest


def describe(source: FolderSource) -> str:
    """The source in words."""
    return f"folder {source.path}"


def identity(source: FolderSource) -> str | None:
    """Digest of path, sizes and times: a changed folder is a new source.

    None if there is no such folder.

    The weights are not read, so that it is quick.
    """
    folder = expanded(source.path)
    if not ask(Path.is_dir, folder):
        return None

    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return short_digest(
        {"kind": "folder", "path": str(folder.resolve()), "files": digest_of(files)}
    )


def fetch(source: FolderSource, target: Path, progress: Progress) -> FetchedWeights:
    """Copy what a model needs into `target`, and licence texts into `licences` below it.

    Raises BadInput if the folder does not hold a supported model, SourceUnavailable if there is no
    such folder.
    """
    probe(source)
    folder = expanded(source.path)
    # A source folder of this project has its licence texts in `licences`.
    licences = [
        path for pattern in hf_layout.LICENCES for path in folder.glob(f"licences/{pattern}")
    ]

    for path in sorted([*folder.iterdir(), *licences]):
        if path.is_file() and hf_layout.is_needed(path.name):
            shutil.copyfile(path, hf_layout.target_path(target, path.name))

    weights = hf_layout.check_weights(target, str(folder))
    return FetchedWeights(
        format="safetensors",
        original_precision=weights.precision,
        file_digest=weights.digest,
        weights_source=describe(source),
        origin=Origin.model_validate({"kind": "folder", "path": str(folder.resolve())}),
    )


def probe(source: FolderSource) -> str:
    """`reachable`.

    Raises SourceUnavailable if there is no such folder, BadInput if it is not a model.
    """
    folder = expanded(source.path)
    if not ask(Path.is_dir, folder):
        raise SourceUnavailable(f"there is no folder {folder}.", transient=False)
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"The folder {folder} has no config.json; name a folder in the Hugging Face layout."
        )

    return "reachable"
