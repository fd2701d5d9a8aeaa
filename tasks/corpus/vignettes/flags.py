"""Draws which facts a case has, and which it is said not to have, so that the two never contradict each other."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache

from tasks.corpus.vignettes.knowledge_base import Fact, Problem, general, phrases
from tasks.corpus.vignettes.label_rules import Facts

GENERAL_SHARE = {"red": 0.2, "amber": 0.22, "mild": 1.0}
COMMON_WORDS = """
with that this from have been there when than then them they were what which after before normal
both side does never only into more most over such very will would each every like just without
nothing having about still
"""
COMMON = frozenset(COMMON_WORDS.split())  # longer words that do not tell what a fact is about


def with_flags(problem: Problem, route: str, facts: Facts, rng: random.Random) -> Facts:
    """The facts with red, amber and mild ones that suit the route."""
    second = rng.random() < {"red": 0.12, "vital": 0.12, "who": 0.12, "fever": 0.5}.get(route, 0)
    red = (
        _some(problem, "red", 1 if rng.random() < 0.85 else 2, facts, rng) if route == "red" else []
    )
    amber = _some(problem, "amber", 1, facts, rng) if route == "amber" or second else []
    sick = any(problem.fact(name).sick for name in red)
    if red or amber:
        harmless = [
            name for name, fact in _own(problem, "mild", facts).items() if fact.also and not sick
        ]
        mild = rng.sample(harmless, min(1, len(harmless))) if rng.random() < 0.5 else []
    else:
        mild = _explanation(problem, facts, rng)
    if (
        red
        and amber
        and (problem.fact(amber[0]).temp or _overlap(problem.fact(red[0]), problem.fact(amber[0])))
    ):
        amber = []
    return replace(facts, red=tuple(red), amber=tuple(amber), mild=tuple(mild))


def _explanation(problem: Problem, facts: Facts, rng: random.Random) -> list[str]:
    """Why a case without flags is harmless: the problem's first benign story, or two lesser ones; and more at times."""
    own = _own(problem, "mild", facts)
    stories = [name for name, fact in own.items() if not fact.also] or list(own)
    chosen = [stories[0]] if rng.random() < 0.6 else [rng.choice(stories)]
    if chosen[0] != stories[0] or rng.random() < 0.3:
        chosen += (
            rng.sample([name for name in own if name not in chosen], 1) if len(own) > 1 else []
        )
    return chosen + (_some(problem, "mild", 1, facts, rng) if rng.random() < 0.35 else [])


def _some(problem: Problem, kind: str, count: int, facts: Facts, rng: random.Random) -> list[str]:
    """Names of facts of a kind, mostly the problem's own; never two that speak of the same thing."""
    chosen: list[str] = []
    for _ in range(count):
        pool = (
            _general(problem, kind, facts)
            if rng.random() < GENERAL_SHARE[kind]
            else _own(problem, kind, facts)
        )
        able = [
            n
            for n in pool
            if n not in chosen and not any(_overlap(pool[n], problem.fact(m)) for m in chosen)
        ]
        chosen += [rng.choice(able)] if able else []
    return chosen


def _own(problem: Problem, kind: str, facts: Facts) -> dict[str, Fact]:
    kinds: dict[str, dict[str, Fact]] = {
        "red": problem.red,
        "amber": problem.amber,
        "mild": problem.mild,
    }
    return {name: fact for name, fact in kinds[kind].items() if _suits(fact, facts)}


def _general(problem: Problem, kind: str, facts: Facts) -> dict[str, Fact]:
    """General facts that do not repeat the complaint itself."""
    kinds: dict[str, dict[str, Fact]] = {
        "red": general().red,
        "amber": general().amber,
        "mild": general().mild,
    }
    told = _words((problem.note, *problem.complaint))
    return {
        name: fact
        for name, fact in kinds[kind].items()
        if _suits(fact, facts)
        and name not in problem.without
        and not (problem.event and fact.ongoing)
        and not (problem.temp == "febrile" and fact.temp)
        and not told & _words((fact.note, *fact.say))
    }


def _suits(fact: Fact, facts: Facts) -> bool:
    return fact.sex in (None, facts.sex) and fact.min_age <= facts.age <= fact.max_age


def draw_denials(
    problem: Problem, facts: Facts, rng: random.Random, wanted: int | None = None
) -> tuple[str, ...]:
    """Flags said to be absent: never one that shares a word with a fact that is present, lest the text contradict it.

    `wanted`: about so many, else a random number of them.
    """
    present = _present(problem, facts)
    sick = any(fact.sick for fact in present)
    able: list[list[str]] = []
    for pool in (
        {**_own(problem, "red", facts), **_own(problem, "amber", facts)},
        _general(problem, "red", facts),
    ):
        clear = {
            n: f
            for n, f in pool.items()
            if not (sick and f.sick) and not any(_overlap(f, p) for p in present)
        }
        clear = {
            n: f for n, f in clear.items() if not (f.days and f.days[0] <= facts.days)
        }  # a denied time has passed
        clear = {n: f for n, f in clear.items() if not (facts.vitals.fever and f.feverish)}
        able.append([name for name in clear if name not in (*facts.red, *facts.amber)])
    if wanted is None:
        wanted = rng.choices(
            (0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1) if facts.red else (0.15, 0.35, 0.3, 0.2)
        )[0]
    picked = [
        rng.choice(able[kind]) for kind in rng.choices((0, 1), (0.6, 0.4), k=wanted) if able[kind]
    ]
    return tuple(dict.fromkeys(picked))


def draw_reassurance(
    form: str, share: float, problem: Problem, facts: Facts, rng: random.Random
) -> list[str]:
    """In `share` of the cases that allow it something that is well: nothing that the complaint or a fact speaks of.

    `form`: as a clause (`say`) or as a nurse's `note`.
    """
    sick = any(problem.fact(name).sick for name in facts.red)
    grave = sick or facts.severity == "severe" or facts.trend == "worse"
    if grave or facts.age < 2 or rng.random() >= share:
        return []
    clauses = (clause for fact in _present(problem, facts) for clause in (fact.note, *fact.say))
    told = _words((problem.note, *problem.complaint, *clauses))
    fitting = [words for words in phrases()["reassure"][form] if not _words((words,)) & told]
    return [rng.choice(fitting)] if fitting else []


def _present(problem: Problem, facts: Facts) -> list[Fact]:
    return [problem.fact(name) for name in (*facts.red, *facts.amber, *facts.mild)]


def _overlap(denied: Fact, present: Fact) -> bool:
    return bool(_words((denied.note, *denied.deny)) & _words((present.note, *present.say)))


@cache
def _words(texts: tuple[str, ...]) -> frozenset[str]:
    """Stems of the content words; five letters are enough to see that two facts speak of the same thing."""
    return frozenset(
        word[:5]
        for text in texts
        for word in re.findall(r"[a-z]{4,}", text.lower())
        if word not in COMMON
    )
