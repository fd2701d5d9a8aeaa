"""A harder test set on the problems of the test set: wording and tone pull away from the label.

- `negated`: several red flags are named as absent; the label follows from the one fact that is
  present
- `frightening`: alarm in every sentence around a core that is no emergency; GP or HOME
- `calm`: an understated, hopeful story around a red flag, with much that is well; ED
- `metaphor`: every fact in its most pictorial wording, and the label follows from those; any label

The deciding facts are the problem's own, never the general ones that the training cases share word
for word.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

from tasks.corpus.case import Case, normal_text
from tasks.corpus.vignettes.draw_facts import draw_facts
from tasks.corpus.vignettes.flags import draw_denials
from tasks.corpus.vignettes.generator import Record, assign_sets, embedded_records, new_text
from tasks.corpus.vignettes.knowledge_base import Problem, problems, tone
from tasks.corpus.vignettes.label_rules import Facts, decide
from tasks.corpus.vignettes.render import Style, band_of, draw_style, render
from tasks.spec import Label

SIZE = 300
FACT_TRIES = 120  # to draw facts that suit the kind
NAMED = 2  # flags, at least, that a negated case names as absent
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
    set_of_problem = assign_sets(seed)
    in_test = [problem for problem in problems().values() if set_of_problem[problem.id] == "test"]
    random.Random(f"adversarial-{seed}").shuffle(in_test)

    texts = {normal_text(record.case.text) for record in embedded_records(seed)}
    return tuple(
        _record(in_test[number % len(in_test)], number, _kind(number, len(in_test)), seed, texts)
        for number in range(SIZE)
    )


def _kind(number: int, problem_count: int) -> tuple[str, Label]:
    """Kind and label of a case: each round of the problems starts one kind later."""
    return KINDS[(number + number // problem_count) % len(KINDS)]


def _record(
    problem: Problem, number: int, kind_and_label: tuple[str, Label], seed: int, texts: set[str]
) -> Record:
    rng = random.Random(f"adversarial-{seed}-{number}-{problem.id}")
    kind, label = kind_and_label

    def draw() -> tuple[Facts, Style, str]:
        facts = _facts(problem, kind, label, rng)
        style = _style(problem, facts, kind, rng)
        return facts, style, render(problem, facts, style, rng)

    title = f"Case {number + 1} of {NAME} ({problem.id}, {kind}, {label})"
    facts, style, text = new_text(draw, texts, title)
    verdict = decide(facts, problem)
    subgroup = {
        "age_band": band_of(facts.age),
        "voice": style.voice,
        "spelling": style.spelling,
        "kind": kind,
    }
    case = Case(f"{NAME}-{number + 1:03d}", text, verdict.label, problem.id, subgroup)
    return Record(case, NAME, facts, verdict)


def _facts(problem: Problem, kind: str, label: Label, rng: random.Random) -> Facts:
    """Facts that suit the kind, in its own tone."""
    facts = _suitable_facts(problem, kind, label, rng)
    if kind == "calm":
        facts = replace(
            facts, trend=rng.choice(("better", None)), severity=rng.choice(("mild", None))
        )
        return replace(facts, denied=draw_denials(problem, facts, rng, count=4)[:3])
    if kind == "frightening":
        trend = None if facts.trend == "better" else facts.trend
        return replace(facts, trend=trend, denied=facts.denied[:1])
    return facts


def _suitable_facts(problem: Problem, kind: str, label: Label, rng: random.Random) -> Facts:
    """Facts that suit the kind, else the last of FACT_TRIES draws with own facts only."""
    nearest = None
    for _ in range(FACT_TRIES):
        facts = draw_facts(problem, label, rng)
        if kind == "negated":
            facts = _with_denials(problem, facts, rng)
        if _suits(problem, facts, kind):
            return facts
        if _has_own_facts_only(problem, facts):
            nearest = facts

    return nearest or facts


def _with_denials(problem: Problem, facts: Facts, rng: random.Random) -> Facts:
    """The facts with four flags denied, those first that can be named in a list."""
    names = draw_denials(problem, facts, rng, count=9)
    listable_first = sorted(names, key=lambda name: not problem.fact(name).listable)
    return replace(facts, denied=tuple(listable_first[:4]))


def _suits(problem: Problem, facts: Facts, kind: str) -> bool:
    """Whether the problem's own facts decide, and in the way that the kind is about."""
    if not _has_own_facts_only(problem, facts) or facts.severity == "severe":
        return False
    if kind == "calm":
        return bool(facts.red) and not any(problem.fact(name).sick for name in facts.red)
    if kind == "negated":
        return sum(problem.fact(name).listable for name in facts.denied) >= NAMED

    rule = decide(facts, problem).rule
    return kind != "metaphor" or rule.startswith(("red:", "amber:", "no_flag"))


def _has_own_facts_only(problem: Problem, facts: Facts) -> bool:
    """Whether every fact that is present is the problem's own."""
    return {*facts.red, *facts.amber, *facts.mild} <= {*problem.red, *problem.amber, *problem.mild}


def _style(problem: Problem, facts: Facts, kind: str, rng: random.Random) -> Style:
    """The mood of the kind, with asides that carry it.

    A nurse's note has neither tone nor pictures, so others write.
    """
    style = draw_style(problem, facts, rng)
    needs_tone = kind in tone() or kind == "metaphor"
    while needs_tone and style.voice == "nurse":
        relative = "carer" if facts.age >= 18 else "parent"
        style = replace(style, voice=rng.choice(("terse", relative)))

    asides = tuple(rng.sample(tone()[kind], 2)) if kind in tone() else ()
    return replace(
        style,
        mood=MOODS.get(kind, style.mood),
        lay=kind != "negated",
        listed=kind == "negated",
        asides=asides,
    )
