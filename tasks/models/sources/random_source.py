"""Random weights of a real model's shape, to measure memory and speed; no evidence of quality.

A source folder of this kind holds the config and a small tokenizer, trained on a few sentences; the
weights are drawn at conversion.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from tasks.models.gguf_file import byte_level_with_single_digits, save_tokenizer, start_with
from tasks.models.sizes import shape_entry
from tasks.models.sources.folder_source import Progress
from tasks.spec import RandomSource, digest_of, short_digest

STANDARD_DEVIATION = 0.02  # as both families initialise their weights
VOCABULARY = 768
SPECIAL = {"pad": "<|pad|>", "bos": "<|im_start|>", "eos": "<|im_end|>"}  # ids 0, 1, 2
# ChatML, as in SmolLM2: a system message is added where there is none.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def _sentences() -> list[str]:
    """What the tiny tokenizer is trained on."""
    return list(json.loads((files("tasks.models") / "sentences.json").read_text(encoding="utf-8")))


def write_tiny_tokenizer(folder: Path, chat: bool) -> None:
    """Write a byte-level BPE tokenizer, with a chat template like SmolLM2's or plain like Gemma's."""
    tokenizer = Tokenizer(models.BPE())
    byte_level_with_single_digits(tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIAL.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    if not chat:
        tokenizer.post_processor = start_with(SPECIAL["bos"], 1)

    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    save_tokenizer(tokenizer, folder, special, CHAT_TEMPLATE if chat else None)


def describe(source: RandomSource) -> str:
    return f"random weights of the shape {source.shape}, seed {source.seed}"


def identity(source: RandomSource) -> str:
    """Digest of shape and seed, and of the sentences that the tokenizer is trained on."""
    content = {"content": shape_entry(source.shape), "sentences": digest_of(_sentences())}
    return short_digest(source.model_dump(mode="json") | content)


def fetch(source: RandomSource, target: Path, progress: Progress) -> dict[str, Any]:
    """Write config and tokenizer of the shape. Raises BadInput for an unknown shape."""
    entry = shape_entry(source.shape)
    write_tiny_tokenizer(target, chat=entry["tokenizer"] == "chat")

    token_ids = {f"{name}_token_id": number for number, name in enumerate(SPECIAL)}
    config = {**entry["config"], **token_ids, "torch_dtype": "bfloat16"}
    (target / "config.json").write_text(
        json.dumps(config, indent=1, sort_keys=True), encoding="utf-8"
    )

    return {
        "format": "random",
        "original_precision": "random",
        "file_digest": None,
        "weights_source": describe(source),
        "source": source.model_dump(mode="json"),
        "seed": source.seed,
    }


def probe(source: RandomSource, patiently: bool = False) -> str:
    """`reachable`. Raises BadInput for an unknown shape."""
    shape_entry(source.shape)
    return "reachable"


def random_tensor(name: str, shape: tuple[int, ...], seed: int, gemma: bool) -> NDArray[np.float32]:
    """Values of one tensor, from seed and name; norms are 1, or 0 where the model adds 1."""
    if len(shape) == 1:
        return np.full(shape, 0.0 if gemma else 1.0, dtype=np.float32)

    generator = np.random.default_rng([seed, *name.encode()])
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(STANDARD_DEVIATION)
