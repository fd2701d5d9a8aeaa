"""The embedded cases: synthetic vignettes from the knowledge base, for building and comparing, not evidence about patients.

Each set has its own presenting problems (by family), and every problem has cases of every label, so that a problem's
name says nothing about the label. The same seed gives the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tasks.corpus.case import Case, normal_text
from tasks.corpus.vignettes.draw_facts import draw_facts
from tasks.corpus.vignettes.knowledge_base import Problem, problems
from tasks.corpus.vignettes.label_rules import Facts, Verdict, decide
from tasks.corpus.vignettes.render import band_of, draw_style, render
from tasks.spec import LABELS, Label

GENERATOR_VERSION = 8
TRIES = 50  # to write a case that no other case is
SIZES = {"train": 3000, "valid": 600, "calibration": 1200, "test": 1500}
SHARES: dict[Label, float] = {"ED": 0.27, "GP": 0.38, "HOME": 0.35}  # near a helpline's
PROBLEM_SHARES = {"train": 0.485, "valid": 0.085, "calibration": 0.17, "test": 0.26}


@dataclass(frozen=True)
class Record:
    """A case with what it was made of. Only `case.text` is for a model; the rest re-derives and explains the label."""

    case: Case
    set: str
    facts: Facts
    verdict: Verdict


def embedded_cases(seed: int = 42) -> list[Case]:
    """The cases of all four sets, train first; `group` is the presenting problem."""
    return [record.case for record in embedded_records(seed)]


def embedded_sets(
    seed: int = 42, shares: Mapping[Label, float] | None = None, train_cases: int | None = None
) -> dict[str, list[Case]]:
    """The cases by set name; `shares` changes how many of each set have which label, `train_cases` how many train has."""
    sets: dict[str, list[Case]] = {name: [] for name in SIZES}
    for record in embedded_records(seed, share_key(shares), train_cases):
        sets[record.set].append(record.case)
    return sets


def share_key(shares: Mapping[Label, float] | None) -> tuple[float, ...] | None:
    """Class shares in the order of LABELS, as `embedded_records` takes them."""
    return tuple(shares[label] for label in LABELS) if shares else None


def embedded_records(
    seed: int = 42, shares: tuple[float, ...] | None = None, train_cases: int | None = None
) -> tuple[Record, ...]:
    """Every case with its facts, the rule that fired and the guidance behind it. `shares`: in the order of LABELS.

    `train_cases` writes more (or fewer) cases about the same problems of train; the other sets stay as they are.
    """
    return _records(
        seed, shares or tuple(SHARES[label] for label in LABELS), train_cases or SIZES["train"]
    )


@lru_cache(maxsize=2)
def _records(seed: int, shares: tuple[float, ...], train_cases: int) -> tuple[Record, ...]:
    """As above, under one key however the arguments are given, so that no process generates the same cases twice."""
    seen: set[str] = set()
    homes = assign_sets(seed)
    by_label = dict(zip(LABELS, shares, strict=True))
    return tuple(
        _record(problem, name, number, label, seed, seen)
        for name, size in (SIZES | {"train": train_cases}).items()
        for number, (problem, label) in enumerate(
            _plan(name, label_counts(size, by_label), homes, seed)
        )
    )


def assign_sets(seed: int = 42) -> dict[str, str]:
    """Problem id -> set name: families are dealt out within each body system, to the set most behind its share."""
    rng = random.Random(f"sets-{seed}")
    families: dict[str, list[str]] = {}
    for problem in problems().values():
        families.setdefault(problem.family, []).append(problem.id)
    placed = dict.fromkeys(PROBLEM_SHARES, 0)
    homes: dict[str, str] = {}
    for family in sorted(
        families, key=lambda family: (problems()[families[family][0]].system, rng.random())
    ):
        total = len(homes) + len(families[family])
        behind = {name: share * total - placed[name] for name, share in PROBLEM_SHARES.items()}
        name = max(behind, key=lambda name: behind[name])
        placed[name] += len(families[family])
        homes.update(dict.fromkeys(families[family], name))
    return homes


def label_counts(size: int, shares: Mapping[Label, float]) -> dict[Label, int]:
    """Whole numbers of cases per label that add up to `size`; ED is rounded up."""
    counts: dict[Label, int] = {
        "ED": -int(-size * shares["ED"] // 1),
        "GP": round(size * shares["GP"]),
        "HOME": 0,
    }
    counts["HOME"] = size - counts["ED"] - counts["GP"]
    return counts


def _plan(
    name: str, counts: dict[Label, int], homes: dict[str, str], seed: int
) -> list[tuple[Problem, Label]]:
    """Which problem gets which label how often: labels go round the set's problems in turn."""
    rng = random.Random(f"plan-{name}-{seed}")
    own = [problem for problem in problems().values() if homes[problem.id] == name]
    plan = []
    for label in LABELS:
        rng.shuffle(own)
        plan += [(own[i % len(own)], label) for i in range(counts[label])]
    rng.shuffle(plan)
    return plan


def _record(
    problem: Problem, name: str, number: int, label: Label, seed: int, seen: set[str]
) -> Record:
    rng = random.Random(f"case-{seed}-{name}-{number}-{problem.id}")
    for _ in range(TRIES):
        facts = draw_facts(problem, label, rng)
        style = draw_style(problem, facts, rng)
        text = render(problem, facts, style, rng)
        if normal_text(text) not in seen:
            break
    else:
        raise RuntimeError(
            f"Case {number + 1} of {name} ({problem.id}, {label}) came out as a text that is there already, in all of "
            f"{TRIES} tries; give the problem more facts or wordings, or ask for fewer cases."
        )
    seen.add(normal_text(text))
    subgroup = {"age_band": band_of(facts.age), "voice": style.voice, "spelling": style.spelling}
    verdict = decide(facts, problem)
    case = Case(f"{name}-{number + 1:04d}", text, verdict.label, problem.id, subgroup)
    return Record(case, name, facts, verdict)
