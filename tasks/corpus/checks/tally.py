"""One pass over the rows of a dataset. A few numbers per row are kept, so that a million rows fit into
little memory; how long texts are is measured on all of them while they are few, else on an even
sample.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS, Case, compared_group, text_digest
from tasks.corpus.near_copies import BATCH, Sketch
from tasks.corpus.prompts import Prompt
from tasks.corpus.reading.sources import check_settings, locate
from tasks.corpus.reading.tables import no_cases, numbered_cases, place_prefix
from tasks.corpus.vignettes.adversarial import adversarial_cases
from tasks.corpus.vignettes.sets import sets_of
from tasks.spec import LABELS, Columns, Data, EvaluationSet

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

        from tokenizers import Tokenizer

        lines = []
        for name, path in tokenizers.items():
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            counts = [
                len(encoding.ids)
                for texts in _portions(self.texts)
                for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ]
            longest = len(tokenizer.encode(self.longest, add_special_tokens=False).ids)
            lines.append(_line(f"{name} tokens", counts, max(longest, *counts)))

        return lines


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


# Cases of a table or train set up to which they are kept whole, so that the split can be tried.
MOST_KEPT_CASES = 50_000
NO_GROUP = -1

Codes = NDArray[np.integer[Any]]
Entry = tuple[str, str, int, Case]
"""The name of a set, what a place in it begins with, the number there, and the case."""


@dataclass
class Tally:
    """Columns of numbers, one entry per row.

    `sets` and `group_names`: names in the order of their codes, of a group its first spelling;
    `groups`: its code by the name as groups are compared; `cases`: None once there are too many.
    """

    sets: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    group_names: list[str] = field(default_factory=list)
    # Typed arrays: a Python list of integers takes five times the memory.
    set_codes: array[int] = field(default_factory=partial(array, "L"))
    label_codes: array[int] = field(default_factory=partial(array, "B"))
    digests: array[int] = field(default_factory=partial(array, "Q"))
    ids: array[int] = field(default_factory=partial(array, "q"))
    group_codes: array[int] = field(default_factory=partial(array, "q"))
    words: array[int] = field(default_factory=partial(array, "L"))
    file_codes: array[int] = field(default_factory=partial(array, "L"))
    numbers: array[int] = field(default_factory=partial(array, "L"))
    cases: list[Case] | None = field(default_factory=list)
    sketch: Sketch = field(default_factory=Sketch)
    sample: TextSample = field(default_factory=TextSample)
    batch: list[str] = field(default_factory=list)

    @property
    def is_split_by_us(self) -> bool:
        """Whether the source is one table, which the project splits."""
        return "all" in self.sets

    @property
    def has_all_sets(self) -> bool:
        """Whether the source gives all four sets, so that the project splits nothing."""
        return {*SETS} <= {*self.sets}

    def place(self, row: int) -> str:
        """Where a row stands, as a user would look for it."""
        return f"{self.files[self.file_codes[row]]}{self.numbers[row]}"

    def add(self, name: str, file: str, number: int, case: Case) -> None:
        """Add a case of the set `name`; its place is `file` and `number`, written as one."""
        if not self.sets or self.sets[-1] != name:
            self.sets.append(name)
        if not self.files or self.files[-1] != file:
            self.files.append(file)

        self.set_codes.append(len(self.sets) - 1)
        self.file_codes.append(len(self.files) - 1)
        self.numbers.append(number)
        self.label_codes.append(LABELS.index(case.label))
        self.digests.append(int(text_digest(case.text), 16))
        # Equal ids have equal hashes within one process, and the tally never leaves it.
        self.ids.append(hash(case.case_id))
        group_code = NO_GROUP
        if case.group is not None:
            group_code = self.groups.setdefault(compared_group(case.group), len(self.groups))
            if group_code == len(self.group_names):
                self.group_names.append(case.group)

        self.group_codes.append(group_code)
        self.words.append(len(case.text.split()))
        self.sample.add(case.text, self.words[-1])
        self.batch.append(case.text)
        if len(self.batch) == BATCH:
            self.finish_batch()

        if self.cases is not None and name in ("all", "train"):
            self.cases.append(case)
            if len(self.cases) > MOST_KEPT_CASES:
                self.cases = None

    def finish_batch(self) -> None:
        """Hash the texts that wait for it; `add` does so for each full batch."""
        self.sketch.add(self.batch)
        self.batch.clear()


def codes(column: array[int]) -> Codes:
    """A column of a tally as an array, without a copy; of the column's own type of integer."""
    return np.frombuffer(column, dtype=column.typecode)


def tally(data: Data, evaluation_sets: Iterable[EvaluationSet] = ()) -> Tally:
    """Read every row of a dataset and its evaluation sets.

    Raises BadInput for a row that is no case, or for no rows.
    """
    evaluation_sets = tuple(evaluation_sets)
    check_settings(data)
    for evaluation_set in evaluation_sets:
        check_settings(evaluation_set)

    rows = Tally()
    for entry in _entries(data, evaluation_sets):
        rows.add(*entry)

    rows.finish_batch()

    if not rows.numbers:
        raise no_cases(data.source, data)
    return rows


def _entries(data: Data, evaluation_sets: Iterable[EvaluationSet]) -> Iterator[Entry]:
    if data.source == "embedded":
        for name, cases in sets_of(data).items():
            yield from _embedded(name, cases)
    else:
        for name, paths in locate(data.source, data).files.items():
            yield from _read(name, paths, data)

    for entry in evaluation_sets:
        if entry.source == "embedded":
            yield from _embedded(entry.name, adversarial_cases(data.seed, entry.name))
            continue
        files = locate(entry.source, entry).files
        for paths in [files["test"]] if "test" in files else files.values():
            yield from _read(entry.name, paths, entry)


def _embedded(name: str, cases: list[Case]) -> Iterator[Entry]:
    for number, case in enumerate(cases, start=1):
        yield name, f"embedded {name}, case ", number, case


def _read(name: str, paths: list[Path], columns: Columns) -> Iterator[Entry]:
    for path in paths:
        start = place_prefix(path)
        for number, case in numbered_cases(path, columns):
            yield name, start, number, case
