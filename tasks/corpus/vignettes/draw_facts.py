"""Draws the facts of a case: who, which flags, which denials, how long, how bad. The label is derived, never drawn.

A route only proposes facts; `rules.decide` says what they mean, and proposals with another label are thrown away.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

from tasks.corpus.vignettes.flags import draw_denials, with_flags
from tasks.corpus.vignettes.knowledge_base import PLAINLY_LONGER, Context, Problem, contexts
from tasks.corpus.vignettes.label_rules import IMMUNE, LATER_LIFE, Facts, decide
from tasks.corpus.vignettes.vitals import draw_vitals
from tasks.corpus.vignettes.wording import lived_days
from tasks.spec import Label

ATTEMPTS = 400
MENDING = re.compile(
    r"\b(better|gone|fading|fades|heal\w*|shr[iu]nk\w*|smaller|settled|settles|settling|eases|easing|pink again)\b"
)
STEADY = re.compile(  # as before, over, or nothing much
    r"\b(same|unchanged|steady|stopped|dry|safe|well|fit|hardly|again|once|later|(normal|usual)\w*|comes and goes"
    r"|as (always|ever|usual|before|known)|for years|no (different|worse|bigger)|nothing (since|more|new)"
    r"|over (in|within|by)|out whole)\b"
)
MINOR = re.compile(
    r"\b(few|little|slight\w*|small|tiny|once|twinge|itch\w*|drops?|mild\w*|hardly|asks?|dot|only)\b"
)
ROUTES: dict[str, dict[str, float]] = {
    "ED": {"red": 0.9, "vital": 0.08, "who": 0.9, "fever": 0.15},
    "GP": {"amber": 0.62, "who": 0.5, "long": 0.5, "severe": 0.3, "worse": 0.4},
    "HOME": {"none": 1.0},
}


def draw_facts(problem: Problem, label: Label, rng: random.Random) -> Facts:
    """Facts of one case of `problem` whose derived label is `label`. Raises ValueError if none is found."""
    for _ in range(ATTEMPTS):
        facts = _propose(problem, label, rng)
        if facts is not None and decide(facts, problem).label == label:
            return facts
    raise ValueError(f"{problem.id}: no facts give {label}; check its ages, days and flags")


def _propose(problem: Problem, label: Label, rng: random.Random) -> Facts | None:
    route = _pick(_routes(problem, label), rng)
    facts = _person(problem, route, label, rng)
    facts = with_flags(problem, route, facts, rng)
    days = _days(problem, route, facts, rng)
    told = " ".join(
        clause
        for name in facts.mild
        for clause in (problem.fact(name).note, *problem.fact(name).say)
    )
    mending = MENDING.search(told) is not None
    severity = _severity(problem, route, facts.age, rng)
    if days is None or (mending and route in ("long", "worse")):
        return None
    if severity == "severe" and (
        mending or MINOR.search(told)
    ):  # the two would contradict each other
        return None
    trend = _trend(route, rng)
    if any(
        problem.fact(name).sick for name in facts.red
    ):  # nobody at death's door is on the mend or mildly so
        trend, severity = (
            None if trend == "better" else trend,
            "severe" if severity == "severe" else None,
        )
    over = STEADY.search(told) or (
        problem.event and problem.painless
    )  # what is over and does not hurt stays as it is
    if trend == "worse" and over and not (facts.red or facts.amber):
        trend = None
    if (
        trend == "worse"
        and severity == "mild"
        and (problem.worse_decides or facts.age >= LATER_LIFE)
    ):
        severity = None  # what gets worse is to be looked at
    facts = replace(
        facts, days=days, trend=None if mending and trend != "better" else trend, severity=severity
    )
    facts = replace(facts, vitals=draw_vitals(problem, route, facts, rng))
    of_fever = problem.temp != "febrile" and any(problem.fact(name).feverish for name in facts.mild)
    if of_fever and facts.vitals.fever:  # such a detail says that there is none, or none any more
        return None
    return replace(facts, denied=draw_denials(problem, facts, rng))


def _routes(problem: Problem, label: Label) -> dict[str, float]:
    """The weights of a label's routes; where age or context move this problem's threshold, they often do."""
    ed, gp = (
        bool(problem.ed_if or problem.ed_under),
        bool(problem.gp_if or problem.gp_under or problem.gp_over < 120),
    )
    moved = {"ED": ed, "GP": gp, "HOME": False}[label]
    worsens = problem.worse_decides or {"older", "frail"} & {*problem.ages}
    unfit = {
        "who": not moved,
        "fever": IMMUNE not in problem.gp_if,
        "long": not problem.lasting_decides,
        "severe": problem.painless,
        "worse": not worsens or (problem.event and problem.painless),
    }
    return {route: weight for route, weight in ROUTES[label].items() if not unfit.get(route, False)}


def _pick(weights: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _person(problem: Problem, route: str, label: Label, rng: random.Random) -> Facts:
    spans = [span for span in map(problem.age_range, problem.ages) if span[0] < span[1]]
    deciding = _deciding_years(problem, label) if route == "who" and rng.random() < 0.5 else None
    if deciding:
        near = [(max(low, deciding[0]), min(high, deciding[1])) for low, high in spans]
        spans = [span for span in near if span[0] < span[1]] or spans
    low, high = rng.choice(spans)
    later = route == "worse" and not problem.worse_decides and high > LATER_LIFE
    age = rng.uniform(max(low, LATER_LIFE) if later else low, high)
    sex = rng.choice("fm") if problem.sex == "any" else problem.sex
    named = (*problem.ed_if, *problem.gp_if)
    able = [
        name
        for name, context in contexts().items()
        if _fits(context, age, sex)
        and name not in problem.always
        and (name in named or not context.serious)
    ]
    decisive = [n for n in able if n in (problem.ed_if if label == "ED" else problem.gp_if)]
    chosen = list(problem.always)
    if route == "fever" and IMMUNE in able:
        chosen.append(IMMUNE)
    elif route == "who" and decisive:
        chosen.append(rng.choice(decisive))
    elif able and rng.random() < 0.4:
        chosen.append(rng.choice(able))
    moved = [n for n in named if n in able and n not in chosen]
    absent = [n for n in (moved or able) if n not in chosen and contexts()[n].deny]
    denied = (rng.choice(absent),) if absent and rng.random() < 0.3 else ()
    return Facts(problem.id, round(age, 2), sex, contexts=tuple(chosen), absent_contexts=denied)


def _deciding_years(problem: Problem, label: Label) -> tuple[float, float] | None:
    """The ages in years on the far side of the limit that makes this problem an emergency or a doctor's, near to it."""
    if label == "ED":
        return (0, problem.ed_under) if problem.ed_under else None
    if problem.gp_under:
        return (0, problem.gp_under)
    return (problem.gp_over, problem.gp_over * 1.3) if problem.gp_over < 120 else None


def _fits(context: Context, age: float, sex: str) -> bool:
    return context.min_age <= age <= context.max_age and context.sex in (None, sex)


def _days(problem: Problem, route: str, facts: Facts, rng: random.Random) -> float | None:
    """A duration that suits the route, the age and every fact that says when it began; None if there is none."""
    shortest, course, longest = problem.days
    low, high = (course * PLAINLY_LONGER, longest) if route == "long" else (shortest, course * 0.9)
    if route in ("amber", "red", "severe") and rng.random() < 0.35:
        high = min(longest, course * 3)
    bounds = [problem.fact(name).days for name in (*facts.red, *facts.amber, *facts.mild)]
    for bound in (b for b in bounds if b is not None):
        low, high = max(low, bound[0]), bound[1] if bound[0] > high else min(high, bound[1])
    high = min(high, lived_days(facts.age))
    return round(math.exp(rng.uniform(math.log(low), math.log(high))), 2) if low <= high else None


def _trend(route: str, rng: random.Random) -> str | None:
    weights = {
        "red": (0.62, 0.10, 0.12, 0.16), "vital": (0.5, 0.15, 0.15, 0.2), "who": (0.5, 0.2, 0.15, 0.15),
        "amber": (0.5, 0.14, 0.18, 0.18), "long": (0.2, 0.0, 0.4, 0.4), "severe": (0.5, 0.0, 0.2, 0.3),
        "none": (0.45, 0.25, 0.18, 0.12), "worse": (0.0, 0.0, 0.0, 1.0), "fever": (0.5, 0.1, 0.2, 0.2),
    }[route]  # fmt: skip
    return rng.choices((None, "better", "same", "worse"), weights)[0]


def _severity(problem: Problem, route: str, age: float, rng: random.Random) -> str | None:
    if age < 5:  # too young to rate it
        return None
    if route == "severe":
        return "severe"
    weights = (0.7, 0.14, 0.1, 0.06) if route == "red" else (0.6, 0.21, 0.19, 0.0)
    drawn = rng.choices((None, "mild", "moderate", "severe"), weights)[0]
    return None if drawn == "severe" and problem.painless else drawn
