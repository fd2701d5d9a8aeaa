"""Small pieces of language: ages, durations, lists, sentences, readings."""

from __future__ import annotations

import random
import re

from tasks.corpus.vignettes.knowledge_base import phrases
from tasks.corpus.vignettes.label_rules import Vitals

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
# Name, length in days, and the number of them from which on a duration is given in that unit.
UNITS = (
    ("year", 365.0, 2),
    ("month", 30.4, 3),
    ("week", 7.0, 2),
    ("day", 1.0, 1),
    ("hour", 1 / 24, 1),
    ("minute", 1 / 1440, 1),
)
# In phrases.toml: the instrument with which each vital sign is read.
INSTRUMENTS = {
    "temp": "thermometer",
    "spo2": "oximeter",
    "sbp": "cuff",
    "rr": "breaths",
    "hr": "pulse",
}
WEEKS_BELOW = 0.25  # years of age that are given in weeks
MONTHS_BELOW = 2  # years of age that are given in months


def sentence(clause: str) -> str:
    """A clause with a capital letter and a full stop."""
    clause = clause.strip()
    return clause[:1].upper() + clause[1:] + ("" if clause.endswith((".", "?", "!")) else ".")


def listed(items: list[str], joiner: str) -> str:
    """a, b or c"""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joiner} {items[-1]}"


def listed_after_no(nouns: list[str], joiner: str) -> str:
    """The same without articles, as they stand after "no"."""
    return listed([re.sub(r"^an? ", "", noun) for noun in nouns], joiner)


def age_words(age: float) -> str:
    """Weeks below three months, months below two years, then whole years."""
    if age < WEEKS_BELOW:
        weeks = max(1, int(age * 52))
        return f"{weeks} {'week' if weeks == 1 else 'weeks'} old"
    if age < MONTHS_BELOW:
        return f"{int(age * 12)} months old"
    return str(int(age))


def lived_days(age: float) -> float:
    """Days in an age in years as `age_words` rounds it: nobody has been ill for longer."""
    if age < WEEKS_BELOW:
        return max(1, int(age * 52)) * 7.0
    return int(age * 12) * 30.4 if age < MONTHS_BELOW else int(age) * 365.0


def amount(days: float) -> tuple[int, str]:
    """A duration as a whole number of its natural unit, never rounded up across a week."""
    for unit, size, least in UNITS:
        if days >= size * least or unit == "minute":
            return max(1, int(days / size + 0.01)), unit
    raise AssertionError("minutes take every shorter duration")


def duration_words(days: float, rng: random.Random, ago: bool) -> str:
    """For how long, or how long ago; digits and number words alike."""
    count, unit = amount(days)
    number = NUMBERS[count] if count < len(NUMBERS) and rng.random() < 0.6 else str(count)
    units = unit if count == 1 else unit + "s"
    if count == 1:
        number = "an" if unit == "hour" else "a"

    if ago:
        return rng.choice((f"{number} {units} ago", f"about {number} {units} ago"))

    start = f"it started {number} {units} ago"
    return rng.choice(
        (f"for {number} {units}", f"for {number} {units} now", f"{number} {units} so far", start)
    )


def vital_clause(kind: str, vitals: Vitals, spelling: str, rng: random.Random) -> str:
    """One reading as a lay person would report it; Fahrenheit for American writers."""
    template = rng.choice(phrases()[INSTRUMENTS[kind]]["say"])
    return template.format(
        temp=_temperature(vitals.temp, spelling),
        spo2=vitals.spo2,
        sbp=vitals.sbp,
        dbp=vitals.dbp,
        rr=vitals.rr,
        hr=vitals.hr,
    )


def _temperature(celsius: float | None, spelling: str) -> str:
    if spelling == "british" or celsius is None:
        return f"{celsius}"
    return f"{celsius * 9 / 5 + 32:.1f} F"
