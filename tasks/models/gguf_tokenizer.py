"""Rebuilds the exact `tokenizer.json` of a model from the fields of its GGUF file.

Two kinds: byte-level BPE whose pre-tokenizer splits digits singly (SmolLM2), and SentencePiece BPE with byte fall-back
(Gemma). Any other is refused: a nearly right tokenizer reads numbers wrong, and vitals are numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tasks.models.gguf_weights import Gguf
from tasks.runtime.errors import BadInput

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # token types of the GGUF format
_TYPES = {NORMAL, CONTROL, USER_DEFINED, BYTE}
SPACE = "▁"


def write_tokenizer(file: Gguf, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`. Raises BadInput for an unknown kind."""
    tokens = [str(t) for t in file.need("tokenizer.ggml.tokens")]
    types = [int(t) for t in file.need("tokenizer.ggml.token_type")]
    if unknown := set(types) - _TYPES:
        raise BadInput(
            f"{file.where}: the tokenizer has tokens of type {min(unknown)}, which is not known here."
        )
    kind = (file.need("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre", "default"))
    if kind == ("gpt2", "smollm"):
        tokenizer = digits_bpe(tokens, types, [str(m) for m in file.need("tokenizer.ggml.merges")])
    elif kind[0] == "llama" and file.architecture == "gemma3":
        tokenizer = gemma_bpe(tokens, types)
    else:
        raise BadInput(
            f"{file.where}: the tokenizer {'/'.join(kind)} is not supported; the file is refused."
        )
    special = _special_tokens(file, tokens)
    if file.get("tokenizer.ggml.add_bos_token", False):
        tokenizer.post_processor = start_with(
            special["bos_token"], file.get("tokenizer.ggml.bos_token_id")
        )
    save_tokenizer(tokenizer, folder, special, file.get("tokenizer.chat_template"))


def digits_bpe(tokens: list[str], types: list[int], merges: list[str]) -> Tokenizer:
    """Byte-level BPE with single digits, as in SmolLM2's own tokenizer.json."""
    pairs = [(left, right) for left, _, right in (m.partition(" ") for m in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs))
    byte_level_with_single_digits(tokenizer)
    _add_marked(tokenizer, tokens, types)
    return tokenizer


def byte_level_with_single_digits(tokenizer: Tokenizer) -> None:
    """Set SmolLM2's pre-tokenizer and decoder."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()


def gemma_bpe(tokens: list[str], types: list[int]) -> Tokenizer:
    """SentencePiece BPE with byte fall-back, as in Gemma's own tokenizer.json."""
    # The file writes runs of spaces as spaces; after normalisation the text holds them as the marker.
    spelled = [SPACE * len(t) if t and not t.strip(" ") else t for t in tokens]
    vocab = {t: i for i, t in enumerate(spelled)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=_implied_merges(spelled, types, vocab), byte_fallback=True, fuse_unk=True,
                   unk_token="<unk>")
    )  # fmt: skip
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _add_marked(tokenizer, spelled, types)
    return tokenizer


def start_with(token: str, token_id: int) -> Any:
    """A post-processor that puts one token (bos) before every text."""
    return processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token}:1 $B:1",
        special_tokens=[(token, int(token_id))],
    )


def save_tokenizer(
    tokenizer: Tokenizer, folder: Path, special: dict[str, str], chat_template: str | None
) -> None:
    """Write the two files that transformers reads. `special`: bos_token, eos_token, unk_token, pad_token."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special,
    }  # fmt: skip
    if chat_template is not None:
        config["chat_template"] = chat_template
    text = json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _implied_merges(
    tokens: list[str], types: list[int], vocab: dict[str, int]
) -> list[tuple[str, str]]:
    """Merges that a SentencePiece vocabulary implies: a token's parts join in the order of the vocabulary."""
    merges: list[tuple[str, str]] = []
    for token, kind in zip(tokens, types, strict=True):
        run = kind == USER_DEFINED and not token.strip(SPACE)
        if len(token) < 2 or not (kind == NORMAL or run):
            continue
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in vocab and pair[1] in vocab]
        merges += sorted(known, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges


def _add_marked(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Tokens that are never cut: control tokens as special, user-defined ones as plain added tokens."""
    marked = list(zip(tokens, types, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, kind in marked if kind == CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in marked if kind == USER_DEFINED]
    )


def _special_tokens(file: Gguf, tokens: list[str]) -> dict[str, str]:
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {key: file.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}
    return {key: tokens[int(number)] for key, number in ids.items() if number is not None}
