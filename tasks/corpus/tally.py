"""One pass over the rows of a data set: a few numbers per row are kept, so that a million rows fit into little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.corpus.case import Case, text_digest
from tasks.corpus.lengths import TextSample
from tasks.corpus.near_copies import BATCH, Sketch
from tasks.corpus.readers import no_cases, numbered_cases
from tasks.corpus.sources import locate
from tasks.corpus.tables import place
from tasks.corpus.vignettes.adversarial import adversarial_cases
from tasks.corpus.vignettes.generator import embedded_sets
from tasks.spec import LABELS, Columns, Data, EvaluationSet

FEW = 50_000  # cases of a table or train set up to which they are kept whole, so that our split can be carried out
NO_GROUP = -1

Entry = tuple[str, str, int, Case]  # set; what a place begins with; its number; case


@dataclass
class Tally:
    """Columns of numbers, one entry per row. `sets` holds the sets' names in the order of their codes."""

    sets: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
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

    def place(self, row: int) -> str:
        """Where a row stands, as a user would look for it."""
        return f"{self.files[self.file_codes[row]]}{self.numbers[row]}"

    def add(self, name: str, file: str, number: int, case: Case) -> None:
        if not self.sets or self.sets[-1] != name:
            self.sets.append(name)
        if not self.files or self.files[-1] != file:
            self.files.append(file)
        self.set_codes.append(len(self.sets) - 1)
        self.file_codes.append(len(self.files) - 1)
        self.numbers.append(number)
        self.label_codes.append(LABELS.index(case.label))
        self.digests.append(int(text_digest(case.text), 16))
        self.ids.append(hash(case.case_id))
        known = self.groups
        self.group_codes.append(
            NO_GROUP if case.group is None else known.setdefault(case.group, len(known))
        )
        self.words.append(len(case.text.split()))
        self.sample.add(case.text, self.words[-1])
        self.batch.append(case.text)
        if len(self.batch) == BATCH:
            self.sketch.add(self.batch)
            self.batch.clear()
        if self.cases is not None and name in ("all", "train"):
            self.cases.append(case)
            if len(self.cases) > FEW:
                self.cases = None


def tally(data: Data, evaluation_sets: Iterable[EvaluationSet] = ()) -> Tally:
    """Read every row of a dataset and its evaluation sets. Raises BadInput for a row that is no case, or for no rows."""
    found = Tally()
    for entry in _entries(data, evaluation_sets):
        found.add(*entry)
    found.sketch.add(found.batch)
    if not found.numbers:
        raise no_cases(data.source, data)
    return found


def _entries(data: Data, evaluation_sets: Iterable[EvaluationSet]) -> Iterator[Entry]:
    if data.source == "embedded":
        for name, cases in embedded_sets(data.seed, data.shares, data.train_cases).items():
            yield from _made(name, cases)
    else:
        for name, paths in locate(data.source, data).files.items():
            yield from _read(name, paths, data)
    for wanted in evaluation_sets:
        if wanted.source == "embedded":
            yield from _made(wanted.name, adversarial_cases(data.seed))
        else:
            files = locate(wanted.source, wanted).files
            for paths in [files["test"]] if "test" in files else list(files.values()):
                yield from _read(wanted.name, paths, wanted)


def _made(name: str, cases: list[Case]) -> Iterator[Entry]:
    yield from (
        (name, f"embedded {name}, case ", number, case)
        for number, case in enumerate(cases, start=1)
    )


def _read(name: str, paths: list[Path], columns: Columns) -> Iterator[Entry]:
    for path in paths:
        start = place(path, 0).removesuffix("0")
        yield from ((name, start, number, case) for number, case in numbered_cases(path, columns))
