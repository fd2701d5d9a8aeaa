"""Readings that go with a case: normal or slightly off, or one in the emergency range."""

from __future__ import annotations

import random
from dataclasses import replace

from tasks.corpus.vignettes.knowledge_base import FEVER, ClinicalProblem
from tasks.corpus.vignettes.label_rules import ADULT_VITALS, YOUNG, Facts, Vitals

# Up to which age in years: heart and breathing rates a minute. None of them is amber in NICE NG143
# (under 5).
NORMAL = (
    (1, (105, 155), (26, 50)), (2, (98, 148), (22, 38)), (3, (92, 138), (22, 38)), (5, (82, 125), (18, 30)),
    (13, (72, 104), (16, 21)), (200, (60, 100), (12, 20)),
)  # fmt: skip
NORMAL_TEMPERATURE = (36.1, 37.5)  # degrees Celsius
FEVERISH_TEMPERATURE = (FEVER, 39.5)
SATURATED = 96  # %, at least, without a lung disease: 95 is amber under 5


def draw_vitals(problem: ClinicalProblem, route: str, facts: Facts, rng: random.Random) -> Vitals:
    """A full set in a plausible range; none beside a red flag that makes a person visibly ill."""
    flags = [problem.fact(name) for name in (*facts.red, *facts.amber)]
    if any(fact.sick for fact in flags):
        return Vitals()

    # What a fact states, else a fever where the problem, the route or a flag has one.
    mild = [problem.fact(name) for name in facts.mild]
    stated = [fact.temp for fact in (*flags, *mild) if fact.temp]
    hot = problem.temp == "febrile" or route == "fever" or any(fact.feverish for fact in flags)
    degrees = FEVERISH_TEMPERATURE if hot else NORMAL_TEMPERATURE
    if stated:
        degrees = stated[0]
    # A lung disease, which lowers the problem's floor, lowers the usual saturation too.
    saturation = (problem.spo2_floor + 2, 94) if problem.spo2_floor < 90 else (SATURATED, 99)

    heart, breaths = next(rates for limit, *rates in NORMAL if facts.age < limit)
    systolic = rng.randint(*((104, 148) if facts.age >= 18 else (88, 116)))
    vitals = Vitals(
        temp=round(rng.uniform(*degrees), 1),
        hr=rng.randint(*heart),
        rr=rng.randint(*breaths),
        spo2=rng.randint(*saturation),
        sbp=systolic,
        dbp=systolic - rng.randint(36, 56),
    )

    return _emergency(vitals, facts, problem, rng) if route == "vital" else vitals


def _emergency(
    vitals: Vitals, facts: Facts, problem: ClinicalProblem, rng: random.Random
) -> Vitals:
    """One reading moved into the emergency range, and another that often goes with it."""
    sbp = rng.randint(76, 90)
    spo2 = rng.randint(problem.spo2_floor - 6, problem.spo2_floor)

    if facts.age < YOUNG and rng.random() < 0.5:
        return replace(vitals, temp=round(rng.uniform(FEVER, 39.3), 1), hr=rng.randint(150, 175))
    if facts.age < ADULT_VITALS:
        return rng.choice(
            (replace(vitals, spo2=spo2, hr=150), replace(vitals, rr=rng.randint(62, 76), hr=165))
        )

    return rng.choice(
        (
            replace(vitals, spo2=spo2, rr=rng.randint(20, 24)),
            replace(vitals, rr=rng.randint(26, 36), hr=rng.randint(95, 125)),
            replace(vitals, sbp=sbp, dbp=sbp - rng.randint(28, 40), hr=rng.randint(100, 128)),
            replace(vitals, hr=rng.randint(132, 168)),
        )
    )
