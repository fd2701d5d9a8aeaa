"""Writes a case's facts as one message: which sentences, in which order, in whose voice, or a nurse's note.

Never the label or the rule.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial

from tasks.corpus.case import listed
from tasks.corpus.vignettes.draw_facts import draw_reassurance
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem, contexts, phrases
from tasks.corpus.vignettes.label_rules import Facts, decisive_vital
from tasks.corpus.vignettes.speech import (
    MONTHS_BELOW,
    WEEKS_BELOW,
    age_words,
    american,
    amount,
    conjugate,
    contract,
    duration_words,
    listed_after_no,
    sentence,
    texted,
    vital_clause,
)

NOT_NOUNS = ("on ", "having ", "pregnant")  # contexts that are denied by "not" rather than "no"
# What a unit of time is divided by in shorthand: 3/7 is three days.
SHORTHAND = {"day": 7, "week": 52, "month": 12}
BLOOD_PRESSURE_FROM = 12  # years of age from which on it is usually measured
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
    write = _nurse_note if style.voice == "nurse" else partial(_spoken, style=style)
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
    # In whose form verbs stand: "I", "f" (she) or "m" (he).
    is_patient = style.voice == "patient" or (style.voice == "terse" and facts.age >= 13)
    person = "I" if is_patient else facts.sex
    needed_clauses = _needed_clauses(problem, facts, style, rng)
    optional = _extras(problem, facts, rng)
    opening = _opening(problem, facts, person, rng)

    # Needed clauses, and optional ones while there is room, in random order.
    needed_words = sum(map(_word_count, needed_clauses))
    room = MAX_WORDS - FRAMING_WORDS - _word_count(opening) - needed_words
    body = list(needed_clauses)
    for clause in optional:
        room -= _word_count(clause)
        if room >= 0:
            body.append(clause)
    rng.shuffle(body)

    # The opening, often after a sentence in the tone of the mood, and at times one at the end.
    sentences = [opening]
    if style.mood != "plain" or rng.random() >= 0.6:
        opener = rng.choice(phrases()["opener"][style.mood])
        sentences.insert(0, sentence(conjugate(opener, "I")))
    sentences += [sentence(conjugate(clause, person)) for clause in body]
    if rng.random() >= (0.6 if style.mood == "plain" else 0.5):
        closer = rng.choice(phrases()["closer"][style.mood])
        sentences.append(sentence(conjugate(closer, "I")))

    text = " ".join(sentences)
    return contract(text) if rng.random() < 0.6 else text


def _needed_clauses(
    problem: ClinicalProblem, facts: Facts, style: Style, rng: random.Random
) -> list[str]:
    """Every fact as a clause, before the order is drawn."""
    wordings = [problem.fact(name).say for name in (*facts.red, *facts.amber, *facts.mild)]
    clauses = [words[-1] if style.lay else rng.choice(words) for words in wordings]
    names = [name for name in facts.contexts if name not in problem.always]
    clauses += [rng.choice(contexts()[name].say) for name in names]
    clauses += [rng.choice(contexts()[name].deny) for name in facts.absent_contexts]
    clauses += style.asides
    if facts.trend:
        # Those that compare days only where there are enough of them.
        has_days = facts.days >= DAYS_TO_COMPARE
        trends = phrases()["trend"][facts.trend]
        clauses.append(rng.choice([words for words in trends if has_days or " day" not in words]))
    if facts.severity:
        clauses.append(rng.choice(phrases()["severity"][facts.severity]))

    # A decisive vital sign is always reported; others now and then.
    kind = decisive_vital(facts, problem)
    if kind is None:
        weights = (0.85, 0.08, 0.05, 0.02 if facts.age > 30 else 0)
        kind = rng.choices((None, "temp", "spo2", "sbp"), weights)[0]
    if kind is not None and facts.vitals.temp is not None:
        clauses.append(vital_clause(kind, facts.vitals, style.spelling, rng))

    return clauses + _denials(problem, facts, style, rng)


def _word_count(text: str) -> int:
    return len(text.split())


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


def _extras(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Clauses that are not needed: an aside, something that is well, a remedy that was tried."""
    # A small child has no plans for the weekend.
    asides = [words for words in phrases()["aside"]["say"] if facts.age >= 13 or "[I]" not in words]
    clauses = [rng.choice(asides)] if rng.random() < 0.2 else []
    clauses += draw_reassurance("say", 0.2, problem, facts, rng)
    if rng.random() < 0.12 and facts.age >= 2:
        clauses.append(rng.choice(phrases()["tried"]["say"]))
    return clauses


def _opening(problem: ClinicalProblem, facts: Facts, person: str, rng: random.Random) -> str:
    """Who has what since when, as two sentences."""
    complaint = conjugate(rng.choice(problem.complaint), person)
    duration = duration_words(facts.days, rng, ago=problem.event)
    age = age_words(facts.age)

    if person == "I":
        nouns = ("girl", "boy") if facts.age < 18 else ("woman", "man")
        noun = nouns[0] if facts.sex == "f" else nouns[1]
        patient = rng.choice((f"I am {age}", f"{age} year old {noun} here"))
        parts = [sentence(f"{complaint}, {duration}"), sentence(patient)]
        return " ".join(parts if rng.random() < 0.6 else parts[::-1])

    # Who the patient is to the writer.
    relations = CHILDREN if facts.age < 18 else ADULTS if facts.age < 65 else ELDERS
    words = relations[facts.sex]
    patient = f"{rng.choice(words[:2] if 10 <= facts.age < 18 else words)}, {age}"
    lead = rng.choice(("this is about", "writing about", "it is about"))
    return f"{sentence(f'{lead} {patient}')} {sentence(f'{complaint}, {duration}')}"


def _nurse_note(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> str:
    """A telegraphic note that holds every fact of the case."""
    parts = [problem.fact(name).note for name in (*facts.red, *facts.amber, *facts.mild)]
    parts += _denials_in_a_note(problem, facts, rng)

    notes = [contexts()[name].note for name in facts.contexts if name not in problem.always]
    if notes:
        parts.append(f"{rng.choice(('PMH', 'background', 'hx'))}: {', '.join(notes)}")
    absent = [contexts()[name].note for name in facts.absent_contexts]
    parts += [f"{'not' if note.startswith(NOT_NOUNS) else 'no'} {note}" for note in absent]
    if facts.trend:
        parts.append(rng.choice(phrases()["trend_note"][facts.trend]))
    if facts.severity:
        parts.append(rng.choice(phrases()["severity_note"][facts.severity]))

    parts += draw_reassurance("note", 0.25, problem, facts, rng)
    if rng.random() < 0.15 and facts.age >= 2:
        parts.append(rng.choice(phrases()["tried"]["note"]))
    rng.shuffle(parts)

    readings = _readings(problem, facts, rng)
    count, unit = amount(facts.days)
    span = f"{count} {unit}{'' if count == 1 else 's'}"
    if unit in SHORTHAND and rng.random() < 0.4:
        span = f"{count}/{SHORTHAND[unit]}"
    lead = rng.choice(("c/o ", "presents with ", "", "reports "))
    ago = " ago" if problem.event else ""
    # 34F; 7/12 M for seven months; 3/52 M for three weeks.
    patient = f"{max(1, int(facts.age * 52))}/52 "
    if facts.age >= MONTHS_BELOW:
        patient = str(int(facts.age))
    elif facts.age >= WEEKS_BELOW:
        patient = f"{int(facts.age * 12)}/12 "
    heading = f"{patient}{facts.sex.upper()}, {lead}{problem.note}, {span}{ago}"
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in [heading, *parts, *readings])


def _denials_in_a_note(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Absent flags: nouns in one list, the others each as a clause."""
    absent = [problem.fact(name) for name in facts.denied]
    notes = [fact.note for fact in absent if fact.listable]
    clauses = [conjugate(rng.choice(fact.deny), facts.sex) for fact in absent if not fact.listable]
    if not notes:
        return clauses

    form = rng.choice(("denies {}", "no {}", "nil {}", "not present: {}", "asked about {}: none"))
    joiner = "or" if form.startswith(("denies", "no ")) else "and"
    return [form.format(listed_after_no(notes, joiner)), *clauses]


def _readings(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Observations in shorthand; a decisive one is always among them."""
    vitals = facts.vitals
    if vitals.temp is None:
        return []

    decisive = decisive_vital(facts, problem)
    if decisive is None and rng.random() < 0.35:
        return []

    shorthand = {
        "temp": f"T {vitals.temp}",
        "hr": f"HR {vitals.hr}",
        "rr": f"RR {vitals.rr}",
        "spo2": f"SpO2 {vitals.spo2} %",
        "sbp": f"BP {vitals.sbp}/{vitals.dbp}",
    }
    names = [name for name in shorthand if name == decisive or rng.random() < 0.75]
    if facts.age < BLOOD_PRESSURE_FROM and decisive != "sbp":
        names = [name for name in names if name != "sbp"]

    return ["Obs: " + ", ".join(shorthand[name] for name in names)] if names else []
