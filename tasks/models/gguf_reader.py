"""An opened GGUF file and its metadata; one that is damaged or of an unknown architecture is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from tasks.runtime.errors import BadInput

REMEDY = (
    "list another source of this model, such as its Hub repository or a folder with safetensors"
)
# The gguf library has no error class for it.
_UNKNOWN_TYPE = re.compile(r"(\d+)\)? is not a valid GGMLQuantizationType")


@dataclass(frozen=True)
class Gguf:
    """An opened GGUF file; sentences name it by `where`, e.g. the package that it came in."""

    where: str
    reader: gguf.GGUFReader
    architecture: str

    @property
    def is_llama(self) -> bool:
        return self.architecture == "llama"

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value, e.g. `general.name`; arrays are lists."""
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def need(self, key: str) -> Any:
        """A metadata value that the file must have. Raises BadInput if it has not."""
        value = self.get(key)
        if value is None:
            raise BadInput(
                f"{self.where}: the GGUF file lacks the field {key}, "
                "so its model cannot be rebuilt."
            )
        return value

    def hyper_parameter(self, key: str) -> Any:
        """A hyper-parameter of the model, e.g. `block_count`.

        Raises BadInput if the file has none.
        """
        return self.need(f"{self.architecture}.{key}")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.hyper_parameter("attention.head_count"))

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return int(self.get(f"{self.architecture}.attention.head_count_kv", self.heads))


def open_gguf(path: Path, origin: str | None = None) -> Gguf:
    """Open a GGUF file.

    `origin` names it in sentences, else its path does.

    Raises BadInput if it is damaged, has a tensor type that the gguf library does not know, or if
    its architecture is neither llama nor gemma3.
    """
    file_name = origin or str(path)
    try:
        reader = gguf.GGUFReader(str(path))
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise BadInput(_unreadable(file_name, error)) from error

    field = reader.fields.get("general.architecture")
    architecture = str(field.contents()) if field else "none"
    if architecture not in ("llama", "gemma3"):
        raise BadInput(
            f"{file_name}: the GGUF architecture {architecture!r} "
            "is not supported; known are llama and gemma3."
        )

    return Gguf(file_name, reader, architecture)


def _unreadable(file_name: str, error: Exception) -> str:
    """The sentence for an error of the gguf library."""
    if unknown := _UNKNOWN_TYPE.search(str(error)):
        return (
            f"{file_name}: the GGUF file has a tensor of the type number "
            f"{unknown[1]}, which is not supported; {REMEDY}."
        )
    return f"{file_name} is not a readable GGUF file ({error}); {REMEDY}."


def precision_name(file: Gguf) -> str:
    """The precision the file was quantised to, e.g. `Q4_1` or `Q4_K_M`."""
    number = file.get("general.file_type")
    try:
        return gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        types = {t.tensor_type.name for t in file.reader.tensors if len(t.shape) > 1}
        return "/".join(sorted(types))
