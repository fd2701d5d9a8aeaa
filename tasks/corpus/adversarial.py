"""A harder test set from the test set's presenting problems: wording and tone pull away from the label.

- `negated`: several red flags, all said to be absent; GP or HOME by the rest of the facts
- `frightening`: alarm in every sentence around a benign core; HOME
- `calm`: an understated, hopeful story around a red flag; ED
- `metaphor`: every fact in its most pictorial wording; any label
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from tasks.corpus.case import Case, normal_text
from tasks.corpus.embedded import Record, assign_sets, embedded_records
from tasks.corpus.knowledge_base import Problem, problems
from tasks.corpus.render import Style, band_of, draw_style, render
from tasks.corpus.rules import Facts, decide
from tasks.corpus.sampler import draw_facts
from tasks.spec import Label

SIZE = 300
NAME = "test_adversarial"
KINDS: tuple[tuple[str, Label, str | None], ...] = (  # kind, label, mood
    ("negated", "HOME", "plain"),
    ("calm", "ED", "calm"),
    ("negated", "GP", "plain"),
    ("frightening", "HOME", "alarm"),
    ("metaphor", "ED", None),
    ("metaphor", "GP", None),
)


def adversarial_cases(seed: int = 42) -> list[Case]:
    """SIZE cases, a third of each label; `subgroup["kind"]` says what makes a case hard."""
    return [record.case for record in adversarial_records(seed)]


@lru_cache(maxsize=2)
def adversarial_records(seed: int = 42) -> tuple[Record, ...]:
    """The cases with their facts and rules. No text is also in the ordinary sets."""
    homes = assign_sets(seed)
    own = [problem for problem in problems().values() if homes[problem.id] == "test"]
    random.Random(f"adversarial-{seed}").shuffle(own)
    seen = {normal_text(record.case.text) for record in embedded_records(seed)}
    return tuple(
        _record(own[n % len(own)], n, *KINDS[(n + n // len(own)) % len(KINDS)], seed, seen) for n in range(SIZE)
    )


def _record(problem: Problem, n: int, kind: str, label: Label, mood: str | None, seed: int, seen: set[str]) -> Record:
    rng = random.Random(f"adversarial-{seed}-{n}-{problem.id}")
    while True:
        facts = _facts(problem, kind, label, rng)
        style = draw_style(problem, facts, rng)
        style = Style(style.voice, style.spelling, mood or style.mood, lay=kind != "negated")
        text = render(problem, facts, style, rng)
        if normal_text(text) not in seen:
            break
    seen.add(normal_text(text))
    verdict = decide(facts, problem)
    subgroup = {"age_band": band_of(facts.age), "voice": style.voice, "spelling": style.spelling, "kind": kind}
    return Record(Case(f"{NAME}-{n + 1:03d}", text, verdict.label, problem.id, subgroup), NAME, facts, verdict)


def _facts(problem: Problem, kind: str, label: Label, rng: random.Random) -> Facts:
    """Facts that suit the kind, or after many tries the nearest that can be had."""
    suits: dict[str, Callable[[Facts], bool]] = {
        "negated": lambda facts: len(facts.denied) >= 2,
        "calm": lambda facts: bool(facts.red) and not any(problem.fact(name).sick for name in facts.red),
        "frightening": lambda facts: len(facts.denied) <= 1,
        "metaphor": lambda facts: bool(facts.red or facts.amber),
    }
    for _ in range(60):
        facts = draw_facts(problem, label, rng)
        if suits[kind](facts):
            break
    if kind == "calm":
        facts = replace(facts, trend=rng.choice(("better", None)), severity=rng.choice(("mild", None)))
    if kind == "frightening":
        facts = replace(facts, trend=None if facts.trend == "better" else facts.trend)
    return facts
