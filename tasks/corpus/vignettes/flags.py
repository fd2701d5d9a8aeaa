"""Draws which facts a case has, and which it lacks, so that the two never contradict each other."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from tasks.corpus.vignettes.knowledge_base import ClinicalFact, ClinicalProblem, Kind, phrases
from tasks.corpus.vignettes.label_rules import Facts

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
