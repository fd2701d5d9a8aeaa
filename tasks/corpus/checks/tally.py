"""One pass over the rows of a dataset. A few numbers per row are kept, so that a million rows fit
into little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.case import SETS, Case, text_digest
from tasks.corpus.checks.lengths import TextSample
from tasks.corpus.compared_forms import compared_group
from tasks.corpus.near_copies import BATCH, Sketch
from tasks.corpus.reading.readers import no_cases, numbered_cases
from tasks.corpus.reading.sources import check_settings, locate
from tasks.corpus.reading.tables import place_prefix
from tasks.corpus.vignettes.adversarial import adversarial_cases
from tasks.corpus.vignettes.sets import sets_of
from tasks.spec import LABELS, Columns, Data, EvaluationSet

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
        self.group_codes.append(self._group_code(case.group))
        self._add_text(case.text)
        self._keep(name, case)

    def _group_code(self, group: str | None) -> int:
        if group is None:
            return NO_GROUP

        code = self.groups.setdefault(compared_group(group), len(self.groups))
        if code == len(self.group_names):
            self.group_names.append(group)
        return code

    def _add_text(self, text: str) -> None:
        self.words.append(len(text.split()))
        self.sample.add(text, self.words[-1])
        self.batch.append(text)
        if len(self.batch) == BATCH:
            self.finish_batch()

    def finish_batch(self) -> None:
        """Hash the texts that wait for it; `add` does so for each full batch."""
        self.sketch.add(self.batch)
        self.batch.clear()

    def _keep(self, name: str, case: Case) -> None:
        if self.cases is None or name not in ("all", "train"):
            return

        self.cases.append(case)
        if len(self.cases) > MOST_KEPT_CASES:
            self.cases = None


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

    for evaluation_set in evaluation_sets:
        yield from _evaluation_entries(evaluation_set, data.seed)


def _evaluation_entries(evaluation_set: EvaluationSet, seed: int) -> Iterator[Entry]:
    if evaluation_set.source == "embedded":
        yield from _embedded(evaluation_set.name, adversarial_cases(seed, evaluation_set.name))
        return

    files = locate(evaluation_set.source, evaluation_set).files
    for paths in [files["test"]] if "test" in files else files.values():
        yield from _read(evaluation_set.name, paths, evaluation_set)


def _embedded(name: str, cases: list[Case]) -> Iterator[Entry]:
    for number, case in enumerate(cases, start=1):
        yield name, f"embedded {name}, case ", number, case


def _read(name: str, paths: list[Path], columns: Columns) -> Iterator[Entry]:
    for path in paths:
        start = place_prefix(path)
        for number, case in numbered_cases(path, columns):
            yield name, start, number, case
