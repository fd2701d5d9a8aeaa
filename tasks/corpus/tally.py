"""One pass over the rows of a data set. A few numbers per row are kept, so that a million rows fit into
little memory. Lengths are measured on all texts while they are few, else on an even sample.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS, Case, compared_group, text_digest
from tasks.corpus.near_copies import BATCH, Sketch
from tasks.corpus.reading.sources import locate
from tasks.corpus.reading.tables import no_cases, numbered_cases, place_prefix
from tasks.corpus.vignettes.sets import evaluation_records, sets_of
from tasks.spec import LABELS, Data, EvaluationSet

SAMPLE = 20_000  # texts
PORTION = 1000  # texts that a tokenizer gets at once: all their encodings would need much memory
# Cases of a table or train set up to which they are kept whole, so that the split can be tried.
MOST_KEPT_CASES = 50_000
NO_GROUP = -1
SPLIT_TABLE = len(SETS)  # the side of a table that the project splits
COLUMNS = ("set", "file", "number", "label", "text", "id", "group", "words")

Codes = NDArray[Any]
"""An integer per row."""


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
            return [_line("words", [len(text.split()) for text in self.texts], self.most_words)]

        from tokenizers import Tokenizer

        lines = []
        for name, path in tokenizers.items():
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            counts: list[int] = []
            for start in range(0, len(self.texts), PORTION):
                texts = self.texts[start : start + PORTION]
                encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
                counts += [len(encoding.ids) for encoding in encodings]
            longest = len(tokenizer.encode(self.longest, add_special_tokens=False).ids)
            lines.append(_line(f"{name} tokens", counts, max(longest, *counts)))

        return lines


def _line(unit: str, counts: list[int], longest: int) -> Lengths:
    median, high = np.quantile(counts, (0.5, 0.95))
    return Lengths(unit, float(median), float(high), longest, len(counts))


@dataclass
class Tally:
    """An integer for each row and each of COLUMNS.

    `sets`, `files` and `group_names`: names in the order of their codes, of a group its first
    spelling; `groups`: its code by the name as groups are compared; `cases`: of the table or train
    set, None once there are too many; `batch`: texts that are not in the sketch yet.
    """

    sets: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    group_names: list[str] = field(default_factory=list)
    values: tuple[array[int], ...] = field(
        default_factory=lambda: tuple(array("q") for _ in COLUMNS)
    )
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

    @cached_property
    def sides(self) -> Codes:
        """The side of each row: see `check.py`."""
        code = {name: code for code, name in enumerate((*SETS, "all"))}
        return np.array([code.get(name, code["test"]) for name in self.sets])[self.column("set")]

    def column(self, name: str) -> Codes:
        """A column as an array, without a copy, once no more rows are added."""
        return np.frombuffer(self.values[COLUMNS.index(name)], np.int64)

    def place(self, row: int) -> str:
        """The place of a row, as a user would look for it."""
        _, files, numbers, *_ = self.values
        return f"{self.files[files[row]]}{numbers[row]}"

    def add(self, name: str, file: str, number: int, case: Case) -> None:
        """Add a case of the set `name`; its place is `file` and `number`, written as one."""
        if not self.sets or self.sets[-1] != name:
            self.sets.append(name)
        if not self.files or self.files[-1] != file:
            self.files.append(file)

        group = NO_GROUP
        if case.group is not None:
            group = self.groups.setdefault(compared_group(case.group), len(self.groups))
            if group == len(self.group_names):
                self.group_names.append(case.group)

        words = len(case.text.split())
        row = (
            len(self.sets) - 1,
            len(self.files) - 1,
            number,
            LABELS.index(case.label),
            int(text_digest(case.text), 16) - 2**63,  # so that it fits into 64 bits with a sign
            hash(case.case_id),  # equal in one process, which the tally never leaves
            group,
            words,
        )
        for column, value in zip(self.values, row, strict=True):
            column.append(value)

        self.sample.add(case.text, words)
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


def tally(data: Data, evaluation_sets: Iterable[EvaluationSet] = ()) -> Tally:
    """Read every row of a data set and its evaluation sets.

    Raises BadInput for a row that is no case, or for no rows.
    """
    located = [locate(data), *map(locate, evaluation_sets)]
    rows = Tally()
    for of_source in located:
        source = of_source.columns
        if source.source == "embedded":
            if isinstance(source, Data):
                sets = sets_of(source)
            else:
                train = sets_of(data)["train"] if source.is_familiar else []
                records = evaluation_records(source, data, train)
                sets = {source.name: [record.case for record in records]}
            for name, cases in sets.items():
                for number, case in enumerate(cases, start=1):
                    rows.add(name, f"embedded {name}, case ", number, case)
        for part, paths in of_source.files.items():
            name = part if isinstance(source, Data) else source.name
            for path in paths:
                start = place_prefix(path)
                for number, case in numbered_cases(path, source):
                    rows.add(name, start, number, case)

    rows.finish_batch()
    if not rows.files:
        raise no_cases(data.source, data)
    return rows
