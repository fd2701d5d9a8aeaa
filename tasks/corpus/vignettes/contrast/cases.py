"""Contrast cases: they teach what takes an alarm back, by pairs that share everything else.

Both cases of a pair are about one problem and told in the same frame, with the same alarm: in one
it stands, in the other it is taken back. So the frame says nothing about the label, which follows
from the facts as in every other case.

- `negated`: the alarm is in a list of what is absent
- `elsewhere`: the alarm is somebody else's, long over, or only imagined
- `figurative`: figures of speech with alarming words
- `frightened`: a writer who fears the worst
- `understated`: a writer who is not worried
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache

from tasks.corpus.vignettes.contrast.bank import (
    Bank,
    Learner,
    RewordedProblem,
    Words,
    reworded,
    teaching_bank,
)
from tasks.corpus.vignettes.draw_facts import draw_facts
from tasks.corpus.vignettes.flags import absent_red_flags, stems
from tasks.corpus.vignettes.generator import Record, label_counts, new_record, problems_of
from tasks.corpus.vignettes.knowledge_base import ClinicalProblem
from tasks.corpus.vignettes.label_rules import Facts
from tasks.corpus.vignettes.render import (
    Style,
    draw_style,
    render,
    told_by_no_nurse,
)
from tasks.spec import LABELS, Label

CONTRAST_VERSION = 2  # raised when these cases change; GENERATOR_VERSION is that of all others
TRIES = (
    4  # to draw facts beside which the alarm of the other case can be absent; more hardly find any
)
NAMED = (2, 3, 4)  # flags in a list of what is absent
GROWN_UP = 18  # years: from here on there is a "long ago"
KINDS = ("negated", "elsewhere", "figurative", "frightened", "understated")
MOODS = {"frightened": "alarm", "understated": "calm"}


@dataclass(frozen=True)
class Frame:
    """The wording that both cases of a pair share.

    `mention` is how a flag is told of somebody else, of long ago or of the imagination, as a list
    of the bank: `others`, `past` or `imagined`; `template` its wording.
    """

    kind: str
    pictured: bool
    list_form: str
    mention: str
    template: str
    asides: Words


@lru_cache(maxsize=4)
def contrast_records(
    learner: Learner, count: int, shares: tuple[float, ...], seed: int = 42
) -> tuple[Record, ...]:
    """`count` contrast cases about the problems of a set, in pairs as far as the shares allow.

    `shares`: of the labels, in the order of LABELS.
    """
    rng = random.Random(f"contrast-plan-{learner}-{seed}")
    counts = label_counts(count, dict(zip(LABELS, shares, strict=True)))
    other_labels: list[Label] = [
        label for label in LABELS if label != "ED" for _ in range(counts[label])
    ]
    rng.shuffle(other_labels)

    about = problems_of(learner, seed)
    rng.shuffle(about)

    texts: set[str] = set()
    records: list[Record] = []
    for number in range(max(counts["ED"], len(other_labels))):
        # Each round of the problems starts one kind later, so that every problem meets each.
        turn, place = divmod(number, len(about))
        problem = about[place]
        kind = KINDS[(place + turn) % len(KINDS)]
        labels = other_labels[number : number + 1]
        if number < counts["ED"]:
            labels.insert(0, "ED")
        records += _pair(problem, kind, labels, f"{learner}-contrast-{number + 1:04d}", seed, texts)

    return tuple(records)


def _pair(
    problem: ClinicalProblem, kind: str, labels: list[Label], name: str, seed: int, texts: set[str]
) -> list[Record]:
    """A case of each label in one frame, the ED case first: its red flag is the others' alarm."""
    rng = random.Random(f"{name}-{seed}-{problem.id}")
    learner: Learner = "valid" if name.startswith("valid") else "train"
    bank = teaching_bank(learner)
    words = reworded(problem, bank, rng)
    frame = _frame(words, kind, bank, rng)

    records: list[Record] = []
    for label in labels:
        alarm = records[0].facts.red[0] if records and records[0].facts.red else None
        letter = "a" if label == "ED" else "b"
        records.append(_record(words, frame, bank, label, alarm, f"{name}{letter}", rng, texts))

    return records


def _record(
    problem: RewordedProblem,
    frame: Frame,
    bank: Bank,
    label: Label,
    alarm: str | None,
    name: str,
    rng: random.Random,
    texts: set[str],
) -> Record:
    def draw() -> tuple[Facts, Style, str]:
        facts, asides = _framed_facts(problem, frame, bank, label, alarm, rng)
        style = _style(problem, facts, frame, asides, rng)
        return facts, style, render(problem, facts, style, rng)

    title = f"Case {name} ({problem.id}, {frame.kind}, {label})"
    set_name = name.partition("-")[0]
    return new_record(set_name, name, problem, draw, texts, title, kind=frame.kind)


def _frame(problem: ClinicalProblem, kind: str, bank: Bank, rng: random.Random) -> Frame:
    frame = bank.frame
    mention = rng.choices(("others", "imagined", "past"), (0.5, 0.25, 0.25))[0]
    asides: Words = {
        "figurative": _unrelated_figures(frame.figures, problem),
        "frightened": frame.fear,
        "understated": frame.ease,
    }.get(kind, ())

    return Frame(
        kind=kind,
        pictured=kind == "figurative" and rng.random() < 0.5,
        list_form=rng.choice(frame.lists),
        mention=mention,
        template=rng.choice(getattr(frame, mention)),
        asides=tuple(rng.sample(asides, min(2, len(asides)))),
    )


def _unrelated_figures(figures: Words, problem: ClinicalProblem) -> Words:
    """The figures of speech that share no word with the complaint or a fact of the problem."""
    own_facts = (*problem.red.values(), *problem.amber.values(), *problem.mild.values())
    clauses = tuple(clause for fact in own_facts for clause in (fact.note, *fact.say))
    stems_of_problem = stems((problem.note, *problem.complaint, *clauses))
    return tuple(words for words in figures if not stems((words,)) & stems_of_problem)


def _framed_facts(
    problem: RewordedProblem,
    frame: Frame,
    bank: Bank,
    label: Label,
    alarm: str | None,
    rng: random.Random,
) -> tuple[Facts, Words]:
    """Facts of the label with the alarm taken back, and the clauses that are no facts."""
    facts, absent = _facts_without(problem, label, alarm, rng)
    first = [alarm] if alarm in absent else []
    other_names = rng.sample(absent, len(absent))
    names = list(dict.fromkeys([*first, *other_names]))

    if frame.kind == "negated":
        listable_first = sorted(names, key=lambda name: not problem.fact(name).listable)
        ordered_names = dict.fromkeys([*first, *listable_first])
        return replace(facts, denied=tuple(ordered_names)[: rng.choice(NAMED)]), ()

    if frame.kind == "elsewhere":
        mentioned = [name for name in names if problem.fact(name).listable][:2]
        clauses = [_mention(problem, name, facts, frame, bank, rng) for name in mentioned[:1]]
        clauses += [
            rng.choice(bank.flag[name].other) for name in mentioned[1:] if name in bank.flag
        ]
        mentioned = mentioned[: len(clauses)]
        denied = tuple(name for name in facts.denied if name not in mentioned)[:1]
        return replace(facts, denied=denied, elsewhere=tuple(mentioned)), tuple(clauses)

    denied = tuple(dict.fromkeys([*(first if rng.random() < 0.5 else []), *facts.denied]))[:2]
    return replace(facts, denied=denied), frame.asides


def _facts_without(
    problem: RewordedProblem, label: Label, alarm: str | None, rng: random.Random
) -> tuple[Facts, list[str]]:
    """Facts of the label, and the red flags that may be called absent beside them.

    The alarm is one of these wherever TRIES allow it.
    """
    for _ in range(TRIES):
        facts = draw_facts(problem, label, rng)
        absent = absent_red_flags(problem, facts)
        if alarm is None or alarm in absent:
            break
    return facts, absent


def _mention(
    problem: RewordedProblem,
    name: str,
    facts: Facts,
    frame: Frame,
    bank: Bank,
    rng: random.Random,
) -> str:
    """A flag that is not the patient's, or not now, as a clause."""
    if frame.mention == "past" and facts.age < GROWN_UP:
        return rng.choice(bank.frame.others).format(flag=problem.fact(name).note)
    if frame.mention == "others" and name in bank.flag and rng.random() < 0.7:
        return rng.choice(bank.flag[name].other)
    return frame.template.format(flag=problem.fact(name).note)


def _style(
    problem: ClinicalProblem, facts: Facts, frame: Frame, asides: Words, rng: random.Random
) -> Style:
    style = draw_style(problem, facts, rng)
    if frame.kind != "negated":
        style = told_by_no_nurse(style, facts.age, rng)

    return replace(
        style,
        mood=MOODS.get(frame.kind, style.mood),
        lay=frame.pictured,
        listed=frame.kind == "negated",
        list_form=frame.list_form,
        asides=asides,
    )
