"""How a reader who did not see the labels judged sampled cases, by version of the corpus."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import Field

from tasks.corpus.case import listed
from tasks.corpus.vignettes.generator import GENERATOR_VERSION
from tasks.spec import Label, Strict

FILE = Path(__file__).with_name("reader_check.toml")
OF_CONTRAST = FILE.parent / "contrast" / FILE.name


class ReaderCheck(Strict):
    """One check of `reader_check.toml`: see there."""

    generator: int = Field(ge=1)  # the corpus version that was read
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    # How many were read, and alike, where the single answers were not kept.
    cases: int = 0
    agreed: int = 0
    reader: str  # who read: a language model's reading is no clinician's
    answers: dict[str, tuple[Label, Label]]  # by case id: the stored label, the reader's label
    remarks: dict[str, str]  # what became of the cases on which they differ
    texts: str | None = None  # `texts_digest` of the texts read

    @property
    def counts(self) -> tuple[int, int]:
        """Cases read, and those with the same label from the reader, counted from the single answers
        where they were kept.
        """
        if not self.answers:
            return self.cases, self.agreed
        return len(self.answers), sum(stored == read for stored, read in self.answers.values())


@cache
def reader_checks(file: Path = FILE) -> tuple[ReaderCheck, ...]:
    """Every check that is kept in a file, newest first."""
    entries = tomllib.loads(file.read_text(encoding="utf-8"))["check"]
    return tuple(map(ReaderCheck.model_validate, entries))


def checks_of(part: str) -> list[ReaderCheck]:
    """The checks of the sets beside the embedded ones whose case ids hold `part`."""
    return [
        check for check in reader_checks(OF_CONTRAST) if all(part in name for name in check.answers)
    ]


def describe_checks_of(part: str) -> str:
    """The checks of `checks_of`, newest first."""
    return "\n\n".join(describe_check(check, read=True) for check in checks_of(part))


def describe_check(check: ReaderCheck, read: bool = False) -> str:
    """The figure, its date and its corpus version, and the remarks on cases that differ.

    Unless `read`, a check of another version says that the present version has not been read.
    """
    cases, agreed = check.counts
    sets = sorted({case_id.rpartition("-")[0] for case_id in check.answers})
    of_sets = f" of {listed(sets)}" if sets else ""
    text = (
        f"A reader ({check.reader}) who did not see the labels agreed with {agreed} of "
        f"{cases} sampled cases{of_sets} (generator {check.generator}, {check.date})."
    )
    if check.generator != GENERATOR_VERSION:
        text += " That was another version of the corpus"
        text += "." if read else f": generator {GENERATOR_VERSION} has not been read yet."

    remarks = [f"- {name}: {remark}." for name, remark in check.remarks.items()]
    if remarks:
        text = "\n".join([text, "", "Where they differed:", "", *remarks])
    return text


def describe_all_checks() -> str:
    """Every check, newest first."""
    read = any(check.generator == GENERATOR_VERSION for check in reader_checks())
    return "\n\n".join(
        describe_check(check, read or number > 0) for number, check in enumerate(reader_checks())
    )
