"""Writes a case's facts as one message: which sentences, in which order, in whose voice.

Never the label or the rule.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial

from tasks.corpus.vignettes.flags import draw_reassurance
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem, contexts, phrases
from tasks.corpus.vignettes.label_rules import Facts, decisive_vital
from tasks.corpus.vignettes.nurse import nurse_note
from tasks.corpus.vignettes.voices import american, conjugate, contract, texted
from tasks.corpus.vignettes.wording import (
    age_words,
    duration_words,
    listed,
    listed_after_no,
    sentence,
    vital_clause,
)

MAX_WORDS = 100
FRAMING_WORDS = 12  # room for the opening and closing sentences of a mood
DAYS_TO_COMPARE = 3  # from here on "every day is a bit harder than the last" can be said
RETELLINGS = 20  # of a text that came out too long, in other wordings
BY_BAND: dict[str, dict[str, float]] = {
    "infant": {"parent": 0.7, "nurse": 0.2, "terse": 0.1},
    "child": {"parent": 0.65, "nurse": 0.2, "terse": 0.15},
    "teen": {"patient": 0.4, "parent": 0.3, "nurse": 0.15, "terse": 0.15},
    "adult": {"patient": 0.5, "nurse": 0.2, "terse": 0.2, "carer": 0.1},
    "older": {"patient": 0.4, "carer": 0.25, "nurse": 0.2, "terse": 0.15},
    "frail": {"carer": 0.65, "nurse": 0.35},
}
# Who is meant, by sex, for a child (the last only under ten), an adult, and in later life.
CHILDREN = {
    "f": ("my daughter", "our girl", "my little girl"),
    "m": ("my son", "our boy", "my little boy"),
}
ADULTS = {
    "f": ("my wife", "my sister", "my flatmate"),
    "m": ("my husband", "my brother", "my flatmate"),
}
ELDERS = {
    "f": ("my mum", "my gran", "a resident I look after"),
    "m": ("my dad", "my grandad", "a resident I look after"),
}


@dataclass(frozen=True)
class Style:
    """How a case is written.

    `mood` is the tone of the framing, `lay` prefers the last, most pictorial wording of a fact.

    `asides` are clauses that are no facts; `listed` names absent flags in one list, in the very
    words of the flags, and `list_form` says so of {flags}.
    """

    voice: str
    spelling: str
    mood: str
    lay: bool = False
    listed: bool = False
    asides: tuple[str, ...] = ()
    list_form: str = "none of these: {flags}"


def band_of(age: float) -> str:
    """Age band of an age in years."""
    limits = (("infant", 1), ("child", 13), ("teen", 18), ("adult", 65), ("older", 80))
    return next((name for name, limit in limits if age < limit), "frail")


def draw_style(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> Style:
    """A voice that suits the age, a spelling, and a mood that says nothing about the label."""
    weights = {
        voice: weight
        for voice, weight in BY_BAND[band_of(facts.age)].items()
        if not problem.voices or voice in problem.voices
    } or {"carer": 1.0}

    voice = rng.choices(list(weights), list(weights.values()))[0]
    mood = rng.choices(("plain", "calm", "alarm"), (0.5, 0.25, 0.25))[0]
    return Style(voice, rng.choice(("british", "american")), mood)


def told_by_no_nurse(style: Style, age: float, rng: random.Random) -> Style:
    """The style in a voice with tone and pictures: a nurse's note has neither."""
    if style.voice != "nurse":
        return style
    relative = "carer" if age >= 18 else "parent"
    return replace(style, voice=rng.choice(("terse", relative)))


def render(problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random) -> str:
    """The text of a case, at most MAX_WORDS words where the facts allow it."""
    write = nurse_note if style.voice == "nurse" else partial(_spoken, style=style)
    text = write(problem, facts, rng=rng)
    for _ in range(RETELLINGS):
        if _word_count(text) <= MAX_WORDS:
            break
        text = min(text, write(problem, facts, rng=rng), key=_word_count)

    if style.spelling == "american":
        text = american(text)
    return texted(text, rng) if style.voice == "terse" else text


def _spoken(problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random) -> str:
    """The facts as sentences of a patient, a parent or a carer."""
    person = _person(facts, style)
    needed_clauses = _needed_clauses(problem, facts, style, rng)
    optional = _extras(problem, facts, rng)
    opening = _opening(problem, facts, style, rng)
    body = _fit(opening, needed_clauses, optional, rng)

    sentences = _framed(style, opening, rng)
    sentences += [sentence(conjugate(clause, person)) for clause in body]
    text = " ".join([" ".join(sentences), *_closing(style, rng)])
    return contract(text) if rng.random() < 0.6 else text


def _needed_clauses(
    problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random
) -> list[str]:
    """Every fact as a clause, before the order is drawn."""
    clauses = [
        _say(problem.fact(name).say, style, rng) for name in (*facts.red, *facts.amber, *facts.mild)
    ]
    clauses += [*_contexts(problem, facts, rng), *style.asides]
    if facts.trend:
        clauses.append(rng.choice(_trend_wordings(facts.trend, facts.days)))
    if facts.severity:
        clauses.append(rng.choice(phrases()["severity"][facts.severity]))

    clauses += _vital_clauses(problem, facts, style, rng)
    clauses += _denials(problem, facts, style, rng)
    return clauses


def _word_count(text: str) -> int:
    return len(text.split())


def _person(facts: Facts, style: Style) -> str:
    """The person in whose form verbs stand: "I", "f" (she) or "m" (he)."""
    if style.voice == "patient" or (style.voice == "terse" and facts.age >= 13):
        return "I"
    return facts.sex


def _say(wordings: tuple[str, ...], style: Style, rng: random.Random) -> str:
    return wordings[-1] if style.lay else rng.choice(wordings)


def _trend_wordings(trend: str, days: float) -> list[str]:
    """Wordings of a trend; those that compare days only where there are enough of them."""
    return [
        words
        for words in phrases()["trend"][trend]
        if days >= DAYS_TO_COMPARE or " day" not in words
    ]


def _contexts(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    names = [name for name in facts.contexts if name not in problem.always]
    clauses = [rng.choice(contexts()[name].say) for name in names]
    return clauses + [rng.choice(contexts()[name].deny) for name in facts.absent_contexts]


def _denials(problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random) -> list[str]:
    """Absent flags: each as its own clause, or together as a list of nouns with "no"."""
    absent = [problem.fact(name) for name in facts.denied]
    nouns = [fact.note for fact in absent if fact.listable]
    other_denials = [rng.choice(fact.deny) for fact in absent if not fact.listable]

    if style.listed and nouns:
        join = listed_after_no if "no {flags}" in style.list_form else listed
        return [style.list_form.format(flags=join(nouns, "or")), *other_denials]
    if len(nouns) < 2 or rng.random() < 0.5:
        return [rng.choice(fact.deny) for fact in absent]

    lead = rng.choice(("there is no ", "[I] [have] had no ", "no "))
    return [lead + listed_after_no(nouns, "or"), *other_denials]


def _vital_clauses(
    problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random
) -> list[str]:
    """A decisive vital sign is always reported; others now and then."""
    kind = decisive_vital(facts, problem)
    if kind is None:
        weights = (0.85, 0.08, 0.05, 0.02 if facts.age > 30 else 0)
        kind = rng.choices((None, "temp", "spo2", "sbp"), weights)[0]

    if kind is None or facts.vitals.temp is None:
        return []
    return [vital_clause(kind, facts.vitals, style.spelling, rng)]


def _extras(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Clauses that are not needed: an aside, something that is well, a remedy that was tried."""
    # A small child has no plans for the weekend.
    asides = [words for words in phrases()["aside"]["say"] if facts.age >= 13 or "[I]" not in words]
    clauses = [rng.choice(asides)] if rng.random() < 0.2 else []
    clauses += draw_reassurance("say", 0.2, problem, facts, rng)
    if rng.random() < 0.12 and facts.age >= 2:
        clauses.append(rng.choice(phrases()["tried"]["say"]))
    return clauses


def _fit(
    opening: str, needed_clauses: list[str], optional: list[str], rng: random.Random
) -> list[str]:
    """Needed clauses, and optional ones while there is room, in random order."""
    budget = (
        MAX_WORDS - FRAMING_WORDS - _word_count(opening) - sum(map(_word_count, needed_clauses))
    )
    body = list(needed_clauses)
    for clause in optional:
        budget -= _word_count(clause)
        if budget >= 0:
            body.append(clause)

    rng.shuffle(body)
    return body


def _opening(problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random) -> str:
    """Who has what since when, as two sentences."""
    person = _person(facts, style)
    complaint = conjugate(rng.choice(problem.complaint), person)
    duration = duration_words(facts.days, rng, ago=problem.event)

    if person == "I":
        patient = rng.choice(
            (f"I am {age_words(facts.age)}", f"{age_words(facts.age)} year old {_noun(facts)} here")
        )
        parts = [sentence(f"{complaint}, {duration}"), sentence(patient)]
        return " ".join(parts if rng.random() < 0.6 else parts[::-1])

    patient = f"{_relation(facts, rng)}, {age_words(facts.age)}"
    lead = rng.choice(("this is about", "writing about", "it is about"))
    return f"{sentence(f'{lead} {patient}')} {sentence(f'{complaint}, {duration}')}"


def _noun(facts: Facts) -> str:
    if facts.age < 18:
        return "girl" if facts.sex == "f" else "boy"
    return "woman" if facts.sex == "f" else "man"


def _relation(facts: Facts, rng: random.Random) -> str:
    """Who the patient is to the writer."""
    if facts.age < 18:
        words = CHILDREN[facts.sex]
        return rng.choice(words if facts.age < 10 else words[:2])
    return rng.choice(ADULTS[facts.sex] if facts.age < 65 else ELDERS[facts.sex])


def _framed(style: Style, opening: str, rng: random.Random) -> list[str]:
    """The opening, often after a sentence in the tone of the mood."""
    if style.mood == "plain" and rng.random() < 0.6:
        return [opening]
    opener = rng.choice(phrases()["opener"][style.mood])
    return [sentence(conjugate(opener, "I")), opening]


def _closing(style: Style, rng: random.Random) -> list[str]:
    if rng.random() < (0.6 if style.mood == "plain" else 0.5):
        return []
    closer = rng.choice(phrases()["closer"][style.mood])
    return [sentence(conjugate(closer, "I"))]
