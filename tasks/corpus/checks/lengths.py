"""How long texts are, in words or in a tokenizer's tokens: of all texts while they are few, else of
an even sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.corpus.prompts import Prompt

SAMPLE = 20_000  # texts
PORTION = 1_000_000  # characters that a tokenizer gets at once


@dataclass(frozen=True)
class Lengths:
    """Median, 95th percentile and longest length in `unit`s of `on` measured texts."""

    unit: str
    median: float
    high: float
    longest: int
    on: int


@dataclass
class TextSample:
    """Every `step`-th text, and the one with most words. A full sample doubles the step."""

    step: int = 1
    text_count: int = 0
    texts: list[str] = field(default_factory=list)
    longest: str = ""
    most_words: int = -1

    def add(self, text: str, words: int) -> None:
        """Add a text of so many words."""
        if self.text_count % self.step == 0:
            self.texts.append(text)
            if len(self.texts) > SAMPLE:
                self.texts = self.texts[::2]
                self.step *= 2

        self.text_count += 1
        if words > self.most_words:
            self.longest = text
            self.most_words = words

    def lengths(self, tokenizers: Mapping[str, Path]) -> list[Lengths]:
        """One line per tokenizer (its tokenizer.json by name); in words where there is none."""
        if not tokenizers:
            words = [len(text.split()) for text in self.texts]
            return [_line("words", words, self.most_words)]
        return [self._in_tokens(name, path) for name, path in tokenizers.items()]

    def _in_tokens(self, name: str, path: Path) -> Lengths:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        counts = [
            len(encoding.ids)
            for texts in _portions(self.texts)
            for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        longest = len(tokenizer.encode(self.longest, add_special_tokens=False).ids)

        return _line(f"{name} tokens", counts, max(longest, *counts))


def shared_tokens(prompt: Prompt, tokenizers: Mapping[str, Path]) -> str:
    """What the examples of a prompt add to its instruction, in a sentence: in tokens, or in words
    where there is no tokenizer.
    """
    counts = [f"{len(prompt.plain_examples.split())} words"]
    if tokenizers:
        from tokenizers import Tokenizer

        counts = [
            f"{len(Tokenizer.from_file(str(path)).encode(prompt.plain_examples).ids)} {name} tokens"
            for name, path in tokenizers.items()
        ]

    return (
        f"The {len(prompt.examples)} examples in prompt {prompt.version} add about "
        f"{' or '.join(counts)} to the instruction: computed once for a batch and once for a set, "
        "never for each case."
    )


def _portions(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, about PORTION characters at a time.

    Encodings of all texts at once would need far more memory than the texts.
    """
    portion: list[str] = []
    size = 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if size >= PORTION:
            yield portion
            portion = []
            size = 0

    if portion:
        yield portion


def _line(unit: str, counts: list[int], longest: int) -> Lengths:
    median, high = np.quantile(counts, (0.5, 0.95))
    return Lengths(unit, float(median), float(high), longest, len(counts))
