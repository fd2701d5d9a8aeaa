"""Words of a speaker: person, spelling, short forms, typing mistakes; ages, durations, lists, readings."""

from __future__ import annotations

import random
import re
from dataclasses import asdict
from functools import cache

from tasks.corpus.case import listed
from tasks.corpus.vignettes.knowledge_base import american_words, phrases
from tasks.corpus.vignettes.label_rules import Vitals

PRONOUNS = {
    "I": {"I": "I", "my": "my", "me": "me", "myself": "myself"},
    "f": {"I": "she", "my": "her", "me": "her", "myself": "herself"},
    "m": {"I": "he", "my": "his", "me": "him", "myself": "himself"},
}
IRREGULAR = {"am": "is", "have": "has", "do": "does", "was": "was", "go": "goes"}
TYPO_RATE = 0.06  # of words of five letters and more
NEGATIONS = ("never", "cannot", "without", "nothing")  # a typing mistake must not hide them
MODAL = ("can", "cannot", "will", "may", "must", "could", "would", "should", "might")


CONTRACTIONS = (
    (r"\b(do|does|did|is|are|was|has|have|had|would|could|should) not\b", r"\1n't"),
    (r"\b([Cc])an ?not\b", r"\1an't"),
    (r"\bwill not\b", "won't"),
    (r"\bI am\b", "I'm"),
    (r"\b([Ii])t is\b", r"\1t's"),
    (r"\b([Tt])here is\b", r"\1here's"),
    (r"\bI have (?=been|had|got|lost|taken|not)", "I've "),
    (r"\b([Hh]e|[Ss]he) is\b", r"\1's"),
)
SHORT_FORMS = {
    r"\byou\b": "u",
    r"\bplease\b": "pls",
    r"\bweeks\b": "wks",
    r"\bhours\b": "hrs",
    r"\band\b": "n",
    r"\bbecause\b": "cos",
    r"\btemperature\b": "temp",
    r"\bthanks?( you)?\b": "thx",
    r"\bwith\b": "w",
    r"\bdoctor\b": "dr",
    r"\bvery\b": "v",
}


def conjugate(clause: str, person: str) -> str:
    """Fill the bracketed words of `clause` for `person`: "I", "f" (she) or "m" (he)."""
    pronouns = PRONOUNS[person]

    def form(match: re.Match[str]) -> str:
        word = match.group(1)
        if word in pronouns:
            return pronouns[word]
        return word if person == "I" else third_person(word)

    return re.sub(r"\[([^\]]+)\]", form, clause)


def third_person(verb: str) -> str:
    """The form after he or she: has, goes, tries; a modal verb or "feel sick" keeps its tail."""
    head, _, tail = verb.partition(" ")
    if head in MODAL:
        return verb

    if head in IRREGULAR:
        head = IRREGULAR[head]
    elif re.search(r"[^aeiou]y$", head):
        head = head[:-1] + "ies"
    else:
        head += "es" if re.search(r"(s|x|z|ch|sh|o)$", head) else "s"

    return f"{head} {tail}".strip()


@cache
def _british_words() -> re.Pattern[str]:
    # Longest first: of two that begin alike the longer one is meant.
    words = sorted(map(re.escape, american_words()), key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(words) + r")\b", re.IGNORECASE)


def american(text: str) -> str:
    """American words for British ones, keeping a capital letter."""

    def swap(match: re.Match[str]) -> str:
        british = match.group(0)
        word = american_words()[british.lower()]
        return word[0].upper() + word[1:] if british[0].isupper() else word

    return _british_words().sub(swap, text)


def contract(text: str) -> str:
    """Spoken short forms: don't, can't, it's."""
    for pattern, short in CONTRACTIONS:
        text = re.sub(pattern, short, text)
    return text


def typos(text: str, rng: random.Random) -> str:
    """Swapped, dropped or doubled letters in some long words; numbers and negations stay whole."""

    def spoil(match: re.Match[str]) -> str:
        word = match.group(0)
        if rng.random() > TYPO_RATE or word.lower() in NEGATIONS:
            return word

        at = rng.randrange(1, len(word) - 2)
        return rng.choice(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
            )
        )

    return re.sub(r"[A-Za-z]{5,}", spoil, text)


def texted(text: str, rng: random.Random) -> str:
    """A message typed with one thumb: small letters, short forms, a few mistakes."""
    for long, short in SHORT_FORMS.items():
        if rng.random() < 0.5:
            text = re.sub(long, short, text, flags=re.IGNORECASE)
    text = text.replace("'", "") if rng.random() < 0.7 else text
    return typos(text.lower(), rng)


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
    readings = asdict(vitals)
    if spelling == "american" and vitals.temp is not None:
        readings["temp"] = f"{vitals.temp * 9 / 5 + 32:.1f} F"
    return template.format(**readings)
