"""Harder test sets on the problems of the test set: wording and tone pull away from the label.

- `negated`: several red flags are named as absent; the label follows from the one fact that is
  present
- `frightening`: alarm in every sentence around a core that is no emergency; GP or HOME
- `calm`: an understated, hopeful story around a red flag, with much that is well; ED
- `metaphor`: every fact in its most pictorial wording, and the label follows from those; any label

The deciding facts are the problem's own, never the general ones that the training cases share word
for word. The second set is four times as large, and has its own words for all but the facts: see
`contrast/adversarial_2.toml`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from tasks.corpus.case import normal_text
from tasks.corpus.vignettes.draw_facts import draw_denials, draw_facts
from tasks.corpus.vignettes.generator import Record, embedded_records, new_record, problems_of
from tasks.corpus.vignettes.knowledge_base import Bank, ClinicalProblem, read_bank, reworded, tone
from tasks.corpus.vignettes.label_rules import Facts, decide
from tasks.corpus.vignettes.render import Style, draw_style, told_by_no_nurse
from tasks.spec import Label

SIZES = {"test_adversarial": 300, "test_adversarial_2": 1200}
BANKS = {"test_adversarial_2": "adversarial_2"}
ADVERSARIAL_VERSION = 1  # of the sets with a bank; the first set is of GENERATOR_VERSION
FACT_TRIES = 120  # to draw facts that suit the kind
NAMED = 2  # flags, at least, that a negated case names as absent
NAME = "test_adversarial"
KINDS: tuple[tuple[str, Label], ...] = (
    ("negated", "HOME"), ("calm", "ED"), ("frightening", "GP"),
    ("frightening", "HOME"), ("negated", "ED"), ("negated", "GP"),
    ("metaphor", "HOME"), ("metaphor", "ED"), ("metaphor", "GP"),
)  # fmt: skip
MOODS = {"negated": "plain", "frightening": "alarm", "calm": "calm"}


def adversarial_records(seed: int = 42, name: str = NAME) -> tuple[Record, ...]:
    """The cases of a set with their facts and rules, a third of each label; `subgroup["kind"]` says
    what makes a case hard. No text is also in the ordinary sets.
    """
    return _records(seed, name)


@lru_cache(maxsize=4)
def _records(seed: int, name: str = NAME) -> tuple[Record, ...]:
    """`adversarial_records` with every argument given."""
    # The first set had no name when its draws were fixed.
    key = f"adversarial-{seed}" if name == NAME else f"{name}-{seed}"
    in_test = problems_of("test", seed)
    random.Random(key).shuffle(in_test)

    earlier = embedded_records(seed) if name == NAME else (*embedded_records(seed), *_records(seed))
    texts = {normal_text(record.case.text) for record in earlier}
    return tuple(
        _record(in_test[number % len(in_test)], number, number // len(in_test), key, name, texts)
        for number in range(SIZES[name])
    )


def _record(
    problem: ClinicalProblem, number: int, turn: int, key: str, name: str, texts: set[str]
) -> Record:
    rng = random.Random(f"{key}-{number}-{problem.id}")
    # Each round of the problems starts one kind later.
    kind, label = KINDS[(number + turn) % len(KINDS)]
    bank = read_bank(BANKS[name]) if name in BANKS else None
    if bank:
        problem = reworded(problem, bank, rng)

    def draw() -> tuple[Facts, Style]:
        facts = _facts(problem, kind, label, rng)
        return facts, _style(problem, facts, kind, bank, rng)

    title = f"Case {number + 1} of {name} ({problem.id}, {kind}, {label})"
    case_id = f"{name}-{number + 1:0{len(str(SIZES[name]))}d}"
    return new_record(name, case_id, problem, draw, rng, texts, title, kind=kind)


def _facts(problem: ClinicalProblem, kind: str, label: Label, rng: random.Random) -> Facts:
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


def _suitable_facts(problem: ClinicalProblem, kind: str, label: Label, rng: random.Random) -> Facts:
    """Facts that suit the kind, else the last of FACT_TRIES draws with own facts only."""
    nearest = None
    for _ in range(FACT_TRIES):
        facts = draw_facts(problem, label, rng)
        if kind == "negated":
            # Four flags are denied, those first that can be named in a list.
            denied = draw_denials(problem, facts, rng, count=9)
            denied = tuple(sorted(denied, key=lambda name: not problem.fact(name).listable))
            facts = replace(facts, denied=denied[:4])
        if _suits(problem, facts, kind):
            return facts
        if _has_own_facts_only(problem, facts):
            nearest = facts

    return nearest or facts


def _suits(problem: ClinicalProblem, facts: Facts, kind: str) -> bool:
    """Whether the problem's own facts decide, and in the way that the kind is about."""
    if not _has_own_facts_only(problem, facts) or facts.severity == "severe":
        return False
    if kind == "calm":
        return bool(facts.red) and not any(problem.fact(name).sick for name in facts.red)
    if kind == "negated":
        return sum(problem.fact(name).listable for name in facts.denied) >= NAMED

    rule = decide(facts, problem).rule
    return kind != "metaphor" or rule.startswith(("red:", "amber:", "no_flag"))


def _has_own_facts_only(problem: ClinicalProblem, facts: Facts) -> bool:
    """Whether every fact that is present is the problem's own."""
    return {*facts.red, *facts.amber, *facts.mild} <= {*problem.red, *problem.amber, *problem.mild}


def _style(
    problem: ClinicalProblem, facts: Facts, kind: str, bank: Bank | None, rng: random.Random
) -> Style:
    """The mood of the kind, with asides that carry it."""
    style = draw_style(problem, facts, rng)
    tones: Mapping[str, Sequence[str]] = tone()
    if bank:
        tones = {"frightening": bank.frame.fear, "calm": bank.frame.ease}
    if kind in tones or kind == "metaphor":
        style = told_by_no_nurse(style, facts.age, rng)

    asides = tuple(rng.sample(tones[kind], 2)) if kind in tones else ()
    style = replace(
        style,
        mood=MOODS.get(kind, style.mood),
        lay=kind != "negated",
        listed=kind == "negated",
        asides=asides,
    )
    return replace(style, list_form=rng.choice(bank.frame.lists)) if bank else style
