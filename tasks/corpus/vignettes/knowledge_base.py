"""Reads the knowledge base: problems, contexts and wordings, in TOML that clinicians can amend; and the
banks of wordings of the contrast cases and of the second adversarial set, which are no part of it,
since its bytes are in the digest of every embedded dataset.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from tasks.spec import Strict

FOLDER = Path(str(files("tasks.corpus.vignettes"))) / "knowledge"
BANK_FOLDER = FOLDER.parent / "contrast"
FURTHER = FOLDER / "further"  # problems of train alone, of which only `further_share` makes cases
REGISTERED_FOLDER = FOLDER / "registered"  # problems of `test_registered` alone
NOT_PROBLEMS = ("american", "contexts", "general", "phrases", "tone")
Band = Literal["infant", "child", "teen", "adult", "older", "frail"]
BAND_YEARS: dict[str, tuple[float, float]] = {
    "infant": (0.05, 1),
    "child": (1, 13),
    "teen": (13, 18),
    "adult": (18, 65),
    "older": (65, 80),
    "frail": (80, 97),
}
WORDINGS = (
    3  # at least, of a complaint, a fact and its denial, so that words alone reveal none of them
)
EVERY = 4  # of each list of a teaching bank one entry in so many is for valid
LISTABLE_WORDS = 6  # a longer note does not read well in a list
PLAINLY_LONGER = 1.5  # times the natural course, so that a reader notices it too
FEVER = 38.0  # degrees Celsius
FEVER_WORDS = re.compile(r"fever|temperature|burning hot|chills")
Phrases = dict[str, dict[str, list[str]]]
Words = tuple[str, ...]
Learner = Literal["train", "valid"]
Kind = Literal["red", "amber", "mild"]
KINDS: tuple[Kind, ...] = ("red", "amber", "mild")


class ClinicalFact(Strict):
    """A fact in three forms: a clause (`say`), its opposite (`deny`), a noun phrase (`note`)."""

    note: str
    say: tuple[str, ...] = Field(min_length=WORDINGS)
    deny: tuple[str, ...] = ()
    sick: bool = False  # visibly ill: no reassuring facts beside it
    ongoing: bool = False  # a general fact for complaints that last, not for events
    also: bool = False  # a benign detail that can stand beside a red or amber flag
    days: tuple[float, float] | None = None  # how long ago it must have begun
    temp: tuple[float, float] | None = None  # what a thermometer shows, where the words say it
    sex: Literal["f", "m"] | None = None
    min_age: float = 0
    max_age: float = 200
    source: str | None = None

    @property
    def listable(self) -> bool:
        """Whether `note` can follow "no" in a list; other notes are denied by their own clause."""
        words = self.note.split()
        return (
            len(words) <= LISTABLE_WORDS
            and words[0] not in phrases()["not_nouns"]["first"]
            and "," not in self.note
        )

    @property
    def feverish(self) -> bool:
        """Whether it says that there is a fever of 38 degrees or more."""
        if self.temp is not None:
            return self.temp[1] >= FEVER
        return FEVER_WORDS.search(" ".join((self.note, *self.say))) is not None


class General(Strict):
    """Facts by kind: a problem's own, or those that can join any problem."""

    red: dict[str, ClinicalFact]
    amber: dict[str, ClinicalFact]
    mild: dict[str, ClinicalFact]

    def facts(self, kind: Kind) -> Mapping[str, ClinicalFact]:
        """The facts of a kind by name."""
        return {"red": self.red, "amber": self.amber, "mild": self.mild}[kind]

    @property
    def all_facts(self) -> tuple[ClinicalFact, ...]:
        """Red, amber and mild ones."""
        return (*self.red.values(), *self.amber.values(), *self.mild.values())


class ClinicalProblem(General):
    """A presenting problem.

    `red` facts make it ED, `amber` ones GP, `mild` ones leave it HOME; see `label_rules.decide`.
    """

    id: str
    system: str
    source: str  # public guidance that the rules follow
    family: str  # problems of one family stay in one set
    ages: tuple[Band, ...] = Field(min_length=1)
    years: tuple[float, float] = (0, 200)  # age limits in years within the bands
    sex: Literal["any", "f", "m"] = "any"
    days: tuple[float, float, float]  # shortest, natural course, longest duration in days
    event: bool = False  # something that happened, rather than something that lasts
    temp: Literal["normal", "febrile"] = "normal"
    painless: bool = False  # nobody would rate it 8 out of 10 in spite of painkillers
    worsens_first: bool = False  # it is expected to get worse before it gets better
    note: str
    complaint: tuple[str, ...] = Field(min_length=WORDINGS)
    voices: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # general facts that do not suit this problem
    ed_if: tuple[str, ...] = ()
    gp_if: tuple[str, ...] = ()
    ed_under: float = 0
    gp_under: float = 0
    gp_over: float = 200
    spo2_floor: int = 91  # highest saturation in % that alone is an emergency
    red: dict[str, ClinicalFact] = Field(min_length=2)
    amber: dict[str, ClinicalFact] = Field(min_length=1)
    mild: dict[str, ClinicalFact] = Field(min_length=2)

    @model_validator(mode="after")
    def _flags_are_distinct(self) -> ClinicalProblem:
        names = [*self.red, *self.amber, *self.mild]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.id}: a fact's name may be used once in a problem")
        if any(len(fact.deny) < WORDINGS for fact in (*self.red.values(), *self.amber.values())):
            raise ValueError(
                f"{self.id}: each red and amber fact needs {WORDINGS} wordings of its 'deny'"
            )

        return self

    @property
    def lasting_decides(self) -> bool:
        """Whether it can last plainly longer than its natural course: a reason to see a doctor."""
        return self.days[1] * PLAINLY_LONGER < self.days[2]

    def age_range(self, band: str) -> tuple[float, float]:
        """Youngest and oldest age in years for a band, narrowed by the problem and its contexts."""
        always = [contexts()[name] for name in self.always]
        ranges = [BAND_YEARS[band], self.years, *((of.min_age, of.max_age) for of in always)]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    def general_facts(self, kind: Kind) -> Mapping[str, ClinicalFact]:
        """The facts of a kind that can join any problem, in the words that they have here."""
        return general().facts(kind)

    def fact(self, name: str) -> ClinicalFact:
        """One of the problem's own facts, or a general one. Raises KeyError for an unknown name."""
        for of in (self.facts, self.general_facts):
            for kind in KINDS:
                if name in of(kind):
                    return of(kind)[name]

        raise KeyError(f"{self.id} has no fact {name}")


class Context(Strict):
    """An illness, medicine or circumstance of the patient, within an age range in years.

    One that is `serious` appears only with problems that say what it means for them.
    """

    note: str
    say: tuple[str, ...] = Field(min_length=1)
    deny: tuple[str, ...] = ()
    min_age: float = 0
    max_age: float = 200
    serious: bool = False
    sex: Literal["f", "m"] | None = None


@cache
def problems() -> dict[str, ClinicalProblem]:
    """The presenting problems of all sets by id, in the order of file name and place in the file."""
    return _problems_in(FOLDER, ())


@cache
def further_problems() -> dict[str, ClinicalProblem]:
    """The problems that only train may have, by id, in the same order."""
    return _problems_in(FURTHER, problems())


@cache
def registered_problems() -> dict[str, ClinicalProblem]:
    """The problems that only `test_registered` may have, by id, in the same order."""
    return _problems_in(REGISTERED_FOLDER, {*problems(), *further_problems()})


def problem_named(problem_id: str) -> ClinicalProblem:
    """A problem of any kind. Raises KeyError for an unknown id."""
    for of in (problems, further_problems):
        if problem_id in of():
            return of()[problem_id]
    return registered_problems()[problem_id]


def _problems_in(folder: Path, taken_ids: Collection[str]) -> dict[str, ClinicalProblem]:
    general_names = {*general().red, *general().amber, *general().mild}
    by_id: dict[str, ClinicalProblem] = {}
    for path in sorted(folder.glob("*.toml")):
        if path.stem in NOT_PROBLEMS:
            continue

        for name, entry in _read(path).items():
            if name in by_id or name in taken_ids:
                raise ValueError(f"{path.name}: the problem {name} is also in another file")
            values = {"id": name, "system": path.stem, "family": name, **entry}
            problem = ClinicalProblem.model_validate(values)
            if general_names & {*problem.red, *problem.amber, *problem.mild}:
                raise ValueError(f"{path.name}: {name} has a fact named like a general one")
            by_id[name] = problem

    return by_id


@cache
def general() -> General:
    """The facts that can join any problem."""
    return General.model_validate(_read(FOLDER / "general.toml"))


@cache
def contexts() -> dict[str, Context]:
    """All contexts by name."""
    entries = _read(FOLDER / "contexts.toml")
    return {name: Context.model_validate(entry) for name, entry in entries.items()}


@cache
def phrases() -> Phrases:
    """Wordings of everything that is no fact, by topic and form."""
    return _read(FOLDER / "phrases.toml")


@cache
def tone() -> dict[str, list[str]]:
    """Asides that carry the tone of an adversarial kind."""
    return _read(FOLDER / "tone.toml")


@cache
def american_words() -> dict[str, str]:
    """American words by their British ones."""
    return _read(FOLDER / "american.toml")


@cache
def knowledge_digest(folder: Path = FOLDER) -> str:
    """SHA-256 over the files behind all sets, or of a folder: any change of a wording makes a new
    data set.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.toml")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        return tomllib.load(handle)


class FlagWords(Strict):
    """A general red flag in other words: see `ClinicalFact`; `other` tells it of somebody else."""

    note: Words = Field(min_length=1)
    say: Words = ()
    deny: Words = Field(min_length=1)
    other: Words = ()


class FrameWordings(Strict):
    """Wordings around the facts; those of a kind that a set lacks are empty."""

    lists: Words = Field(min_length=1)
    others: Words = ()
    past: Words = ()
    imagined: Words = ()
    figures: Words = ()
    fear: Words = Field(min_length=1)
    ease: Words = Field(min_length=1)


class Bank(Strict):
    """The general red flags by name and the frames around them.

    By problem: its complaints, and of its facts, by name, the most pictorial wording and the note.
    """

    flag: dict[str, FlagWords]
    frame: FrameWordings
    complaint: dict[str, Words] = Field(default_factory=dict)
    picture: dict[str, dict[str, str]] = Field(default_factory=dict)
    note: dict[str, dict[str, str]] = Field(default_factory=dict)


class RewordedProblem(ClinicalProblem):
    """A problem whose general red flags are told in the words of a bank; it has no other general
    facts, since a bank has no words for them."""

    _flags: dict[str, ClinicalFact] = PrivateAttr(default_factory=dict)

    def general_facts(self, kind: Kind) -> Mapping[str, ClinicalFact]:
        return self._flags if kind == "red" else {}


def reworded(problem: ClinicalProblem, bank: Bank, rng: random.Random) -> RewordedProblem:
    """The problem in the words of a bank; of the names of a flag one is drawn."""
    fields = dict(problem)
    fields["complaint"] = bank.complaint.get(problem.id, problem.complaint)
    for kind in KINDS:
        facts = dict(fields[kind])
        for name, note in bank.note.get(problem.id, {}).items():
            if name in facts:
                facts[name] = facts[name].model_copy(update={"note": note})
        for name, picture in bank.picture.get(problem.id, {}).items():
            if name in facts:
                say = (*facts[name].say[:-1], picture)
                facts[name] = facts[name].model_copy(update={"say": say})
        fields[kind] = facts

    copy = RewordedProblem.model_construct(**fields)
    for name, words in bank.flag.items():
        fact = general().red[name]
        update = {"note": rng.choice(words.note), "say": words.say or fact.say, "deny": words.deny}
        copy._flags[name] = fact.model_copy(update=update)
    return copy


@cache
def read_bank(name: str) -> Bank:
    """A bank by the name of its file."""
    text = (BANK_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return Bank.model_validate(tomllib.loads(text))


@cache
def teaching_bank(learner: Learner) -> Bank:
    """The part of the teaching bank for a set: no wording is in both."""

    def part(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {key: part(value) for key, value in entry.items()}
        return tuple(
            words
            for number, words in enumerate(entry, start=1)
            if (number % EVERY == 0) == (learner == "valid")
        )

    return Bank.model_validate(part(read_bank("teaching").model_dump()))


@cache
def bank_digest(name: str) -> str:
    """SHA-256 of a bank's file."""
    return hashlib.sha256((BANK_FOLDER / f"{name}.toml").read_bytes()).hexdigest()
