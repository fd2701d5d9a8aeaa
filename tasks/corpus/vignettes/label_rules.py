"""The facts of a case, and the rules that turn them into a label.

The first rule that fires decides.

1. a red flag of the problem or a general one: ED (guidance named at the problem or flag)
2. a vital sign in the emergency range: ED (adults: a single NEWS2 score of 3, RCP 2017; children:
   saturation under 92 %, BTS/SIGN, or over 60 breaths a minute, NICE NG143); for every complaint, a
   fever of 38 degrees or more, measured or reported, under three months (NICE NG143) or with an
   immune system that medicine suppresses (NICE CG151)
3. an age or context that makes this problem an emergency (`ed_under`, `ed_if`): ED
4. an amber flag, likewise: GP
5. an age or context that needs a doctor's assessment (`gp_under`, `gp_over`, `gp_if`): GP
6. longer than the natural course without getting better: GP
7. severe in spite of self-care: GP
8. getting worse at 65 or older (BGS frailty), or at any age where this problem is not expected to
   get worse before it gets better (all but `worsens_first`): GP
9. none of these: HOME
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.corpus.vignettes.knowledge_base import FEVER, ClinicalProblem
from tasks.spec import Label

NEWS2 = "RCP NEWS2 2017"
CHILD_VITALS = "BTS/SIGN asthma; NICE NG143"
YOUNG_FEVER = "NICE NG143"
IMMUNE_FEVER = "NICE CG151"
IMMUNE = "immunosuppressed"  # the context of chemotherapy and of medicine against rejection
LATER_LIFE = 65  # years: from here on a complaint that gets worse is assessed
WORSE_LATER = "BGS frailty; NICE NG56"
YOUNG = 0.25  # years: under three months any fever is an emergency
ADULT_VITALS = 16  # years: from here on NEWS2 applies
NO_LIMIT = 200  # years of age


@dataclass(frozen=True)
class Vitals:
    """Temperature in degrees Celsius, rates per minute, saturation in %, blood pressure in mmHg."""

    temp: float | None = None
    hr: int | None = None
    rr: int | None = None
    spo2: int | None = None
    sbp: int | None = None
    dbp: int | None = None

    @property
    def fever(self) -> bool:
        return self.temp is not None and self.temp >= FEVER


@dataclass(frozen=True)
class Facts:
    """Everything that is true in one case.

    `denied` are flags that the text says are absent; `elsewhere` those of which it speaks otherwise
    (somebody else's, long over, only imagined). No rule looks at either.
    """

    problem: str
    age: float
    sex: str
    red: tuple[str, ...] = ()
    amber: tuple[str, ...] = ()
    mild: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    absent_contexts: tuple[str, ...] = ()
    days: float = 1.0
    trend: str | None = None
    severity: str | None = None
    vitals: Vitals = Vitals()
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A label, the rule that gave it, and the public guidance behind the rule."""

    label: Label
    rule: str
    source: str


def decide(facts: Facts, problem: ClinicalProblem) -> Verdict:
    """The label that follows from the facts alone."""
    if facts.red:
        source = problem.fact(facts.red[0]).source or problem.source
        return Verdict("ED", f"red:{facts.red[0]}", source)
    if sign := _emergency_vital(facts, problem):
        source = NEWS2 if facts.age >= ADULT_VITALS else CHILD_VITALS
        return Verdict("ED", f"vital:{sign}", source)

    # The complaint or an amber fact says that there is a fever (a red one alone is ED).
    reports_fever = problem.temp == "febrile" or any(
        problem.fact(name).feverish for name in facts.amber
    )
    if facts.age < YOUNG and reports_fever:
        return Verdict("ED", "fever_under_3_months", YOUNG_FEVER)
    if IMMUNE in facts.contexts and (facts.vitals.fever or reports_fever):
        return Verdict("ED", "fever_immunosuppressed", IMMUNE_FEVER)
    if reason := _personal_reason(facts, problem.ed_if, problem.ed_under, NO_LIMIT):
        return Verdict("ED", reason, problem.source)

    if facts.amber:
        source = problem.fact(facts.amber[0]).source or problem.source
        return Verdict("GP", f"amber:{facts.amber[0]}", source)
    if reason := _personal_reason(facts, problem.gp_if, problem.gp_under, problem.gp_over):
        return Verdict("GP", reason, problem.source)
    if facts.days > problem.days[1] and facts.trend != "better":
        return Verdict("GP", "longer_than_natural_course", problem.source)
    if facts.severity == "severe":
        return Verdict("GP", "severe_despite_self_care", problem.source)
    if facts.trend == "worse" and facts.age >= LATER_LIFE:
        return Verdict("GP", "worse_in_later_life", WORSE_LATER)
    if facts.trend == "worse" and not problem.worsens_first:
        return Verdict("GP", "getting_worse", problem.source)
    return Verdict("HOME", "no_flag", problem.source)


def decisive_vital(facts: Facts, problem: ClinicalProblem) -> str | None:
    """The vital sign that makes this case an emergency, which its text must mention, or None."""
    sign = _emergency_vital(facts, problem)
    return sign or ("temp" if IMMUNE in facts.contexts and facts.vitals.fever else None)


def _emergency_vital(facts: Facts, problem: ClinicalProblem) -> str | None:
    """The first vital sign that alone is an emergency, or None."""
    vitals = facts.vitals
    adult = facts.age >= ADULT_VITALS
    # A reading, and the range outside which it is an emergency; both ends are inside.
    ranges: list[tuple[str, float | None, float, float]] = [
        ("spo2", vitals.spo2, problem.spo2_floor + 1, 101),
        ("rr", vitals.rr, 9 if adult else 10, 24 if adult else 60),
    ]
    if facts.age < YOUNG:
        ranges.append(("temp", vitals.temp, 0, FEVER - 0.1))
    if adult:
        # Outside these a single parameter scores 3 in NEWS2; a high temperature never does.
        ranges.append(("sbp", vitals.sbp, 91, 219))
        ranges.append(("hr", vitals.hr, 41, 130))
        ranges.append(("temp", vitals.temp, 35.1, 45))

    for sign, reading, low, high in ranges:
        if reading is not None and not low <= reading <= high:
            return sign
    return None


def _personal_reason(
    facts: Facts, contexts: tuple[str, ...], under: float, over: float
) -> str | None:
    """The context or age limit that applies, as a rule name."""
    if facts.age < under or facts.age >= over:
        return "age"
    return next((f"context:{name}" for name in facts.contexts if name in contexts), None)
