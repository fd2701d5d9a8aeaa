"""The sections of the data card on the embedded cases: how they are made, what they cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tasks.corpus.vignettes.generator import GENERATOR_VERSION, embedded_records
from tasks.corpus.vignettes.knowledge_base import general, knowledge_digest, problems
from tasks.corpus.vignettes.label_rules import (
    CHILD_VITALS,
    IMMUNE_FEVER,
    NEWS2,
    WORSE_LATER,
    YOUNG_FEVER,
)
from tasks.corpus.vignettes.reader_check import describe_all_checks
from tasks.spec import LABELS

NOTICE = "synthetic: for building and comparing, not evidence about patients"
# The text is part of the digest of every embedded dataset, and so stays as it is.
EMBEDDED = """\
## What it is

Vignettes written by a generator from a knowledge base in plain data files ({problems} presenting problems in {systems}
fields, generator {generator}, knowledge {knowledge}). {notice}.

A case is drawn as facts: age, sex, flags that are present or said to be absent, illnesses and medicines, duration,
trend, severity, vital signs. Rules turn the facts into the label, never the problem's name: each problem has cases of
every label. The text is written from the facts in several voices; label, rule, problem and subgroup are never shown.

## Rules

The first that fires decides: a red flag (ED); a vital sign in the emergency range, NEWS2 or children's limits (ED); a
fever under three months, or with an immune system that medicine holds down (ED); an age or illness that makes the
problem an emergency (ED); an amber flag (GP); an age or illness that needs a doctor (GP); longer than the natural
course without getting better (GP; in {lasting} problems, the others may last); severe in spite of self-care (GP);
getting worse at 65 or older, or at any age in the {worsening} problems that are not expected to get worse before they
get better (GP); else HOME. Red and amber flags follow public guidance, named for each problem: {sources} distinct
references, most often NICE guidelines and CKS, NHS pages, SIGN, RCOG and Resuscitation Council UK; they are listed
below. Facts only, in the project's own words.

## How far the labels can be trusted

Deriving the label again from the stored facts (`facts.jsonl` beside the sets) gives the stored label for every case: a
check by `triage data check embedded`, and a test. {reader}

## Limits

- The wording is a generator's: short clauses in random order, some stilted. Real messages ramble, omit and mislead.
- {wordings}
- A case has one complaint; severity, duration and trend are drawn with little regard to each other.
- The rules are those of British primary care guidance, simplified; other systems triage otherwise.
- Problems of one set are absent from the others, so results are about new problems, not about rephrased known ones. But
  some flags (collapse, weight loss) can join any problem in the same words: {shared}.
- `test_adversarial` uses the test set's problems: it is a second look at them, not an independent sample.

## Sources

{references}.
"""


def embedded_card() -> str:
    """The card's sections on the embedded cases, as Markdown."""
    all_problems = problems().values()
    references = references_in(_sources())

    return EMBEDDED.format(
        problems=len(all_problems),
        systems=len({problem.system for problem in all_problems}),
        sources=len(references),
        generator=GENERATOR_VERSION,
        knowledge=knowledge_digest()[:12],
        notice=NOTICE.capitalize(),
        reader=describe_all_checks(),
        wordings=_wordings(),
        shared=_shared(),
        lasting=sum(problem.lasting_decides for problem in all_problems),
        worsening=sum(problem.worse_decides for problem in all_problems),
        references="; ".join(references),
    )


def _wordings() -> str:
    """In how many wordings the facts of the knowledge base are said and denied."""
    knowledge = general()
    kinds = [knowledge.red, knowledge.amber, knowledge.mild]
    for problem in problems().values():
        kinds += [problem.red, problem.amber, problem.mild]

    facts = [fact for kind in kinds for fact in kind.values()]
    counts = [len(fact.say) for fact in facts if fact.say]
    denials = [len(fact.deny) for fact in facts if fact.deny]

    return (
        f"Each of {len(facts)} facts is said in {min(counts)} to {max(counts)} wordings "
        f"({sum(counts)} in all; a nurse's note is one more), and each of the {len(denials)} that "
        f"can be denied in {min(denials)} to {max(denials)} ({sum(denials)} in all). Cases of a "
        "set repeat clauses: their number overstates their variety."
    )


def _shared() -> str:
    """ED and GP cases of the test set that a fact decides which train has in the same words."""
    shared: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for record in embedded_records():
        label = record.case.label
        if record.set != "test" or label == "HOME":
            continue

        kind, _, name = record.verdict.rule.partition(":")
        general_flags = {"red": general().red, "amber": general().amber}
        total[label] += 1
        shared[label] += name in general_flags.get(kind, {})

    parts = [f"{shared[label]} of {total[label]} {label} cases" for label in LABELS[:2]]
    return f"they decide {' and '.join(parts)} of the standard test set"


def references_in(sources: Iterable[str]) -> list[str]:
    """Every public reference that sources name, once, by name; 'NG109 and NG111' count as one."""
    references = {part.strip() for source in sources for part in source.split(";")}
    return sorted(references, key=str.casefold)


def _sources() -> Iterator[str]:
    """The sources that the rules, the problems and their flags name."""
    yield from (NEWS2, CHILD_VITALS, YOUNG_FEVER, IMMUNE_FEVER, WORSE_LATER)
    flags = [*general().red.values(), *general().amber.values()]
    for problem in problems().values():
        yield problem.source
        flags += [*problem.red.values(), *problem.amber.values()]

    yield from (flag.source for flag in flags if flag.source)
