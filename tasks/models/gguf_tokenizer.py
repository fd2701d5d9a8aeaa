"""Rebuilds the exact `tokenizer.json` of a model from the fields of its GGUF file.

There are two kinds: byte-level BPE whose pre-tokenizer splits digits singly (SmolLM2), and
SentencePiece BPE with byte fall-back (Gemma). Others are refused: a nearly right tokenizer reads
numbers wrong, and vital signs are numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tasks.models.gguf_file import Gguf
from tasks.runtime.errors import BadInput

# token types of the GGUF format
NORMAL = 1
CONTROL = 3
USER_DEFINED = 4
BYTE = 6
# Names of special tokens: those of transformers, and those of a GGUF file.
SPECIAL = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}
SPACE = "▁"


def write_tokenizer(file: Gguf, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`.

    Raises BadInput for an unknown kind.
    """
    tokens = [str(token) for token in file.need("tokenizer.ggml.tokens")]
    types = [int(number) for number in file.need("tokenizer.ggml.token_type")]
    if unknown := set(types) - {NORMAL, CONTROL, USER_DEFINED, BYTE}:
        raise BadInput(
            f"{file.where}: the tokenizer has tokens of "
            f"type {min(unknown)}, which is not known here."
        )

    kind = (file.need("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre", "default"))
    if kind == ("gpt2", "smollm"):
        merges = [str(merge) for merge in file.need("tokenizer.ggml.merges")]
        tokenizer = digits_bpe(tokens, types, merges)
    elif kind[0] == "llama" and file.architecture == "gemma3":
        tokenizer = gemma_bpe(tokens, types)
    else:
        raise BadInput(
            f"{file.where}: the tokenizer {'/'.join(kind)} is not supported; the file is refused."
        )

    ids = {key: file.get(f"tokenizer.ggml.{name}_token_id") for key, name in SPECIAL.items()}
    special = {key: tokens[int(number)] for key, number in ids.items() if number is not None}
    if file.get("tokenizer.ggml.add_bos_token", False):
        tokenizer.post_processor = start_with(special["bos_token"], int(ids["bos_token"]))

    save_tokenizer(tokenizer, folder, special, file.get("tokenizer.chat_template"))


def digits_bpe(tokens: list[str], types: list[int], merges: list[str]) -> Tokenizer:
    """Byte-level BPE with single digits, as in SmolLM2's own tokenizer.json."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    byte_level_with_single_digits(tokenizer)
    _add_uncut_tokens(tokenizer, tokens, types)
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
    # The file writes runs of spaces as spaces; after normalisation the text holds them as the
    # marker.
    marked = [SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    vocabulary = {token: number for number, token in enumerate(marked)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_implied_merges(marked, types, vocabulary),
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )

    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _add_uncut_tokens(tokenizer, marked, types)

    return tokenizer


def start_with(token: str, token_id: int) -> processors.TemplateProcessing:
    """A post-processor that puts one token (bos) before every text."""
    return processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token}:1 $B:1",
        special_tokens=[(token, token_id)],
    )


def save_tokenizer(
    tokenizer: Tokenizer, folder: Path, special: dict[str, str], chat_template: str | None
) -> None:
    """Write the two files that transformers reads.

    `special`: bos_token, eos_token, unk_token, pad_token.
    """
    tokenizer.save(str(folder / "tokenizer.json"))

    config: dict[str, str | bool] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template

    text = json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _implied_merges(
    tokens: list[str], types: list[int], vocabulary: dict[str, int]
) -> list[tuple[str, str]]:
    """Merges that a SentencePiece vocabulary implies: parts join in the vocabulary's order."""
    merges: list[tuple[str, str]] = []
    for token, kind in zip(tokens, types, strict=True):
        is_run_of_spaces = kind == USER_DEFINED and not token.strip(SPACE)
        if len(token) < 2 or not (kind == NORMAL or is_run_of_spaces):
            continue

        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [pair for pair in splits if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))

    return merges


def _add_uncut_tokens(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Add the tokens that are never cut: control tokens as special, user-defined ones as plain."""

    def of_type(token_type: int) -> list[AddedToken]:
        return [
            AddedToken(token, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == token_type
        ]

    tokenizer.add_special_tokens(of_type(CONTROL))
    tokenizer.add_tokens(of_type(USER_DEFINED))
