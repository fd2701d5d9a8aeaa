"""The Hugging Face layout of a model folder: which of its files are needed, and what is refused; a
local folder in that layout as a source of weights; and the progress and the room of any download.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tasks.models.sizes import tensor_headers
from tasks.runtime.errors import BadInput, SourceUnavailable
from tasks.runtime.files import file_digest
from tasks.runtime.home import ask, expanded
from tasks.spec import FolderSource, digest_of, short_digest

# Called with the name of the download, the bytes done and the bytes in all. It may raise a
# TriageError to end it.
Progress = Callable[[str, int, int], None]

MODEL_TYPES = ("llama", "gemma3_text")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
LICENCES = ("LICENSE*", "NOTICE*")
# Weights as safetensors only: other formats of the Hub run code when they are read.
PATTERNS = (
    *TOKENIZER_FILES,
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    *LICENCES,
)


def check_room(name: str, required_bytes: int, folder: Path, remedy: str) -> None:
    """Raise BadInput if the disk of `folder` has less than `required_bytes` free. `name`: what needs
    the room; `remedy`: what chooses another folder.
    """
    free = shutil.disk_usage(folder).free
    if required_bytes > free:
        raise BadInput(
            f"{name} needs {required_bytes / 1e9:.1f} GB in {folder}, whose disk has "
            f"{free / 1e9:.1f} GB free; free some space, or {remedy} on another disk."
        )


def is_needed(name: str) -> bool:
    """True for the files that are fetched or copied."""
    return any(fnmatch(name, pattern) for pattern in PATTERNS)


def target_path(folder: Path, name: str) -> Path:
    """Path of a needed file: a licence text in `licences`, created here, others in the folder."""
    if not any(fnmatch(name, pattern) for pattern in LICENCES):
        return folder / name

    (folder / "licences").mkdir(exist_ok=True)
    return folder / "licences" / name


def refuse_incomplete(names: Collection[str], origin: str) -> None:
    """Raise BadInput if files of these names, those of `origin`, are no whole model."""
    if not any(fnmatch(name, "model*.safetensors") for name in names):
        raise BadInput(
            f"{origin} has no model*.safetensors weights; "
            "pickled weights (*.bin, *.pt) are never loaded."
        )
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise BadInput(f"{origin} has no {name}; name another repository or folder.")


def check_config(path: Path, origin: str) -> None:
    """Raise BadInput if the config.json of `origin` (a repository or folder) names an unsupported
    model class or quantised weights.
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"The config.json of {origin} cannot be read ({error}).") from error

    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise BadInput(
            f"{origin} is a model of the class {model_type!r}; "
            f"supported are {' and '.join(MODEL_TYPES)}."
        )
    if "quantization" in config or "quantization_config" in config:
        raise BadInput(f"{origin} is quantised already; name the unquantised weights.")
    scaling = config.get("rope_scaling") or {}
    if "dynamic" in (scaling.get("type"), scaling.get("rope_type")):
        raise BadInput(f"{origin} has dynamic rope_scaling, which training does not support.")
    if "rope_parameters" in config and "rope_theta" not in config:
        # mlx-lm would silently use its default base, and the model would be subtly wrong.
        raise BadInput(
            f"The config.json of {origin} gives its rotary base "
            "as rope_parameters only, which mlx-lm ignores."
        )


def weights_entries(folder: Path, origin: str) -> dict[str, Any]:
    """Of the weights that a model can be converted from: their format, data type, e.g. `bf16`, and
    the SHA-256 of their file or files. Raises BadInput where there are none.
    """
    check_config(folder / "config.json", origin)
    refuse_incomplete({path.name for path in folder.iterdir()}, origin)
    paths = sorted(folder.glob("model*.safetensors"))
    dtypes = {header["dtype"].lower() for path in paths for header in tensor_headers(path).values()}
    digests = [file_digest(path) for path in paths]
    return {
        "format": "safetensors",
        "original_precision": "/".join(sorted(dtypes)),
        "file_digest": digests[0] if len(digests) == 1 else digest_of(digests),
    }


def describe(source: FolderSource) -> str:
    return f"folder {source.path}"


def identity(source: FolderSource) -> str | None:
    """Digest of path, sizes and times, so that a changed folder is a new source; None if there is no
    such folder.
    """
    folder = expanded(source.path)
    if not ask(Path.is_dir, folder):
        return None

    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")  # as the Finder's .DS_Store
    ]
    return short_digest(
        {"kind": "folder", "path": str(folder.resolve()), "files": digest_of(files)}
    )


def fetch(source: FolderSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Copy what a model needs into `target`, and licence texts into `licences` below it.

    Raises BadInput if the folder holds no supported model, SourceUnavailable if there is none.
    """
    probe(source)
    folder = expanded(source.path)
    # A source folder of this project has its licence texts in `licences`.
    licences = [path for pattern in LICENCES for path in folder.glob(f"licences/{pattern}")]

    for path in sorted([*folder.iterdir(), *licences]):
        if path.is_file() and is_needed(path.name):
            shutil.copyfile(path, target_path(target, path.name))

    return {
        **weights_entries(target, str(folder)),
        "weights_source": describe(source),
        "source": {"kind": "folder", "path": str(folder.resolve())},
    }


def probe(source: FolderSource, patiently: bool = False) -> str:
    """`reachable`. Raises SourceUnavailable without such a folder, BadInput if it is no model."""
    folder = expanded(source.path)
    if not ask(Path.is_dir, folder):
        raise SourceUnavailable(f"there is no folder {folder}.", transient=False)
    if not (folder / "config.json").is_file():
        raise BadInput(
            f"The folder {folder} has no config.json; name a folder in the Hugging Face layout."
        )

    return "reachable"
