"""The nurse's note: noun phrases, shorthand, denials in one list, observations."""

from __future__ import annotations

import random

from tasks.corpus.vignettes.flags import draw_reassurance
from tasks.corpus.vignettes.knowledge_base import Problem, contexts, phrases
from tasks.corpus.vignettes.label_rules import Facts, decisive_vital
from tasks.corpus.vignettes.voices import conjugate
from tasks.corpus.vignettes.wording import amount, listed

NO_NOUNS = ("on ", "having ", "pregnant")  # contexts that are denied by "not" rather than "no"


def nurse_note(problem: Problem, facts: Facts, rng: random.Random) -> str:
    """A telegraphic note that holds every fact of the case."""
    parts = [problem.fact(name).note for name in (*facts.red, *facts.amber, *facts.mild)]
    parts += _denials(problem, facts, rng) + _history(problem, facts, rng)
    if facts.trend:
        parts.append(rng.choice(phrases()["trend_note"][facts.trend]))
    if facts.severity:
        parts.append(rng.choice(phrases()["severity_note"][facts.severity]))
    parts += _extras(problem, facts, rng)
    rng.shuffle(parts)
    readings = _readings(problem, facts, rng)
    return " ".join(
        f"{part[:1].upper()}{part[1:]}."
        for part in [_heading(problem, facts, rng), *parts, *readings]
    )


def _heading(problem: Problem, facts: Facts, rng: random.Random) -> str:
    sex = "F" if facts.sex == "f" else "M"
    young = (
        f"{int(facts.age * 12)}/12" if facts.age >= 0.25 else f"{max(1, int(facts.age * 52))}/52"
    )
    age = f"{int(facts.age)}{sex}" if facts.age >= 2 else f"{young} {sex}"
    count, unit = amount(facts.days)
    short = {"day": f"{count}/7", "week": f"{count}/52", "month": f"{count}/12"}.get(unit)
    plain = f"{count} {unit}{'' if count == 1 else 's'}"
    span = short if short and rng.random() < 0.4 else plain
    lead = rng.choice(("c/o ", "presents with ", "", "reports "))
    return f"{age}, {lead}{problem.note}, {span}{' ago' if problem.event else ''}"


def _denials(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    absent = [problem.fact(name) for name in facts.denied]
    notes = [fact.note for fact in absent if fact.listable]
    clauses = [conjugate(rng.choice(fact.deny), facts.sex) for fact in absent if not fact.listable]
    if not notes:
        return clauses
    form = rng.choice(("denies {}", "no {}", "nil {}", "not present: {}", "asked about {}: none"))
    return [
        form.format(listed(notes, "or" if form.startswith(("denies", "no ")) else "and")),
        *clauses,
    ]


def _history(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    known = [contexts()[name].note for name in facts.contexts if name not in problem.always]
    absent = [contexts()[name].note for name in facts.absent_contexts]
    parts = [f"{rng.choice(('PMH', 'background', 'hx'))}: {', '.join(known)}"] if known else []
    return parts + [f"{'not' if note.startswith(NO_NOUNS) else 'no'} {note}" for note in absent]


def _extras(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    parts = draw_reassurance("note", 0.25, problem, facts, rng)
    return parts + (
        [rng.choice(phrases()["tried"]["note"])] if rng.random() < 0.15 and facts.age >= 2 else []
    )


def _readings(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    """Observations in shorthand; a decisive one is always among them."""
    vitals = facts.vitals
    if vitals.temp is None:
        return []
    decisive = decisive_vital(facts, problem)
    if decisive is None and rng.random() < 0.35:
        return []
    shown = {
        "temp": f"T {vitals.temp}", "hr": f"HR {vitals.hr}", "rr": f"RR {vitals.rr}",
        "spo2": f"SpO2 {vitals.spo2} %", "sbp": f"BP {vitals.sbp}/{vitals.dbp}",
    }  # fmt: skip
    names = [n for n in shown if n == decisive or rng.random() < 0.75]
    if facts.age < 12 and decisive != "sbp":
        names = [n for n in names if n != "sbp"]
    return ["Obs: " + ", ".join(shown[n] for n in names)] if names else []
