"""Draws the facts of a case: who, which flags, which denials, how long, how bad. The label is derived, never drawn.

A route only proposes facts; `rules.decide` says what they mean, and proposals with another label are thrown away.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from dataclasses import replace

from tasks.corpus.knowledge_base import BAND_YEARS, Context, Fact, Problem, contexts, general
from tasks.corpus.rules import Facts, Vitals, decide
from tasks.spec import Label

ATTEMPTS = 400
COMMON = frozenset(  # words of four letters and more that say nothing about what a fact is about
    (
        *(
            "with",
            "that",
            "this",
            "from",
            "have",
            "been",
            "there",
            "when",
            "than",
            "then",
            "them",
            "they",
            "were",
            "what",
        ),
        *(
            "which",
            "after",
            "before",
            "normal",
            "both",
            "side",
            "does",
            "never",
            "only",
            "into",
            "more",
            "most",
            "over",
        ),
        *(
            "such",
            "very",
            "will",
            "would",
            "each",
            "every",
            "like",
            "just",
            "without",
            "nothing",
            "having",
            "about",
            "still",
        ),
    )
)
ROUTES: dict[str, dict[str, float]] = {
    "ED": {"red": 0.84, "vital": 0.07, "who": 0.09},
    "GP": {"amber": 0.56, "who": 0.16, "long": 0.18, "severe": 0.10},
    "HOME": {"none": 1.0},
}
GENERAL_SHARE = {"red": 0.2, "amber": 0.22, "mild": 0.6}


def draw_facts(problem: Problem, label: Label, rng: random.Random) -> Facts:
    """Facts of one case of `problem` whose derived label is `label`. Raises ValueError if none is found."""
    for _ in range(ATTEMPTS):
        facts = _propose(problem, label, rng)
        if facts is not None and decide(facts, problem).label == label:
            return facts
    raise ValueError(f"{problem.id}: no facts give {label}; check its ages, days and flags")


def _propose(problem: Problem, label: Label, rng: random.Random) -> Facts | None:
    route = _pick(ROUTES[label], rng)
    facts = _person(problem, route, label, rng)
    facts = _with_flags(problem, route, facts, rng)
    days = _days(problem, route, facts, rng)
    if days is None:
        return None
    facts = replace(facts, days=days, trend=_trend(route, rng), severity=_severity(route, facts.age, rng))
    facts = replace(facts, denied=_denials(problem, facts, rng))
    return replace(facts, vitals=_vitals(problem, route, facts, rng))


def _pick(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _person(problem: Problem, route: str, label: Label, rng: random.Random) -> Facts:
    low, high = BAND_YEARS[rng.choice(problem.ages)]
    age = rng.uniform(low, high)
    limits = [n for n in ((problem.ed_under,) if label == "ED" else (problem.gp_under, problem.gp_over)) if 0 < n < 120]
    if route == "who" and limits and rng.random() < 0.5:  # near the limit, where the age decides
        age = min(max(rng.uniform(limits[-1] * 0.5, limits[-1] * 1.3), low), high)
    sex = rng.choice("fm") if problem.sex == "any" else problem.sex
    named = (*problem.ed_if, *problem.gp_if)
    able = [
        name
        for name, context in contexts().items()
        if _fits(context, age, sex) and name not in problem.always and (name in named or not context.serious)
    ]
    decisive = [n for n in able if n in (problem.ed_if if label == "ED" else problem.gp_if)]
    chosen = list(problem.always)
    if route == "who" and decisive:
        chosen.append(rng.choice(decisive))
    elif able and rng.random() < 0.4:
        chosen.append(rng.choice(able))
    moved = [n for n in named if n in able and n not in chosen]
    absent = [n for n in (moved or able) if n not in chosen and contexts()[n].deny]
    denied = (rng.choice(absent),) if absent and rng.random() < 0.3 else ()
    return Facts(problem.id, round(age, 2), sex, contexts=tuple(chosen), absent_contexts=denied)


def _fits(context: Context, age: float, sex: str) -> bool:
    return context.min_age <= age <= context.max_age and context.sex in (None, sex)


def _with_flags(problem: Problem, route: str, facts: Facts, rng: random.Random) -> Facts:
    second = route in ("red", "vital", "who") and rng.random() < 0.12
    red = _some(problem, "red", 1 if rng.random() < 0.85 else 2, facts, rng) if route == "red" else []
    amber = _some(problem, "amber", 1, facts, rng) if route == "amber" or second else []
    mild = _some(problem, "mild", rng.choice((1, 2, 2)), facts, rng, first_own=True)
    if red or amber:
        sick = any(problem.fact(name).sick for name in red)
        mild = [name for name in mild if problem.fact(name).also and not sick]
    if red and amber and _overlap(problem.fact(red[0]), problem.fact(amber[0])):
        amber = []
    return replace(facts, red=tuple(red), amber=tuple(amber), mild=tuple(mild))


def _some(
    problem: Problem, kind: str, count: int, facts: Facts, rng: random.Random, first_own: bool = False
) -> list[str]:
    """Names of facts of a kind, mostly the problem's own; never two that speak of the same thing."""
    chosen: list[str] = []
    for place in range(count):
        general_one = rng.random() < GENERAL_SHARE[kind] and not (first_own and place == 0)
        pool = _general(problem, kind, facts) if general_one else _own(problem, kind, facts)
        able = [n for n in pool if n not in chosen and not any(_overlap(pool[n], problem.fact(m)) for m in chosen)]
        chosen += [rng.choice(able)] if able else []
    return chosen


def _own(problem: Problem, kind: str, facts: Facts) -> dict[str, Fact]:
    kinds: dict[str, dict[str, Fact]] = {"red": problem.red, "amber": problem.amber, "mild": problem.mild}
    return {name: fact for name, fact in kinds[kind].items() if _suits(fact, facts)}


def _general(problem: Problem, kind: str, facts: Facts) -> dict[str, Fact]:
    """General facts that do not repeat the complaint itself."""
    kinds: dict[str, dict[str, Fact]] = {"red": general().red, "amber": general().amber, "mild": general().mild}
    told = _words((problem.note, *problem.complaint))
    return {n: f for n, f in kinds[kind].items() if _suits(f, facts) and not told & _words((f.note, *f.say))}


def _suits(fact: Fact, facts: Facts) -> bool:
    return fact.sex in (None, facts.sex) and facts.age >= fact.min_age


def _days(problem: Problem, route: str, facts: Facts, rng: random.Random) -> float | None:
    """A duration that suits the route and every fact that says when it began; None if there is none."""
    shortest, course, longest = problem.days
    low, high = (course * 1.3, longest) if route == "long" else (shortest, course * 0.9)
    if route in ("amber", "red", "severe") and rng.random() < 0.35:
        high = min(longest, course * 3)
    bounds = [problem.fact(name).days for name in (*facts.red, *facts.amber, *facts.mild)]
    for bound in (b for b in bounds if b is not None):
        low, high = max(low, bound[0]), bound[1] if bound[0] > high else min(high, bound[1])
    return round(math.exp(rng.uniform(math.log(low), math.log(high))), 2) if low <= high else None


def _trend(route: str, rng: random.Random) -> str | None:
    weights = {
        "red": (0.62, 0.10, 0.12, 0.16), "vital": (0.5, 0.15, 0.15, 0.2), "who": (0.5, 0.2, 0.15, 0.15),
        "amber": (0.5, 0.14, 0.18, 0.18), "long": (0.2, 0.0, 0.4, 0.4), "severe": (0.5, 0.0, 0.2, 0.3),
        "none": (0.45, 0.25, 0.18, 0.12),
    }[route]  # fmt: skip
    return rng.choices((None, "better", "same", "worse"), weights)[0]


def _severity(route: str, age: float, rng: random.Random) -> str | None:
    if age < 5:  # too young to rate it
        return None
    if route == "severe":
        return "severe"
    weights = {"red": (0.7, 0.14, 0.1, 0.06), "amber": (0.6, 0.2, 0.17, 0.03)}.get(route, (0.6, 0.21, 0.19, 0.0))
    return rng.choices((None, "mild", "moderate", "severe"), weights)[0]


def _denials(problem: Problem, facts: Facts, rng: random.Random) -> tuple[str, ...]:
    """Flags said to be absent: never one that shares a word with a fact that is present, lest the text contradict it."""
    present = [problem.fact(name) for name in (*facts.red, *facts.amber, *facts.mild)]
    sick = any(fact.sick for fact in present)
    able: list[list[str]] = []
    for pool in ({**_own(problem, "red", facts), **_own(problem, "amber", facts)}, _general(problem, "red", facts)):
        clear = {n: f for n, f in pool.items() if not (sick and f.sick) and not any(_overlap(f, p) for p in present)}
        able.append([name for name in clear if name not in (*facts.red, *facts.amber)])
    wanted = rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1) if facts.red else (0.15, 0.35, 0.3, 0.2))[0]
    picked = [rng.choice(able[kind]) for kind in rng.choices((0, 1), (0.6, 0.4), k=wanted) if able[kind]]
    return tuple(dict.fromkeys(picked))


def _overlap(denied: Fact, present: Fact) -> bool:
    return bool(_words((denied.note, *denied.deny)) & _words((present.note, *present.say)))


def _words(texts: Iterable[str]) -> set[str]:
    """Stems of the content words; four letters are enough to see that two facts speak of the same thing."""
    return {word[:5] for text in texts for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in COMMON}


def _vitals(problem: Problem, route: str, facts: Facts, rng: random.Random) -> Vitals:
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
