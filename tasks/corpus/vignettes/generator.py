"""The embedded cases: synthetic vignettes, for building and comparing, no evidence about patients.

Each set has its own presenting problems (by family), and every problem has cases of every label, so
that a problem's name says nothing about the label. The same seed gives the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tasks.corpus.case import Case, normal_text
from tasks.corpus.vignettes.draw_facts import draw_facts
from tasks.corpus.vignettes.knowledge_base import (
    ClinicalProblem,
    further_problems,
    problem_named,
    problems,
    registered_problems,
)
from tasks.corpus.vignettes.label_rules import Facts, Verdict, decide
from tasks.corpus.vignettes.render import Style, band_of, draw_style, render
from tasks.spec import LABELS, REGISTERED, Label

GENERATOR_VERSION = 8
TRIES = 50  # to write a text that no other case has
SIZES = {"train": 3000, "valid": 600, "calibration": 1200, "test": 1500}
SHARES: dict[Label, float] = {"ED": 0.27, "GP": 0.38, "HOME": 0.35}  # near a helpline's
Plan = list[tuple[ClinicalProblem, Label]]
PROBLEM_SHARES = {"train": 0.485, "valid": 0.085, "calibration": 0.17, "test": 0.26}


@dataclass(frozen=True)
class Record:
    """A case and the facts behind it.

    Only `case.text` is for a model; the rest re-derives and explains the label.
    """

    case: Case
    set: str
    facts: Facts
    verdict: Verdict


def share_key(shares: Mapping[Label, float] | None) -> tuple[float, ...]:
    """Class shares, or the usual ones, in the order of LABELS."""
    return tuple((shares or SHARES)[label] for label in LABELS)


def embedded_records(
    seed: int = 42,
    shares: tuple[float, ...] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Record, ...]:
    """Every case with its facts, the rule that fired and the guidance behind it.

    The four sets, train first; `case.group` is the presenting problem. `shares`: in the order of
    LABELS. `sizes` writes more (or fewer) cases about the same problems of the sets that it names;
    the other sets stay as they are.
    """
    all_sizes = SIZES | dict(sizes or {})
    return _records(seed, shares or share_key(None), tuple(all_sizes[name] for name in SIZES))


@lru_cache(maxsize=4)
def _records(seed: int, shares: tuple[float, ...], sizes: tuple[int, ...]) -> tuple[Record, ...]:
    """`embedded_records` with every argument given, so that no process generates cases twice."""
    texts: set[str] = set()
    records: list[Record] = []
    for name, size in zip(SIZES, sizes, strict=True):
        plan = _plan(name, label_counts(size, shares), problems_of(name, seed), seed)
        records += _written(plan, name, name, seed, texts)
    return tuple(records)


@lru_cache(maxsize=4)
def further_records(count: int, shares: tuple[float, ...], seed: int = 42) -> tuple[Record, ...]:
    """`count` cases of train about problems that no other set has (`further_problems`).

    `shares`: of the labels, in the order of LABELS.
    """
    candidates = list(further_problems().values())
    plan = _plan("further", label_counts(count, shares), candidates, seed)
    return tuple(_written(plan, "train", "train-further", seed, set()))


def records_about(
    problem_ids: Collection[str],
    name: str,
    count: int,
    shares: tuple[float, ...],
    seed: int,
    texts: set[str],
) -> tuple[Record, ...]:
    """`count` cases of the set `name` about these problems, as the four sets are written, with none
    of `texts`.

    `shares`: of the labels, in the order of LABELS. `texts`: normal ones; those written are added.
    """
    candidates = [problem_named(problem_id) for problem_id in sorted(problem_ids)]
    plan = _plan(name, label_counts(count, shares), candidates, seed)
    return tuple(_written(plan, name, name, seed, texts))


def planned_labels(
    name: str,
    seed: int,
    shares: Mapping[Label, float] | None,
    sizes: Mapping[str, int],
    drawn_as: str | None = None,
) -> list[tuple[str, Label]]:
    """The problem and the label of each case of a set, without writing the cases. `drawn_as`: another
    set, whose problems and draw it has.
    """
    counts = label_counts(sizes.get(name, SIZES[name]), share_key(shares))
    drawn_as = drawn_as or name
    plan = _plan(drawn_as, counts, problems_of(drawn_as, seed), seed)
    return [(problem.id, label) for problem, label in plan]


def assign_sets(seed: int = 42) -> dict[str, str]:
    """Problem id -> set name.

    Families are dealt out within each body system, to the set most behind its share.
    """
    rng = random.Random(f"sets-{seed}")
    families: dict[str, list[str]] = {}
    for problem in problems().values():
        families.setdefault(problem.family, []).append(problem.id)

    problem_counts = dict.fromkeys(PROBLEM_SHARES, 0)
    set_of_problem: dict[str, str] = {}
    for family in sorted(
        families, key=lambda family: (problems()[families[family][0]].system, rng.random())
    ):
        total = len(set_of_problem) + len(families[family])
        behind = {
            name: share * total - problem_counts[name] for name, share in PROBLEM_SHARES.items()
        }
        name = max(behind, key=lambda name: behind[name])
        problem_counts[name] += len(families[family])
        set_of_problem.update(dict.fromkeys(families[family], name))

    return set_of_problem


def problems_of(name: str, seed: int) -> list[ClinicalProblem]:
    """The problems of a set, in the order of the knowledge base; of the registered one by id."""
    if name == REGISTERED:
        return [problem for _, problem in sorted(registered_problems().items())]
    set_of_problem = assign_sets(seed)
    return [problem for problem in problems().values() if set_of_problem[problem.id] == name]


def label_counts(size: int, shares: tuple[float, ...]) -> dict[Label, int]:
    """Whole numbers of cases per label that add up to `size`; ED is rounded up.

    `shares`: in the order of LABELS.
    """
    ed = -int(-size * shares[0] // 1)
    gp = round(size * shares[1])
    return {"ED": ed, "GP": gp, "HOME": size - ed - gp}


def new_record(
    name: str,
    case_id: str,
    problem: ClinicalProblem,
    draw: Callable[[], tuple[Facts, Style]],
    rng: random.Random,
    texts: set[str],
    title: str,
    **further: str,
) -> Record:
    """A case of the set `name` with a text that is not in `texts` yet, and is added to them.

    `title` names the case in an error; `further`: subgroups besides age, voice and spelling. Raises
    RuntimeError where no draw of TRIES gives a new text.
    """
    for _ in range(TRIES):
        facts, style = draw()
        text = render(problem, facts, style, rng)
        if normal_text(text) not in texts:
            break
    else:
        raise RuntimeError(
            f"{title} repeats the text of another case in all of {TRIES} tries; "
            "give the problem more facts or wordings, or ask for fewer cases."
        )

    texts.add(normal_text(text))
    verdict = decide(facts, problem)
    subgroup = {
        "age_band": band_of(facts.age),
        "voice": style.voice,
        "spelling": style.spelling,
        **further,
    }
    case = Case(case_id, text, verdict.label, problem.id, subgroup)
    return Record(case, name, facts, verdict)


def _plan(
    name: str, counts: dict[Label, int], candidates: list[ClinicalProblem], seed: int
) -> Plan:
    """Which problem gets which label how often: labels go round the candidates in turn."""
    rng = random.Random(f"plan-{name}-{seed}")

    plan = []
    for label in LABELS:
        rng.shuffle(candidates)
        plan += [(candidates[i % len(candidates)], label) for i in range(counts[label])]

    rng.shuffle(plan)

    return plan


def _written(
    plan: Plan, set_name: str, series: str, seed: int, texts: set[str]
) -> Iterator[Record]:
    """The cases of a plan, with ids of the `series` and texts that are not in `texts`."""
    for number, (problem, label) in enumerate(plan, start=1):
        # One generator for each case, so that a case more or less moves no other.
        rng = random.Random(f"case-{seed}-{series}-{number - 1}-{problem.id}")

        def draw(
            problem: ClinicalProblem = problem, label: Label = label, rng: random.Random = rng
        ) -> tuple[Facts, Style]:
            facts = draw_facts(problem, label, rng)
            return facts, draw_style(problem, facts, rng)

        title = f"Case {number} of {series} ({problem.id}, {label})"
        yield new_record(set_name, f"{series}-{number:04d}", problem, draw, rng, texts, title)
