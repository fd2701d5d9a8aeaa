"""The Hugging Face layout of a model folder: which of its files are needed, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tasks.models.stored_sizes import tensor_headers
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.spec import digest_of

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


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a folder: their data type, e.g.

    `bf16`, and the SHA-256 of their file or files.
    """

    precision: str
    digest: str


def is_needed(name: str) -> bool:
    """True for the files that are fetched or copied."""
    return _matches(name, PATTERNS)


def target_path(folder: Path, name: str) -> Path:
    """Path of a needed file: a licence text in `licences`, created here, others in the folder."""
    if not _matches(name, LICENCES):
        return folder / name

    (folder / "licences").mkdir(exist_ok=True)
    return folder / "licences" / name


def check_config(path: Path, origin: str) -> None:
    """Raise BadInput if a config.json names an unsupported model class or quantised weights.

    `origin` names the repository or folder in the sentence.
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
        raise BadInput(
            f"{origin} is quantised already; "
            "name the repository or folder of the unquantised weights."
        )
    if "rope_parameters" in config and "rope_theta" not in config:
        # mlx-lm would silently use its default base, and the model would be subtly wrong.
        raise BadInput(
            f"The config.json of {origin} gives its rotary base "
            "as rope_parameters only, which mlx-lm ignores."
        )


def check_weights(folder: Path, origin: str) -> StoredWeights:
    """The weights of a folder that a model can be converted from.

    Raises BadInput if it is not one.
    """
    check_config(folder / "config.json", origin)
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise BadInput(
            f"{origin} has no model*.safetensors weights; "
            "pickled weights (*.bin, *.pt) are never loaded."
        )
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(
            f"{origin} has no tokenizer.json, "
            "without which its tokenizer cannot be rebuilt exactly."
        )

    dtypes = sorted({header.dtype.lower() for path in paths for header in tensor_headers(path)})
    digests = [file_digest(path) for path in paths]
    return StoredWeights(
        precision="/".join(dtypes),
        digest=digests[0] if len(digests) == 1 else digest_of(digests),
    )


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the tokenizer files of a model folder."""
    return digest_of(
        {name: file_digest(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
    )


def prompt_kind(folder: Path) -> str:
    """`chat` if the tokenizer has a chat template, else `plain`."""
    if (folder / "chat_template.jinja").is_file():
        return "chat"

    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return "chat" if config.get("chat_template") else "plain"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
