"""How long texts are, in words or in a tokenizer's tokens: on all texts while they are few, else on an even sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SAMPLE = 20_000  # texts
PORTION = 1_000_000  # characters that are given to a tokenizer at once


@dataclass(frozen=True)
class Lengths:
    """Median, 95th percentile and longest length of the texts in `unit`s; `on`: how many texts were measured."""

    unit: str
    median: float
    high: float
    longest: int
    on: int


@dataclass
class TextSample:
    """Every n-th text, with n doubled whenever the sample is full; and the text with most words."""

    step: int = 1
    seen: int = 0
    texts: list[str] = field(default_factory=list)
    longest: str = ""
    most_words: int = -1

    def add(self, text: str, words: int) -> None:
        if self.seen % self.step == 0:
            self.texts.append(text)
            if len(self.texts) > SAMPLE:
                self.texts, self.step = self.texts[::2], self.step * 2
        self.seen += 1
        if words > self.most_words:
            self.longest, self.most_words = text, words

    def lengths(self, tokenizers: Mapping[str, Path]) -> list[Lengths]:
        """One line per tokenizer (its tokenizer.json by name); in words where there is none."""
        if not tokenizers:
            return [_line("words", [len(text.split()) for text in self.texts], self.most_words)]
        from tokenizers import Tokenizer

        lines = []
        for name, path in tokenizers.items():
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            found = [
                len(encoding.ids)
                for texts in _portions(self.texts)
                for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ]
            longest = len(tokenizer.encode(self.longest, add_special_tokens=False).ids)
            lines.append(_line(f"{name} tokens", found, max(longest, *found)))
        return lines


def _portions(texts: list[str]) -> Iterator[list[str]]:
    """The texts in order, about PORTION characters at a time: encodings of them all would be far larger than they are."""
    portion, size = [], 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _line(unit: str, found: list[int], longest: int) -> Lengths:
    median, high = np.quantile(found, (0.5, 0.95))
    return Lengths(unit, float(median), float(high), longest, len(found))
