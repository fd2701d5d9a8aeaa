"""How a reader who did not see the labels judged sampled cases, by version of the corpus."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from tasks.corpus.case import Case
from tasks.corpus.vignettes.generator import GENERATOR_VERSION
from tasks.corpus.vignettes.wording import listed
from tasks.spec import Label, Strict, digest_of

FILE = Path(__file__).with_name("reader_check.toml")
OF_CONTRAST = FILE.parent / "contrast" / FILE.name


class ReaderCheck(Strict):
    """One check of `reader_check.toml`: see there."""

    generator: int = Field(ge=1, description="the corpus version that was read")
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    cases: int = Field(
        default=0, description="how many were read, where the single answers were not kept"
    )
    agreed: int = 0
    reader: str = Field(description="who read: a language model's reading is no clinician's")
    answers: dict[str, tuple[Label, Label]] = Field(
        description="case id: the stored label, the reader's label"
    )
    remarks: dict[str, str] = Field(description="what became of the cases on which they differ")
    texts: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="`texts_digest` of the texts read"
    )

    @model_validator(mode="after")
    def _counted_once(self) -> ReaderCheck:
        if bool(self.answers) == bool(self.cases):
            raise ValueError("give either the single answers or their number")
        return self


@dataclass(frozen=True)
class ReaderAgreement:
    """Cases read, and those with the same label from the reader."""

    cases: int
    agreed: int


class ReaderChecks(Strict):
    """All checks, newest first."""

    check: tuple[ReaderCheck, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _newest_first(self) -> ReaderChecks:
        order = [(check.generator, check.date) for check in self.check]
        if order != sorted(order, reverse=True):
            raise ValueError("the newest check comes first")
        return self


def texts_digest(check: ReaderCheck, cases: Iterable[Case]) -> str:
    """SHA-256 over the texts of the cases that were read, by id.

    Raises KeyError if one of them is not among `cases`.
    """
    texts = {case.case_id: case.text for case in cases}
    return digest_of({case_id: texts[case_id] for case_id in check.answers})


@cache
def reader_checks(file: Path = FILE) -> tuple[ReaderCheck, ...]:
    """Every check that is kept in a file, newest first."""
    return ReaderChecks.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).check


def checks_of(part: str) -> list[ReaderCheck]:
    """The checks of the sets beside the embedded ones whose case ids hold `part`."""
    return [
        check for check in reader_checks(OF_CONTRAST) if all(part in name for name in check.answers)
    ]


def describe_checks_of(part: str) -> str:
    """The checks of `checks_of`, newest first."""
    return "\n\n".join(describe_check(check, read=True) for check in checks_of(part))


def reader_check() -> ReaderCheck:
    """The newest check."""
    return reader_checks()[0]


def agreement(check: ReaderCheck) -> ReaderAgreement:
    """The agreement of a check, counted from its single answers where they were kept."""
    if not check.answers:
        return ReaderAgreement(check.cases, check.agreed)

    agreed = sum(stored == read for stored, read in check.answers.values())
    return ReaderAgreement(len(check.answers), agreed)


def describe_check(check: ReaderCheck, read: bool = False) -> str:
    """The figure, its date and its corpus version, and the remarks on cases that differ.

    Unless `read`, a check of another version says that the present version has not been read.
    """
    counted = agreement(check)
    sets = sorted({case_id.rpartition("-")[0] for case_id in check.answers})
    of_sets = f" of {listed(sets, 'and')}" if sets else ""
    text = (
        f"A reader ({check.reader}) who did not see the labels agreed with {counted.agreed} of "
        f"{counted.cases} sampled cases{of_sets} (generator {check.generator}, {check.date})."
    )
    if check.generator != GENERATOR_VERSION:
        text += " That was another version of the corpus"
        text += "." if read else f": generator {GENERATOR_VERSION} has not been read yet."

    remarks = [f"- {name}: {remark}." for name, remark in check.remarks.items()]
    if not remarks:
        return text

    return "\n".join([text, "", "Where they differed:", "", *remarks])


def describe_all_checks() -> str:
    """Every check, newest first."""
    read = any(check.generator == GENERATOR_VERSION for check in reader_checks())
    return "\n\n".join(
        describe_check(check, read or number > 0) for number, check in enumerate(reader_checks())
    )
