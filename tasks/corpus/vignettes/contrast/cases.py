"""Contrast cases: they teach what takes an alarm back, by pairs that share everything else.

Both cases of a pair are about one problem and told in the same frame, with the same alarm, which is
taken back in one of them. So the frame says nothing about the label, which follows from the facts
as in every other case.

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

from tasks.corpus.vignettes.draw_facts import absent_red_flags, draw_facts, stems
from tasks.corpus.vignettes.generator import Record, label_counts, new_record, problems_of
from tasks.corpus.vignettes.knowledge_base import (
    Bank,
    ClinicalProblem,
    Learner,
    RewordedProblem,
    Words,
    reworded,
    teaching_bank,
)
from tasks.corpus.vignettes.label_rules import Facts
from tasks.corpus.vignettes.render import Style, draw_style, told_by_no_nurse
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
    counts = label_counts(count, shares)
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
        kind = KINDS[(place + turn) % len(KINDS)]
        labels = other_labels[number : number + 1]
        if number < counts["ED"]:
            labels.insert(0, "ED")
        records += _pair(learner, number + 1, about[place], kind, labels, seed, texts)

    return tuple(records)


def _pair(
    learner: Learner,
    number: int,
    problem: ClinicalProblem,
    kind: str,
    labels: list[Label],
    seed: int,
    texts: set[str],
) -> list[Record]:
    """A case of each label in one frame, the ED case first: its red flag is the others' alarm."""
    name = f"{learner}-contrast-{number:04d}"
    rng = random.Random(f"{name}-{seed}-{problem.id}")
    bank = teaching_bank(learner)
    words = reworded(problem, bank, rng)
    frame = _frame(words, kind, bank, rng)

    records: list[Record] = []
    for label in labels:
        alarm = records[0].facts.red[0] if records and records[0].facts.red else None
        case_id = f"{name}{'a' if label == 'ED' else 'b'}"
        title = f"Case {case_id} ({problem.id}, {kind}, {label})"

        def draw(label: Label = label, alarm: str | None = alarm) -> tuple[Facts, Style]:
            facts, asides = _framed_facts(words, frame, bank, label, alarm, rng)
            return facts, _style(words, facts, frame, asides, rng)

        records.append(new_record(learner, case_id, words, draw, rng, texts, title, kind=kind))

    return records


def _frame(problem: ClinicalProblem, kind: str, bank: Bank, rng: random.Random) -> Frame:
    frame = bank.frame
    mention = rng.choices(("others", "imagined", "past"), (0.5, 0.25, 0.25))[0]
    asides: Words = ()
    if kind == "figurative":
        # Those that share no word with the complaint or a fact of the problem.
        clauses = tuple(clause for fact in problem.all_facts for clause in (fact.note, *fact.say))
        taken = stems((problem.note, *problem.complaint, *clauses))
        asides = tuple(words for words in frame.figures if not stems((words,)) & taken)
    elif kind in ("frightened", "understated"):
        asides = frame.fear if kind == "frightened" else frame.ease

    return Frame(
        kind=kind,
        pictured=kind == "figurative" and rng.random() < 0.5,
        list_form=rng.choice(frame.lists),
        mention=mention,
        template=rng.choice(getattr(frame, mention)),
        asides=tuple(rng.sample(asides, min(2, len(asides)))),
    )


def _framed_facts(
    problem: RewordedProblem,
    frame: Frame,
    bank: Bank,
    label: Label,
    alarm: str | None,
    rng: random.Random,
) -> tuple[Facts, Words]:
    """Facts of the label with the alarm taken back, and the clauses that are no facts.

    The alarm is one of the flags that may be called absent wherever TRIES allow it.
    """
    for _ in range(TRIES):
        facts = draw_facts(problem, label, rng)
        absent = absent_red_flags(problem, facts)
        if alarm is None or alarm in absent:
            break

    first = [alarm] if alarm in absent else []
    names = list(dict.fromkeys([*first, *rng.sample(absent, len(absent))]))

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
