"""Readings that go with a case: normal or slightly off, or one in the emergency range."""

from __future__ import annotations

import random
from dataclasses import replace

from tasks.corpus.vignettes.knowledge_base import FEVER, Problem
from tasks.corpus.vignettes.label_rules import YOUNG, Facts, Vitals

NORMAL = (  # up to which age in years: heart and breathing rates a minute; none is amber in NICE NG143 (under 5)
    (1, (105, 155), (26, 50)), (2, (98, 148), (22, 38)), (3, (92, 138), (22, 38)), (5, (82, 125), (18, 30)),
    (13, (72, 104), (16, 21)), (200, (60, 100), (12, 20)),
)  # fmt: skip
SATURATED = 96  # %, at least, in those without a lung disease: 95 is amber under 5


def draw_vitals(problem: Problem, route: str, facts: Facts, rng: random.Random) -> Vitals:
    """A full set in a plausible range; a red flag that makes a person visibly ill is left without figures."""
    present = [problem.fact(name) for name in (*facts.red, *facts.amber)]
    if any(fact.sick for fact in present):
        return Vitals()
    hot = problem.temp == "febrile" or route == "fever" or any(fact.feverish for fact in present)
    told = [fact.temp for fact in (*present, *map(problem.fact, facts.mild)) if fact.temp]
    degrees = told[0] if told else (FEVER, 39.5) if hot else (36.1, 37.5)
    heart, breaths = next(rates for limit, *rates in NORMAL if facts.age < limit)
    systolic = rng.randint(*((104, 148) if facts.age >= 18 else (88, 116)))
    vitals = Vitals(
        temp=round(rng.uniform(*degrees), 1),
        hr=rng.randint(*heart),
        rr=rng.randint(*breaths),
        spo2=rng.randint(problem.spo2_floor + 2, 94)
        if problem.spo2_floor < 90
        else rng.randint(SATURATED, 99),
        sbp=systolic,
        dbp=systolic - rng.randint(36, 56),
    )
    return _emergency(vitals, facts, problem, rng) if route == "vital" else vitals


def _emergency(vitals: Vitals, facts: Facts, problem: Problem, rng: random.Random) -> Vitals:
    """One reading moved into the emergency range, and another that often goes with it."""
    low, sbp = problem.spo2_floor, rng.randint(76, 90)
    spo2 = rng.randint(low - 6, low)
    if facts.age < YOUNG and rng.random() < 0.5:
        return replace(vitals, temp=round(rng.uniform(FEVER, 39.3), 1), hr=rng.randint(150, 175))
    if facts.age < 16:
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
