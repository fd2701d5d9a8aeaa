"""Draws the facts of a case: who, which flags, which denials, how long, how bad, which readings.

The label is derived, never drawn: a route only proposes facts, `label_rules.decide` says what they
mean, and proposals with another label are discarded. What a case has and what it lacks never
contradict each other.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from tasks.corpus.vignettes.knowledge_base import (
    FEVER,
    PLAINLY_LONGER,
    ClinicalFact,
    ClinicalProblem,
    Kind,
    contexts,
    phrases,
)
from tasks.corpus.vignettes.label_rules import (
    ADULT_VITALS,
    IMMUNE,
    LATER_LIFE,
    YOUNG,
    Facts,
    Vitals,
    decide,
)
from tasks.corpus.vignettes.speech import lived_days
from tasks.spec import Label

ATTEMPTS = 400
UNLIMITED_AGE = 120  # years: `gp_over` of a problem without an upper limit is above it
RATES_SEVERITY_FROM = 5  # years of age
IMPROVING = re.compile(
    r"\b(better|gone|fading|fades|heal\w*|shr[iu]nk\w*|smaller|settled|settles|settling|eases|easing|pink again)\b"
)
STEADY = re.compile(  # unchanged, over, or slight
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
TRENDS = (None, "better", "same", "worse")
TREND_WEIGHTS = {  # by route
    "red": (0.62, 0.10, 0.12, 0.16), "vital": (0.5, 0.15, 0.15, 0.2), "who": (0.5, 0.2, 0.15, 0.15),
    "amber": (0.5, 0.14, 0.18, 0.18), "long": (0.2, 0.0, 0.4, 0.4), "severe": (0.5, 0.0, 0.2, 0.3),
    "none": (0.45, 0.25, 0.18, 0.12), "worse": (0.0, 0.0, 0.0, 1.0), "fever": (0.5, 0.1, 0.2, 0.2),
}  # fmt: skip
SEVERITIES = (None, "mild", "moderate", "severe")
# Up to which age in years: heart and breathing rates a minute. None of them is amber in NICE NG143
# (under 5).
NORMAL = (
    (1, (105, 155), (26, 50)), (2, (98, 148), (22, 38)), (3, (92, 138), (22, 38)), (5, (82, 125), (18, 30)),
    (13, (72, 104), (16, 21)), (200, (60, 100), (12, 20)),
)  # fmt: skip
NORMAL_TEMPERATURE = (36.1, 37.5)  # degrees Celsius
FEVERISH_TEMPERATURE = (FEVER, 39.5)
SATURATED = 96  # %, at least, without a lung disease: 95 is amber under 5
GENERAL_SHARE = {"red": 0.2, "amber": 0.22, "mild": 1.0}
SECOND_FLAG_SHARE = {"red": 0.12, "vital": 0.12, "who": 0.12, "fever": 0.5}  # by route
# How often 0, 1, 2 and 3 flags are said to be absent.
DENIALS_WITH_RED = (0.35, 0.35, 0.2, 0.1)
DENIALS_WITHOUT_RED = (0.15, 0.35, 0.3, 0.2)
COMMON_WORDS = """
with that this from have been there when than then them they were what which after before normal
both side does never only into more most over such very will would each every like just without
nothing having about still
"""
COMMON = frozenset(COMMON_WORDS.split())  # longer words that do not say what a fact is about

NamedFacts = Mapping[str, ClinicalFact]


def draw_facts(problem: ClinicalProblem, label: Label, rng: random.Random) -> Facts:
    """Facts of one case of `problem` whose derived label is `label`.

    Raises ValueError after ATTEMPTS proposals.
    """
    for _ in range(ATTEMPTS):
        facts = _propose(problem, label, rng)
        if facts is not None and decide(facts, problem).label == label:
            return facts
    raise ValueError(f"{problem.id}: no facts give {label}; check its ages, days and flags")


def _propose(problem: ClinicalProblem, label: Label, rng: random.Random) -> Facts | None:
    """Facts of one case on a random route of the label; None where they contradict each other."""
    weights = _routes(problem, label)
    route = rng.choices(list(weights), list(weights.values()))[0]
    facts = _person(problem, route, label, rng)
    facts = with_flags(problem, route, facts, rng)
    days = _days(problem, route, facts, rng)
    severity = _severity(problem, route, facts.age, rng)

    # Every wording of the mild facts, which must not speak against the route or the severity.
    mild = [problem.fact(name) for name in facts.mild]
    story = " ".join(clause for fact in mild for clause in (fact.note, *fact.say))
    improving = IMPROVING.search(story) is not None
    if days is None or (improving and route in ("long", "worse")):
        return None
    if severity == "severe" and (improving or MINOR.search(story)):
        return None

    trend = rng.choices(TRENDS, TREND_WEIGHTS[route])[0]
    if any(problem.fact(name).sick for name in facts.red):
        # Nobody who is visibly ill gets better, or is ill mildly.
        trend = None if trend == "better" else trend
        severity = "severe" if severity == "severe" else None

    # A complaint that is over and does not hurt stays the same.
    over = STEADY.search(story) or (problem.event and problem.painless)
    if trend == "worse" and over and not (facts.red or facts.amber):
        trend = None

    # A complaint that gets worse needs an assessment, and so is not called mild.
    worse_counts = not problem.worsens_first or facts.age >= LATER_LIFE
    if trend == "worse" and severity == "mild" and worse_counts:
        severity = None
    if trend != "better" and improving:
        trend = None

    facts = replace(facts, days=days, trend=trend, severity=severity)
    facts = replace(facts, vitals=_vitals(problem, route, facts, rng))

    # A detail about a temperature says that there is none, or none any more.
    of_fever = problem.temp != "febrile" and any(fact.feverish for fact in mild)
    if of_fever and facts.vitals.fever:
        return None

    return replace(facts, denied=draw_denials(problem, facts, rng))


def _routes(problem: ClinicalProblem, label: Label) -> dict[str, float]:
    """The weights of a label's routes.

    Where age or context move this problem's threshold, they often do.
    """
    moved = {
        "ED": bool(problem.ed_if or problem.ed_under),
        "GP": bool(problem.gp_if or problem.gp_under or problem.gp_over < UNLIMITED_AGE),
        "HOME": False,
    }[label]
    worsens = not problem.worsens_first or {"older", "frail"} & {*problem.ages}
    unfit = {
        "who": not moved,
        "fever": IMMUNE not in problem.gp_if,
        "long": not problem.lasting_decides,
        "severe": problem.painless,
        "worse": not worsens or (problem.event and problem.painless),
    }

    return {route: weight for route, weight in ROUTES[label].items() if not unfit.get(route, False)}


def _person(problem: ClinicalProblem, route: str, label: Label, rng: random.Random) -> Facts:
    """Age, sex and contexts, before any flag."""
    age = _age(problem, route, label, rng)
    sex = rng.choice("fm") if problem.sex == "any" else problem.sex
    named_contexts = (*problem.ed_if, *problem.gp_if)
    # Those that suit the person; serious ones only where the problem says what they mean.
    possible = [
        name
        for name, context in contexts().items()
        if context.min_age <= age <= context.max_age
        and context.sex in (None, sex)
        and name not in problem.always
        and (name in named_contexts or not context.serious)
    ]

    # Those that come with the problem, and at most one more.
    chosen = list(problem.always)
    deciding = problem.ed_if if label == "ED" else problem.gp_if
    decisive = [name for name in possible if name in deciding]
    if route == "fever" and IMMUNE in possible:
        chosen.append(IMMUNE)
    elif route == "who" and decisive:
        chosen.append(rng.choice(decisive))
    elif possible and rng.random() < 0.4:
        chosen.append(rng.choice(possible))

    # Absent contexts are those that would change the label, if there are any.
    moving = [name for name in named_contexts if name in possible and name not in chosen]
    deniable = [
        name for name in (moving or possible) if name not in chosen and contexts()[name].deny
    ]
    absent = (rng.choice(deniable),) if deniable and rng.random() < 0.3 else ()

    return Facts(problem.id, round(age, 2), sex, contexts=tuple(chosen), absent_contexts=absent)


def _age(problem: ClinicalProblem, route: str, label: Label, rng: random.Random) -> float:
    """An age in years within the problem's bands, at times near the limit that decides."""
    spans = [span for span in map(problem.age_range, problem.ages) if span[0] < span[1]]
    if route == "who" and rng.random() < 0.5:
        # Close to the limit at which this problem needs a higher level of care.
        limit = problem.ed_under if label == "ED" else problem.gp_under
        youngest, oldest = (0.0, limit) if limit else (0.0, UNLIMITED_AGE)
        if label != "ED" and not limit and problem.gp_over < UNLIMITED_AGE:
            youngest, oldest = (problem.gp_over, problem.gp_over * 1.3)
        near = [(max(low, youngest), min(high, oldest)) for low, high in spans]
        spans = [span for span in near if span[0] < span[1]] or spans

    low, high = rng.choice(spans)
    is_later_life = route == "worse" and problem.worsens_first and high > LATER_LIFE
    return rng.uniform(max(low, LATER_LIFE) if is_later_life else low, high)


def _days(problem: ClinicalProblem, route: str, facts: Facts, rng: random.Random) -> float | None:
    """A duration in days that suits the route, the age and every fact that says when it began.

    None if there is none.
    """
    shortest, course, longest = problem.days
    low, high = (course * PLAINLY_LONGER, longest) if route == "long" else (shortest, course * 0.9)
    if route in ("amber", "red", "severe") and rng.random() < 0.35:
        high = min(longest, course * 3)

    for name in (*facts.red, *facts.amber, *facts.mild):
        began = problem.fact(name).days
        if began is not None:
            low = max(low, began[0])
            high = began[1] if began[0] > high else min(high, began[1])

    high = min(high, lived_days(facts.age))
    if low > high:
        return None
    # Short durations are as frequent as long ones: on the scale of their logarithms.
    log_days = rng.uniform(math.log(low), math.log(high))
    return round(math.exp(log_days), 2)


def _severity(problem: ClinicalProblem, route: str, age: float, rng: random.Random) -> str | None:
    """How bad it is, in the patient's words; None where nothing is said about it."""
    if age < RATES_SEVERITY_FROM:
        return None
    if route == "severe":
        return "severe"

    weights = (0.7, 0.14, 0.1, 0.06) if route == "red" else (0.6, 0.21, 0.19, 0.0)
    severity = rng.choices(SEVERITIES, weights)[0]
    return None if severity == "severe" and problem.painless else severity


def _vitals(problem: ClinicalProblem, route: str, facts: Facts, rng: random.Random) -> Vitals:
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

    return _emergency_vitals(vitals, facts, problem, rng) if route == "vital" else vitals


def _emergency_vitals(
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


def with_flags(problem: ClinicalProblem, route: str, facts: Facts, rng: random.Random) -> Facts:
    """The facts with red, amber and mild ones that suit the route."""
    second = rng.random() < SECOND_FLAG_SHARE.get(route, 0)
    red: list[str] = []
    if route == "red":
        red = _draw_names(problem, "red", 1 if rng.random() < 0.85 else 2, facts, rng)

    amber: list[str] = []
    if route == "amber" or second:
        amber = _draw_names(problem, "amber", 1, facts, rng)

    mild = _explanation(problem, facts, rng) if not (red or amber) else []
    if red or amber:
        # At times a benign detail; never beside a flag that makes a person visibly ill.
        sick = any(problem.fact(name).sick for name in red)
        details = _own_facts(problem, "mild", facts).items()
        harmless = [name for name, fact in details if fact.also and not sick]
        mild = rng.sample(harmless, min(1, len(harmless))) if rng.random() < 0.5 else []

    if red and amber:
        # An amber flag that adds nothing to a red one, or states another temperature.
        flag = problem.fact(amber[0])
        if flag.temp is not None or _overlap(problem.fact(red[0]), flag):
            amber = []
    return replace(facts, red=tuple(red), amber=tuple(amber), mild=tuple(mild))


def draw_denials(
    problem: ClinicalProblem, facts: Facts, rng: random.Random, count: int | None = None
) -> tuple[str, ...]:
    """Flags said to be absent: never one that shares a word with a fact that is present.

    `count`: about so many, else a random number of them.
    """
    own_flags = {**_own_facts(problem, "red", facts), **_own_facts(problem, "amber", facts)}
    pools = [
        _deniable(problem, facts, own_flags),
        _deniable(problem, facts, _general_facts(problem, "red", facts)),
    ]

    if count is None:
        weights = DENIALS_WITH_RED if facts.red else DENIALS_WITHOUT_RED
        count = rng.choices((0, 1, 2, 3), weights)[0]

    picks = rng.choices(pools, (0.6, 0.4), k=count)
    names = [rng.choice(pool) for pool in picks if pool]
    return tuple(dict.fromkeys(names))


def absent_red_flags(problem: ClinicalProblem, facts: Facts) -> list[str]:
    """Every red flag, own or general, of which a text may say that it is absent."""
    flags = {**_own_facts(problem, "red", facts), **_general_facts(problem, "red", facts)}
    return _deniable(problem, facts, flags)


def draw_reassurance(
    form: str, share: float, problem: ClinicalProblem, facts: Facts, rng: random.Random
) -> list[str]:
    """In `share` of the cases that allow it, something that is well.

    It is nothing that the complaint or a fact speaks of.

    `form`: as a clause (`say`) or as a nurse's `note`.
    """
    sick = any(problem.fact(name).sick for name in facts.red)
    grave = sick or facts.severity == "severe" or facts.trend == "worse"
    if grave or facts.age < 2 or rng.random() >= share:
        return []

    present = _present_facts(problem, facts)
    clauses = [clause for fact in present for clause in (fact.note, *fact.say)]
    mentioned = stems((problem.note, *problem.complaint, *clauses))
    fitting_phrases = [
        words for words in phrases()["reassure"][form] if not stems((words,)) & mentioned
    ]
    return [rng.choice(fitting_phrases)] if fitting_phrases else []


def _explanation(problem: ClinicalProblem, facts: Facts, rng: random.Random) -> list[str]:
    """Why a case without flags is harmless: a benign story of the problem, and at times more."""
    mild = _own_facts(problem, "mild", facts)
    stories = [name for name, fact in mild.items() if not fact.also] or list(mild)

    names = [stories[0]] if rng.random() < 0.6 else [rng.choice(stories)]
    if (names[0] != stories[0] or rng.random() < 0.3) and len(mild) > 1:
        names += rng.sample([name for name in mild if name not in names], 1)
    if rng.random() < 0.35:
        names += _draw_names(problem, "mild", 1, facts, rng)

    return names


def _draw_names(
    problem: ClinicalProblem, kind: Kind, count: int, facts: Facts, rng: random.Random
) -> list[str]:
    """Names of facts of a kind, mostly the problem's own; never two about the same thing."""
    names: list[str] = []
    for _ in range(count):
        take_general = rng.random() < GENERAL_SHARE[kind]
        pool = (_general_facts if take_general else _own_facts)(problem, kind, facts)
        candidates = [
            name
            for name, fact in pool.items()
            if name not in names and not any(_overlap(fact, problem.fact(other)) for other in names)
        ]
        if candidates:
            names.append(rng.choice(candidates))

    return names


def _own_facts(problem: ClinicalProblem, kind: Kind, facts: Facts) -> NamedFacts:
    """The problem's own facts of a kind, for a person of this age and sex."""
    own_facts = problem.facts(kind).items()
    return {name: fact for name, fact in own_facts if _suits_person(fact, facts)}


def _general_facts(problem: ClinicalProblem, kind: Kind, facts: Facts) -> NamedFacts:
    """General facts of a kind that do not repeat the complaint itself."""
    complaint = stems((problem.note, *problem.complaint))
    return {
        name: fact
        for name, fact in problem.general_facts(kind).items()
        if _suits_person(fact, facts)
        and name not in problem.without
        and not (problem.event and fact.ongoing)
        and not (problem.temp == "febrile" and fact.temp)
        and not complaint & stems((fact.note, *fact.say))
    }


def _suits_person(fact: ClinicalFact, facts: Facts) -> bool:
    return fact.sex in (None, facts.sex) and fact.min_age <= facts.age <= fact.max_age


def _deniable(problem: ClinicalProblem, facts: Facts, pool: NamedFacts) -> list[str]:
    """The flags that a text may deny without contradicting a fact, the duration or a fever."""
    present_facts = _present_facts(problem, facts)
    sick = any(fact.sick for fact in present_facts)

    def contradicts(flag: ClinicalFact) -> bool:
        has_begun = flag.days is not None and flag.days[0] <= facts.days
        return (
            (sick and flag.sick)
            or any(_overlap(flag, fact) for fact in present_facts)
            or has_begun
            or (facts.vitals.fever and flag.feverish)
        )

    return [
        name
        for name, flag in pool.items()
        if name not in (*facts.red, *facts.amber) and not contradicts(flag)
    ]


def _present_facts(problem: ClinicalProblem, facts: Facts) -> list[ClinicalFact]:
    return [problem.fact(name) for name in (*facts.red, *facts.amber, *facts.mild)]


def _overlap(denied_fact: ClinicalFact, present_fact: ClinicalFact) -> bool:
    """Whether the denial of one fact shares a word with the statement of another."""
    return bool(
        stems((denied_fact.note, *denied_fact.deny)) & stems((present_fact.note, *present_fact.say))
    )


@cache
def stems(texts: tuple[str, ...]) -> frozenset[str]:
    """Stems of the content words; five letters show that two facts speak of the same thing."""
    return frozenset(
        word[:5]
        for text in texts
        for word in re.findall(r"[a-z]{4,}", text.lower())
        if word not in COMMON
    )
