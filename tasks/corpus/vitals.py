"""Readings that go with a case: normal or slightly off, or one in the emergency range."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from tasks.corpus.knowledge_base import Problem
from tasks.corpus.rules import Facts, Vitals


def draw_vitals(problem: Problem, route: str, facts: Facts, rng: random.Random) -> Vitals:
    """A full set in a plausible range; a red flag that makes a person visibly ill is left without figures."""
    present = [problem.fact(name) for name in (*facts.red, *facts.amber)]
    if any(fact.sick for fact in present):
        return Vitals()
    text = " ".join(" ".join((f.note, *f.say)) for f in present)
    hot = problem.temp == "febrile" or re.search(r"fever|temperature|burning hot|chills", text) is not None
    child = 0 if facts.age >= 13 else (1 if facts.age >= 3 else 2)
    systolic = rng.randint(*((104, 148) if facts.age >= 18 else (88, 116)))
    vitals = Vitals(
        temp=round(rng.uniform(38.0, 39.5) if hot else rng.uniform(36.1, 37.5), 1),
        hr=rng.randint(*((60, 112), (80, 125), (105, 155))[child]),
        rr=rng.randint(*((12, 21), (18, 30), (26, 50))[child]),
        spo2=rng.randint(problem.spo2_floor + 2, 94) if problem.spo2_floor < 90 else rng.randint(95, 99),
        sbp=systolic,
        dbp=systolic - rng.randint(36, 56),
    )
    return _emergency(vitals, facts.age, problem, rng) if route == "vital" else vitals


def _emergency(vitals: Vitals, age: float, problem: Problem, rng: random.Random) -> Vitals:
    """One reading moved into the emergency range, and another that often goes with it."""
    low, sbp = problem.spo2_floor, rng.randint(76, 90)
    spo2 = rng.randint(low - 6, low)
    if age < 16:
        return rng.choice((replace(vitals, spo2=spo2, hr=150), replace(vitals, rr=rng.randint(62, 76), hr=165)))
    return rng.choice(
        (
            replace(vitals, spo2=spo2, rr=rng.randint(20, 24)),
            replace(vitals, rr=rng.randint(26, 36), hr=rng.randint(95, 125)),
            replace(vitals, sbp=sbp, dbp=sbp - rng.randint(28, 40), hr=rng.randint(100, 128)),
            replace(vitals, hr=rng.randint(132, 168)),
        )
    )
