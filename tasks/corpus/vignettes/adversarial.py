"""A harder test set from the test set's presenting problems: wording and tone pull away from the label.

- `negated`: several red flags named and said to be absent; the label follows from the one fact that is there
- `frightening`: alarm in every sentence around a core that is no emergency; GP or HOME
- `calm`: an understated, hopeful story, with much that is well, around a red flag; ED
- `metaphor`: every fact in its most pictorial wording, and the label follows from those; any label

The deciding facts are the problem's own, never the general ones that the training cases share word for word.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from tasks.corpus.case import Case, normal_text
from tasks.corpus.vignettes.draw_facts import draw_facts
from tasks.corpus.vignettes.flags import draw_denials
from tasks.corpus.vignettes.generator import TRIES, Record, assign_sets, embedded_records
from tasks.corpus.vignettes.knowledge_base import Problem, problems, tone
from tasks.corpus.vignettes.label_rules import Facts, decide
from tasks.corpus.vignettes.render import Style, band_of, draw_style, render
from tasks.spec import Label

SIZE = 300
NAMED = 2  # flags, at least, that a negated case names and says to be absent
NAME = "test_adversarial"
KINDS: tuple[tuple[str, Label], ...] = (
    ("negated", "HOME"), ("calm", "ED"), ("frightening", "GP"),
    ("frightening", "HOME"), ("negated", "ED"), ("negated", "GP"),
    ("metaphor", "HOME"), ("metaphor", "ED"), ("metaphor", "GP"),
)  # fmt: skip
MOODS = {"negated": "plain", "frightening": "alarm", "calm": "calm"}


def adversarial_cases(seed: int = 42) -> list[Case]:
    """SIZE cases, a third of each label; `subgroup["kind"]` says what makes a case hard."""
    return [record.case for record in adversarial_records(seed)]


def adversarial_records(seed: int = 42) -> tuple[Record, ...]:
    """The cases with their facts and rules. No text is also in the ordinary sets."""
    return _records(seed)


@lru_cache(maxsize=2)
def _records(seed: int) -> tuple[Record, ...]:
    homes = assign_sets(seed)
    own = [problem for problem in problems().values() if homes[problem.id] == "test"]
    random.Random(f"adversarial-{seed}").shuffle(own)
    seen = {normal_text(record.case.text) for record in embedded_records(seed)}
    return tuple(
        _record(own[n % len(own)], n, *KINDS[(n + n // len(own)) % len(KINDS)], seed, seen)
        for n in range(SIZE)
    )


def _record(problem: Problem, n: int, kind: str, label: Label, seed: int, seen: set[str]) -> Record:
    rng = random.Random(f"adversarial-{seed}-{n}-{problem.id}")
    for _ in range(TRIES):
        facts = _facts(problem, kind, label, rng)
        style = _style(problem, facts, kind, rng)
        text = render(problem, facts, style, rng)
        if normal_text(text) not in seen:
            break
    else:
        raise RuntimeError(
            f"Case {n + 1} of {NAME} ({problem.id}, {kind}, {label}) came out as a text that is there already, in all of "
            f"{TRIES} tries; give the problem more facts or wordings."
        )
    seen.add(normal_text(text))
    verdict = decide(facts, problem)
    subgroup = {
        "age_band": band_of(facts.age),
        "voice": style.voice,
        "spelling": style.spelling,
        "kind": kind,
    }
    return Record(
        Case(f"{NAME}-{n + 1:03d}", text, verdict.label, problem.id, subgroup), NAME, facts, verdict
    )


def _facts(problem: Problem, kind: str, label: Label, rng: random.Random) -> Facts:
    """Facts that suit the kind, or after many tries the nearest that can be had."""
    nearest = None
    for _ in range(120):
        facts = draw_facts(problem, label, rng)
        facts = _denying(problem, facts, rng) if kind == "negated" else facts
        if _suits(problem, facts, kind):
            break
        nearest = facts if _own(problem, facts) else nearest
    else:
        facts = nearest or facts
    if kind == "calm":
        facts = replace(
            facts, trend=rng.choice(("better", None)), severity=rng.choice(("mild", None))
        )
        return replace(facts, denied=draw_denials(problem, facts, rng, wanted=4)[:3])
    if kind == "frightening":
        trend = None if facts.trend == "better" else facts.trend
        return replace(facts, trend=trend, denied=facts.denied[:1])
    return facts


def _denying(problem: Problem, facts: Facts, rng: random.Random) -> Facts:
    """The facts with four flags denied, those first that can be named in a list."""
    drawn = draw_denials(problem, facts, rng, wanted=9)
    return replace(
        facts, denied=tuple(sorted(drawn, key=lambda name: not problem.fact(name).listable)[:4])
    )


def _suits(problem: Problem, facts: Facts, kind: str) -> bool:
    """Decided by the problem's own facts, and in the way that the kind is about."""
    if not _own(problem, facts) or facts.severity == "severe":
        return False
    if kind == "calm":
        return bool(facts.red) and not any(problem.fact(name).sick for name in facts.red)
    if kind == "negated":
        return sum(problem.fact(name).listable for name in facts.denied) >= NAMED
    return kind != "metaphor" or decide(facts, problem).rule.startswith(
        ("red:", "amber:", "no_flag")
    )


def _own(problem: Problem, facts: Facts) -> bool:
    """Whether every fact that is present is the problem's own."""
    return {*facts.red, *facts.amber, *facts.mild} <= {*problem.red, *problem.amber, *problem.mild}


def _style(problem: Problem, facts: Facts, kind: str, rng: random.Random) -> Style:
    """The mood of the kind, with asides that carry it; a nurse's note has neither tone nor pictures, so others tell those."""
    style = draw_style(problem, facts, rng)
    while (kind in tone() or kind == "metaphor") and style.voice == "nurse":
        style = replace(
            style, voice=rng.choice(("terse", "carer" if facts.age >= 18 else "parent"))
        )
    asides = tuple(rng.sample(tone()[kind], 2)) if kind in tone() else ()
    return replace(
        style,
        mood=MOODS.get(kind, style.mood),
        lay=kind != "negated",
        listed=kind == "negated",
        asides=asides,
    )
