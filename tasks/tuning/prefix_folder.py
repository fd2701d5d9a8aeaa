"""The folder of a stored prefix: its key, whether it is complete, and its arrays.

<home>/prefixes/<key>/
    leading.npy     (P, D)
    own.npy         (sum of own lengths, D)
    starts.npy      where each row begins in own.npy
    manifest.json
"""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.nn as nn
import numpy as np

from tasks.runtime.backend import backend, versions
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.locks import replacing
from tasks.runtime.store import ManifestDict, verified_manifest
from tasks.spec import ENGINE_VERSION, short_digest
from tasks.tuning.architecture import Stack
from tasks.tuning.batches import EncodedCases
from tasks.tuning.frozen_prefix import Prefix


def prefix_key(stack: Stack, cases: EncodedCases, boundary: int, variant: str) -> str:
    """Digest of everything that decides the numbers.

    Packed bfloat16 and unpacked float32 weights of one variant give different ones.
    """
    packed = any(
        isinstance(module, nn.QuantizedLinear)
        for layer in stack.layers
        for module in layer.modules()
    )
    return short_digest(
        {
            "compute_dtype": str(stack.dtype),
            "packed": packed,
            **backend().id_ingredients,
            "variant": variant,
            "boundary": boundary,
            "dtype": str(stack.dtype).removeprefix("mlx.core."),
            "versions": versions(),
            "engine": ENGINE_VERSION,
            "rows": cases.rows_digest,
            "leading": cases.leading,
        }
    )


def is_stored(folder: Path, key: str, emit: Emit | None) -> bool:
    """Whether a stored prefix is complete and holds what its name promises.

    Else it is removed, with a warning.
    """
    if _has_key(verified_manifest(folder), key):
        return True
    if not folder.exists():
        return False

    with replacing(folder):
        manifest = verified_manifest(folder)
        # Another process may have just put it there.
        if _has_key(manifest, key):
            return True
        if folder.exists():
            foreign = "holds another model's activations, or another boundary's or format's"
            problem = "is damaged" if manifest is None else foreign
            if emit:
                emit(StepWarning(f"The frozen prefix {folder} {problem}; recomputing it."))
            shutil.rmtree(folder)

    return False


def _has_key(manifest: ManifestDict | None, key: str) -> bool:
    return manifest is not None and manifest.get("key") == key


def load_prefix(stack: Stack, cases: EncodedCases, boundary: int, folder: Path) -> Prefix:
    """The prefix whose arrays lie in `folder`, mapped and not read yet."""
    arrays = [
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("leading", "own", "starts")
    ]
    return Prefix(stack, cases, boundary, *arrays)


def nearest_stored(
    stack: Stack,
    cases: EncodedCases,
    boundary: int,
    prefixes: Path,
    variant: str,
    emit: Emit | None,
) -> Prefix:
    """The stored prefix from which a deeper one is computed with the fewest blocks; embedded where
    there is none. What is stored has the bits that the blocks gave, so the deeper one does not
    depend on it.
    """
    for shallower in range(boundary - 1, 0, -1):
        key = prefix_key(stack, cases, shallower, variant)
        if is_stored(prefixes / key, key, emit):
            return load_prefix(stack, cases, shallower, prefixes / key)
    return Prefix.embedded(stack, cases)
