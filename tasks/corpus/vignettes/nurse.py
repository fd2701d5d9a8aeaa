"""The nurse's note: noun phrases, shorthand, denials in one list, observations."""

from __future__ import annotations

import random

from tasks.corpus.vignettes.flags import draw_reassurance
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem, contexts, phrases
from tasks.corpus.vignettes.label_rules import Facts, decisive_vital
from tasks.corpus.vignettes.voices import conjugate
from tasks.corpus.vignettes.wording import MONTHS_BELOW, WEEKS_BELOW, amount, listed_after_no

NOT_NOUNS = ("on ", "having ", "pregnant")  # contexts that are denied by "not" rather than "no"
# What a unit of time is divided by in shorthand: 3/7 is three days.
SHORTHAND = {"day": 7, "week": 52, "month": 12}
BLOOD_PRESSURE_FROM = 12  # years of age from which on it is usually measured


def nurse_note(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> str:
    """A telegraphic note that holds every fact of the case."""
    parts = [problem.fact(name).note for name in (*facts.red, *facts.amber, *facts.mild)]
    parts += _denials(problem, facts, rng)
    parts += _history(problem, facts, rng)
    if facts.trend:
        parts.append(rng.choice(phrases()["trend_note"][facts.trend]))
    if facts.severity:
        parts.append(rng.choice(phrases()["severity_note"][facts.severity]))

    parts += _extras(problem, facts, rng)
    rng.shuffle(parts)

    readings = _readings(problem, facts, rng)
    heading = _heading(problem, facts, rng)
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in [heading, *parts, *readings])


def _heading(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> str:
    """Age, sex, complaint and duration."""
    count, unit = amount(facts.days)
    span = f"{count} {unit}{'' if count == 1 else 's'}"
    if unit in SHORTHAND and rng.random() < 0.4:
        span = f"{count}/{SHORTHAND[unit]}"

    lead = rng.choice(("c/o ", "presents with ", "", "reports "))
    return f"{_age_and_sex(facts)}, {lead}{problem.note}, {span}{' ago' if problem.event else ''}"


def _age_and_sex(facts: Facts) -> str:
    """34F; 7/12 M for seven months; 3/52 M for three weeks."""
    sex = "F" if facts.sex == "f" else "M"
    if facts.age >= MONTHS_BELOW:
        return f"{int(facts.age)}{sex}"
    if facts.age >= WEEKS_BELOW:
        return f"{int(facts.age * 12)}/12 {sex}"
    return f"{max(1, int(facts.age * 52))}/52 {sex}"


def _denials(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Absent flags: nouns in one list, the others each as a clause."""
    absent = [problem.fact(name) for name in facts.denied]
    notes = [fact.note for fact in absent if fact.listable]
    clauses = [conjugate(rng.choice(fact.deny), facts.sex) for fact in absent if not fact.listable]
    if not notes:
        return clauses

    form = rng.choice(("denies {}", "no {}", "nil {}", "not present: {}", "asked about {}: none"))
    joiner = "or" if form.startswith(("denies", "no ")) else "and"
    return [form.format(listed_after_no(notes, joiner)), *clauses]


def _history(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    notes = [contexts()[name].note for name in facts.contexts if name not in problem.always]
    absent = [contexts()[name].note for name in facts.absent_contexts]

    parts = []
    if notes:
        parts.append(f"{rng.choice(('PMH', 'background', 'hx'))}: {', '.join(notes)}")
    return parts + [f"{'not' if note.startswith(NOT_NOUNS) else 'no'} {note}" for note in absent]


def _extras(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    parts = draw_reassurance("note", 0.25, problem, facts, rng)
    if rng.random() < 0.15 and facts.age >= 2:
        parts.append(rng.choice(phrases()["tried"]["note"]))
    return parts


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
