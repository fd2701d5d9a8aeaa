"""Writes a case's facts as one message: which sentences, in which order, in whose voice. Never the label or the rule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

from tasks.corpus.vignettes.flags import draw_reassurance
from tasks.corpus.vignettes.knowledge_base import Problem, contexts, phrases
from tasks.corpus.vignettes.label_rules import Facts, decisive_vital
from tasks.corpus.vignettes.nurse import nurse_note
from tasks.corpus.vignettes.voices import american, conjugate, contract, texted
from tasks.corpus.vignettes.wording import age_words, duration_words, listed, sentence, vital_clause

MAX_WORDS = 100
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


@dataclass(frozen=True)
class Style:
    """How a case is told. `mood` is the tone of the framing, `lay` prefers the last, most pictorial wording of a fact.

    `asides` are clauses that are no facts; `listed` names what is absent in one list, in the very words of the flags.
    """

    voice: str
    spelling: str
    mood: str
    lay: bool = False
    listed: bool = False
    asides: tuple[str, ...] = ()


def band_of(age: float) -> str:
    """Age band of an age in years."""
    limits = (("infant", 1), ("child", 13), ("teen", 18), ("adult", 65), ("older", 80))
    return next((name for name, limit in limits if age < limit), "frail")


def draw_style(problem: Problem, facts: Facts, rng: random.Random) -> Style:
    """A voice that suits the age, a spelling, and a mood that says nothing about the label."""
    weights = BY_BAND[band_of(facts.age)]
    able = {
        voice: weight
        for voice, weight in weights.items()
        if not problem.voices or voice in problem.voices
    } or {"carer": 1.0}
    voice = rng.choices(list(able), list(able.values()))[0]
    mood = rng.choices(("plain", "calm", "alarm"), (0.5, 0.25, 0.25))[0]
    return Style(voice, rng.choice(("british", "american")), mood)


def render(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> str:
    """The text of a case, at most MAX_WORDS words where the facts allow it."""
    write = nurse_note if style.voice == "nurse" else partial(_spoken, style=style)
    text = write(problem, facts, rng=rng)
    for _ in range(RETELLINGS):
        if len(text.split()) <= MAX_WORDS:
            break
        text = min(text, write(problem, facts, rng=rng), key=lambda told: len(told.split()))
    if style.spelling == "american":
        text = american(text)
    return texted(text, rng) if style.voice == "terse" else text


def _spoken(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> str:
    person = _person(facts, style)
    needed = [
        _say(problem.fact(name).say, style, rng) for name in (*facts.red, *facts.amber, *facts.mild)
    ]
    needed += [*_contexts(problem, facts, rng), *style.asides]
    if facts.trend:
        told = [
            words
            for words in phrases()["trend"][facts.trend]
            if facts.days >= DAYS_TO_COMPARE or " day" not in words
        ]
        needed.append(rng.choice(told))
    if facts.severity:
        needed.append(rng.choice(phrases()["severity"][facts.severity]))
    needed += _vital_clauses(problem, facts, style, rng) + _denials(problem, facts, style, rng)
    optional = _extras(problem, facts, style, rng)
    opening = _opening(problem, facts, style, rng)
    body = _fit(opening, needed, optional, rng)
    text = " ".join(
        [*_framed(style, opening, rng), *(sentence(conjugate(clause, person)) for clause in body)]
    )
    text = " ".join([text, *_closing(style, rng)])
    return contract(text) if rng.random() < 0.6 else text


def _person(facts: Facts, style: Style) -> str:
    if style.voice == "patient" or (style.voice == "terse" and facts.age >= 13):
        return "I"
    return facts.sex


def _say(wordings: tuple[str, ...], style: Style, rng: random.Random) -> str:
    return wordings[-1] if style.lay else rng.choice(wordings)


def _contexts(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    shown = [n for n in facts.contexts if n not in problem.always]
    clauses = [rng.choice(contexts()[name].say) for name in shown]
    return clauses + [rng.choice(contexts()[name].deny) for name in facts.absent_contexts]


def _denials(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> list[str]:
    """Absent flags: each as its own clause, or together as a list of nouns with "no"."""
    absent = [problem.fact(name) for name in facts.denied]
    nouns = [fact.note for fact in absent if fact.listable]
    rest = [rng.choice(fact.deny) for fact in absent if not fact.listable]
    if style.listed and nouns:
        return [f"none of these: {listed(nouns, 'or')}", *rest]
    if len(nouns) < 2 or rng.random() < 0.5:
        return [rng.choice(fact.deny) for fact in absent]
    return [rng.choice(("there is no ", "[I] [have] had no ", "no ")) + listed(nouns, "or"), *rest]


def _vital_clauses(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> list[str]:
    """A decisive vital sign is always told; others now and then, as people with a thermometer do."""
    decisive = decisive_vital(facts, problem)
    kind = (
        decisive
        or rng.choices(
            (None, "temp", "spo2", "sbp"), (0.85, 0.08, 0.05, 0.02 if facts.age > 30 else 0)
        )[0]
    )
    return (
        [vital_clause(kind, facts.vitals, style.spelling, rng)]
        if kind and facts.vitals.temp is not None
        else []
    )


def _extras(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> list[str]:
    asides = [
        a for a in phrases()["aside"]["say"] if facts.age >= 13 or "[I]" not in a
    ]  # a baby has no plans
    clauses = [rng.choice(asides)] if rng.random() < 0.2 else []
    clauses += draw_reassurance("say", 0.2, problem, facts, rng)
    return clauses + (
        [rng.choice(phrases()["tried"]["say"])] if rng.random() < 0.12 and facts.age >= 2 else []
    )


def _fit(opening: str, needed: list[str], optional: list[str], rng: random.Random) -> list[str]:
    """Needed clauses, and optional ones while there is room, in random order."""
    budget = MAX_WORDS - 12 - len(opening.split()) - sum(len(clause.split()) for clause in needed)
    kept = []
    for clause in optional:
        budget -= len(clause.split())
        if budget >= 0:
            kept.append(clause)
    body = needed + kept
    rng.shuffle(body)
    return body


def _opening(problem: Problem, facts: Facts, style: Style, rng: random.Random) -> str:
    """Who has what since when, as one or two sentences."""
    person = _person(facts, style)
    complaint = conjugate(rng.choice(problem.complaint), person)
    when = duration_words(facts.days, rng, ago=problem.event)
    if person == "I":
        who = rng.choice(
            (f"I am {age_words(facts.age)}", f"{age_words(facts.age)} year old {_noun(facts)} here")
        )
        parts = [sentence(f"{complaint}, {when}"), sentence(who)]
        return " ".join(parts if rng.random() < 0.6 else parts[::-1])
    who = f"{_relation(facts, style, rng)}, {age_words(facts.age)}"
    return (
        sentence(f"{rng.choice(('this is about', 'writing about', 'it is about'))} {who}")
        + " "
        + sentence(f"{complaint}, {when}")
    )


def _noun(facts: Facts) -> str:
    if facts.age < 18:
        return "girl" if facts.sex == "f" else "boy"
    return "woman" if facts.sex == "f" else "man"


def _relation(facts: Facts, style: Style, rng: random.Random) -> str:
    female = facts.sex == "f"
    if facts.age < 18:
        child = ("my daughter", "our girl") if female else ("my son", "our boy")
        little = ("my little girl" if female else "my little boy",) if facts.age < 10 else ()
        return rng.choice(child + little)
    if facts.age < 65:
        return rng.choice(
            ("my wife", "my sister", "my flatmate")
            if female
            else ("my husband", "my brother", "my flatmate")
        )
    return rng.choice(
        ("my mum", "my gran", "a resident I look after")
        if female
        else ("my dad", "my grandad", "a resident I look after")
    )


def _framed(style: Style, opening: str, rng: random.Random) -> list[str]:
    if style.mood == "plain" and rng.random() < 0.6:
        return [opening]
    return [sentence(conjugate(rng.choice(phrases()["opener"][style.mood]), "I")), opening]


def _closing(style: Style, rng: random.Random) -> list[str]:
    if rng.random() < (0.6 if style.mood == "plain" else 0.5):
        return []
    return [sentence(conjugate(rng.choice(phrases()["closer"][style.mood]), "I"))]
