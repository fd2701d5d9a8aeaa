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
class Header:
    """One stored tensor: shape as stored (quantised weights are packed in 32-bit words) and bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def tensor_headers(path: Path) -> Iterator[Header]:
    """Headers of one safetensors file (https://huggingface.co/docs/safetensors). Raises BrokenFolder if it is damaged."""
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
    for name, entry in entries.items():
        start, end = entry["data_offsets"]
        yield Header(name, entry["dtype"], tuple(entry["shape"]), end - start)


def stored_sizes(folder: Path, bits: int | None = None) -> dict[str, Any]:
    """stored_bytes, bytes_by_part, parameters and bits_per_weight of a model folder. `bits` of a quantised one.

    Bytes are those of all tensors, scales and biases included, file headers not. Parameters are the model's own:
    a packed weight counts its 32 / bits values per word, scales and biases count nothing.
    """
    headers = [
        h for path in sorted(folder.glob("model*.safetensors")) for h in tensor_headers(path)
    ]
    quantised = {h.name.removesuffix(".scales") for h in headers if h.name.endswith(".scales")}
    by_part = dict.fromkeys(PARTS, 0)
    parameters = 0
    for header in headers:
        by_part[part(header.name)] += header.size
        parameters += _parameters(header, quantised, bits)
    total = sum(by_part.values())
    return {
        "stored_bytes": total, "bytes_by_part": by_part, "parameters": parameters,
        "bits_per_weight": total * 8 / parameters if parameters else 0.0,
    }  # fmt: skip


def part(name: str) -> str:
    """Which part of the model a tensor belongs to: embedding (and head), norms or projections."""
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embedding"
    return "norms" if "norm" in name else "projections"


def _parameters(header: Header, quantised: set[str], bits: int | None) -> int:
    module, _, kind = header.name.rpartition(".")
    count = math.prod(header.shape)
    if module not in quantised:
        return count
    if bits is None:
        raise BrokenFolder(
            f"The tensor {header.name} is quantised, but the folder's manifest names no bits."
        )
    return count * 32 // bits if kind == "weight" else 0
