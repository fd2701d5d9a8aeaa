"""Exact sizes of stored models, from the headers of their safetensors files: nothing is loaded."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.runtime.errors import BrokenFolder

PARTS = ("embedding", "projections", "norms")


@dataclass(frozen=True)
class ModelSizes:
    """Bytes of a model's tensors by part (see PARTS), and its number of parameters.

    Scales and biases of quantised weights count as bytes, and not as parameters; file headers are
    left out.
    """

    bytes_by_part: dict[str, int]
    parameters: int

    @property
    def stored_bytes(self) -> int:
        return sum(self.bytes_by_part.values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each parameter; 0 for a model without any."""
        return self.stored_bytes * 8 / self.parameters if self.parameters else 0.0

    def manifest_entries(self) -> dict[str, Any]:
        """The sizes as a variant's manifest holds them."""
        return {
            "stored_bytes": self.stored_bytes,
            "bytes_by_part": self.bytes_by_part,
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
        }


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor: bytes, and shape as stored (quantised weights are packed in words)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def tensor_headers(path: Path) -> Iterator[TensorHeader]:
    """Headers of one safetensors file (https://huggingface.co/docs/safetensors).

    Raises BrokenFolder if it is damaged.
    """
    for name, entry in _read_header(path).items():
        start, end = entry["data_offsets"]
        yield TensorHeader(name, entry["dtype"], tuple(entry["shape"]), end - start)


def stored_sizes(folder: Path, group_size: int | None = None) -> ModelSizes:
    """Sizes of a model folder. `group_size`: quantised values that
    share a scale, None for bfloat16.

    Raises BrokenFolder if it holds quantised weights and `group_size` is None.
    """
    headers = [
        header
        for path in sorted(folder.glob("model*.safetensors"))
        for header in tensor_headers(path)
    ]
    quantised = {
        header.name.removesuffix(".scales") for header in headers if header.name.endswith(".scales")
    }

    bytes_by_part = dict.fromkeys(PARTS, 0)
    for header in headers:
        bytes_by_part[part(header.name)] += header.size

    parameters = sum(_parameters(header, quantised, group_size) for header in headers)

    return ModelSizes(bytes_by_part, parameters)


def part(name: str) -> str:
    """Which of PARTS a tensor belongs to; the head counts as embedding."""
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embedding"
    return "norms" if "norm" in name else "projections"


def _read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: an entry for each tensor."""
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            entries: dict[str, Any] = json.loads(handle.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise BrokenFolder(
            f"{path} is not a readable safetensors file ({error}); it must be rebuilt."
        ) from error

    entries.pop("__metadata__", None)
    return entries


def _parameters(header: TensorHeader, quantised: set[str], group_size: int | None) -> int:
    """The model's parameters in one tensor; those of a quantised matrix are counted by its scales,
    of which each has `group_size`, whatever the bits of a value are.
    """
    module, _, kind = header.name.rpartition(".")
    values = math.prod(header.shape)
    if module not in quantised:
        return values

    if group_size is None:
        raise BrokenFolder(
            f"The tensor {header.name} is quantised, but the folder's manifest names no group size."
        )

    return values * group_size if kind == "scales" else 0
