"""Random weights of a true shape, for tests and for measuring memory and speed. They are never evidence of quality.

A source folder of this kind holds the config and a small tokenizer; the weights are drawn at conversion.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.models.tiny_tokenizer import SENTENCES, SPECIAL, write_tiny_tokenizer
from tasks.models.transfer import Progress
from tasks.runtime.errors import BadInput
from tasks.spec import RandomSource, digest_of

STANDARD_DEVIATION = 0.02  # as both families initialise their weights


def describe(source: RandomSource) -> str:
    return f"random weights of the shape {source.shape}, seed {source.seed}"


def key(source: RandomSource) -> dict[str, Any]:
    return {
        **source.model_dump(mode="json"),
        "content": _shape(source.shape),
        "sentences": digest_of(SENTENCES),
    }


def fill(source: RandomSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Write config and tokenizer of the shape into `target`. Raises BadInput for an unknown shape."""
    shape = _shape(source.shape)
    write_tiny_tokenizer(target, chat=shape["tokenizer"] == "chat")
    ids = {f"{name}_token_id": i for i, name in enumerate(SPECIAL)}
    config = {**shape["config"], **ids, "torch_dtype": "bfloat16"}
    (target / "config.json").write_text(
        json.dumps(config, indent=1, sort_keys=True), encoding="utf-8"
    )
    return {
        "format": "random", "original_precision": "random", "random_weights": True, "seed": source.seed,
        "file_digest": None, "weights_source": describe(source), "source": source.model_dump(mode="json"),
    }  # fmt: skip


def probe(source: RandomSource) -> str:
    _shape(source.shape)
    return "reachable"


def random_tensor(name: str, shape: tuple[int, ...], seed: int, gemma: bool) -> NDArray[np.float32]:
    """Values of one tensor, decided by seed and name alone. Norms are the identity: 1, or 0 where the model adds 1."""
    if len(shape) == 1:
        return np.full(shape, 0.0 if gemma else 1.0, dtype=np.float32)
    generator = np.random.default_rng([seed, *name.encode()])
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(STANDARD_DEVIATION)


def _shape(name: str) -> dict[str, Any]:
    shapes: dict[str, dict[str, Any]] = json.loads(
        (files(__package__) / "shapes.json").read_text(encoding="utf-8")
    )
    if name not in shapes:
        raise BadInput(
            f"There is no shape {name!r} for random weights; known are {', '.join(sorted(shapes))}."
        )
    return shapes[name]
