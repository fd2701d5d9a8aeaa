"""Random weights of a real model's shape, to measure memory and speed; no evidence of quality.

A source folder of this kind holds the config and a small tokenizer; the weights are drawn at
conversion.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.models.manifest import FetchedWeights, Origin
from tasks.models.model_shape import shape_entry
from tasks.models.sources.downloads import Progress
from tasks.models.sources.tiny_tokenizer import SENTENCES, SPECIAL, write_tiny_tokenizer
from tasks.spec import RandomSource, digest_of, short_digest

STANDARD_DEVIATION = 0.02  # as both families initialise their weights


def describe(source: RandomSource) -> str:
    """The source in words."""
    return f"random weights of the shape {source.shape}, seed {source.seed}"


def identity(source: RandomSource) -> str:
    """Digest of shape and seed, and of the sentences that the tokenizer is trained on."""
    return short_digest(
        {
            **source.model_dump(mode="json"),
            "content": shape_entry(source.shape),
            "sentences": digest_of(SENTENCES),
        }
    )


def fetch(source: RandomSource, target: Path, progress: Progress) -> FetchedWeights:
    """Write config and tokenizer of the shape into `target`.

    Raises BadInput for an unknown shape.
    """
    entry = shape_entry(source.shape)
    write_tiny_tokenizer(target, chat=entry["tokenizer"] == "chat")

    token_ids = {f"{name}_token_id": number for number, name in enumerate(SPECIAL)}
    config = {**entry["config"], **token_ids, "torch_dtype": "bfloat16"}
    (target / "config.json").write_text(
        json.dumps(config, indent=1, sort_keys=True), encoding="utf-8"
    )

    return FetchedWeights(
        format="random",
        original_precision="random",
        file_digest=None,
        weights_source=describe(source),
        origin=Origin.model_validate(source.model_dump(mode="json")),
        seed=source.seed,
    )


def probe(source: RandomSource) -> str:
    """`reachable`. Raises BadInput for an unknown shape."""
    shape_entry(source.shape)
    return "reachable"


def random_tensor(name: str, shape: tuple[int, ...], seed: int, gemma: bool) -> NDArray[np.float32]:
    """Values of one tensor, decided by seed and name alone.

    Norms are the identity: 1, or 0 where the model adds 1.
    """
    if len(shape) == 1:
        return np.full(shape, 0.0 if gemma else 1.0, dtype=np.float32)

    generator = np.random.default_rng([seed, *name.encode()])
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(STANDARD_DEVIATION)
