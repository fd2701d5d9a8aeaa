"""What a model folder in the Hugging Face layout must hold, and what of it we take."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tasks.models.stored_sizes import tensor_headers
from tasks.runtime.errors import BadInput
from tasks.runtime.store import file_digest
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


def wanted(name: str) -> bool:
    """True for the files that are fetched or copied."""
    return any(fnmatch(name, pattern) for pattern in PATTERNS)


def place(folder: Path, name: str) -> Path:
    """Where a wanted file goes: a licence text into `licences`, made here, and all else into the folder itself."""
    if not any(fnmatch(name, pattern) for pattern in LICENCES):
        return folder / name
    (folder / "licences").mkdir(exist_ok=True)
    return folder / "licences" / name


def check_config(path: Path, where: str) -> dict[str, Any]:
    """Read `config.json`. Raises BadInput if its model class is not supported or its weights are quantised already."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"The config.json of {where} cannot be read ({error}).") from error
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise BadInput(
            f"{where} is a model of the class {kind!r}; supported are {' and '.join(MODEL_TYPES)}."
        )
    if "quantization" in config or "quantization_config" in config:
        raise BadInput(
            f"{where} is quantised already; name the repository or folder of the unquantised weights."
        )
    if "rope_parameters" in config and "rope_theta" not in config:
        # mlx-lm would fall back to its default base without a word, and the model would be subtly wrong.
        raise BadInput(
            f"The config.json of {where} gives its rotary base as rope_parameters only, which mlx-lm ignores."
        )
    return config


def check(folder: Path, where: str) -> dict[str, Any]:
    """Check a filled folder and return format, original precision and digest of its weights. Raises BadInput."""
    check_config(folder / "config.json", where)
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise BadInput(
            f"{where} has no model*.safetensors weights; pickled weights (*.bin, *.pt) are never loaded."
        )
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(
            f"{where} has no tokenizer.json, without which its tokenizer cannot be rebuilt exactly."
        )
    kinds = sorted({header.dtype.lower() for path in weights for header in tensor_headers(path)})
    digests = [file_digest(path) for path in weights]
    return {
        "format": "safetensors", "original_precision": "/".join(kinds), "random_weights": False,
        "file_digest": digests[0] if len(digests) == 1 else digest_of(digests),
    }  # fmt: skip


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the tokenizer files of a model folder."""
    return digest_of(
        {name: file_digest(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
    )


def prompt_kind(folder: Path) -> str:
    """`chat` if the tokenizer brings a chat template, else `plain`."""
    if (folder / "chat_template.jinja").is_file():
        return "chat"
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return "chat" if config.get("chat_template") else "plain"
