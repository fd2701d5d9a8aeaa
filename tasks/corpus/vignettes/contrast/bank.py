"""Wordings of the contrast cases and of the second adversarial set, in TOML beside this file.

They are no part of the knowledge base, whose bytes are in the digest of every embedded dataset.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from tasks.corpus.vignettes.knowledge_base import (
    KINDS,
    ClinicalFact,
    ClinicalProblem,
    Kind,
    general,
)
from tasks.spec import Strict

FOLDER = Path(__file__).parent
EVERY = 4  # of each list one entry in so many is for valid
Words = tuple[str, ...]
Learner = Literal["train", "valid"]


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
        fields[kind] = {
            name: _own_fact(fact, name, problem.id, bank) for name, fact in fields[kind].items()
        }

    copy = RewordedProblem.model_construct(**fields)
    for name, words in bank.flag.items():
        fact = general().red[name]
        update = {"note": rng.choice(words.note), "say": words.say or fact.say, "deny": words.deny}
        copy._flags[name] = fact.model_copy(update=update)
    return copy


def _own_fact(fact: ClinicalFact, name: str, problem: str, bank: Bank) -> ClinicalFact:
    """A fact of the problem itself, with what the bank says otherwise."""
    note = bank.note.get(problem, {}).get(name)
    picture = bank.picture.get(problem, {}).get(name)
    words: dict[str, object] = {"note": note} if note else {}
    if picture:
        words["say"] = (*fact.say[:-1], picture)
    return fact.model_copy(update=words) if words else fact


@cache
def read_bank(name: str) -> Bank:
    """A bank by the name of its file."""
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
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
    return hashlib.sha256((FOLDER / f"{name}.toml").read_bytes()).hexdigest()
