"""What the vital signs in a message mean, in words behind their numbers: `SpO2 91 % (very low)`.

A small model reads `very low` more easily than it learns what 91 means. The words follow, from 16
years on, the National Early Warning Score (NEWS2; Royal College of Physicians, 2017): a reading that
scores 1 is slightly low or high, 2 low or high, 3 very low or high. For children, pulse, breaths and
blood pressure follow the ranges of Pediatric Advanced Life Support (American Heart Association,
2015). Temperature and oxygen saturation are read by NEWS2 at every age.

It needs nothing but Python, so that an exported model has a copy: `python vital_signs.py < messages`
writes each line of standard input with these words.
"""

from __future__ import annotations

import re
import sys
from functools import partial

VERSION = 1  # stands in the ids of what reads these words
WORDS = ("very low", "low", "slightly low", "normal", "slightly high", "high", "very high")
ADULT = 16  # years
# NEWS2: the largest value of each of WORDS; None where a sign has no such score.
NEWS2 = {
    "breaths": (8, None, 11, 20, None, 24, None),
    "saturation": (91, 93, 95, 100, None, None, None),
    "pressure": (90, 100, 110, 219, None, None, 400),
    "pulse": (40, None, 50, 90, 110, 130, 400),
    "temperature": (35.0, None, 36.0, 38.0, 39.0, 50.0, None),
}
# PALS, normal from and to, of children younger than so many years: breaths, then the pulse awake.
PALS = ((1, (30, 53), (100, 190)), (3, (22, 37), (98, 140)), (6, (20, 28), (80, 120)),
        (12, (18, 25), (75, 118)), (ADULT, (12, 20), (60, 100)))  # fmt: skip
UNITS = {"y": 1.0, "m": 1 / 12, "w": 1 / 52, "d": 1 / 365}  # of an age, in years

_UNIT = r"(y|m|w|d)(?:ears?|rs?|o|onths?|os?|eeks?|ks?|ays?)?"
AGE = re.compile(
    rf"\b(\d{{1,3}})[ -]?{_UNIT}[ -]old\b"  # 33 year old, 15 months old
    rf"|\b(\d{{1,3}}) ?{_UNIT}/?o\b"  # 46yo, 46 y/o
    r"|\b(\d{1,2})/(12|52) ?[FM]\b"  # 9/52 F
    r"|\b(\d{1,3}) ?[FM]\b"  # 66M
    r"|\bi(?:['’]| a)?m (\d{1,3})\b(?! ?\w*(?:week|month|day|hour|hr|%|kg))"  # I am 41
    r"|\b(?:my|our|a|the) [a-z ]{3,25}, (\d{1,3})\b(?! ?[a-z])",  # my daughter, 3
    re.IGNORECASE,
)
SMALL = re.compile(
    r"\b(?:baby|newborn|infant|toddler|child|son|daughter|boy|girl)\b", re.IGNORECASE
)

_IS = r"(?: rate)?(?: is| was| of| at| reads| shows| says| says it is|:)? ?"
SIGNS = {
    "temperature": re.compile(
        rf"\b(?:t|temp|temperature|thermometer|fever){_IS}(\d{{2,3}}(?:\.\d)?)(?: ?°? ?([fc])\b)?",
        re.IGNORECASE,
    ),
    "pulse": re.compile(rf"\b(?:hr|heart|pulse){_IS}(\d{{2,3}})\b(?!/| over)", re.IGNORECASE),
    "breaths": re.compile(
        rf"\b(?:rr|respiratory|breathing|respiration){_IS}(\d{{1,2}})\b"
        r"|\b(\d{1,2}) breaths(?: in a minute| a minute| per minute|/min)?",
        re.IGNORECASE,
    ),
    "saturation": re.compile(
        rf"\b(?:spo2|sats?|saturation|oxygen|oximeter|o2){_IS}(\d{{2,3}})\b(?: ?%)?", re.IGNORECASE
    ),
    "pressure": re.compile(
        r"\b(?:bp|blood pressure|pressure|cuff)[a-z ,:]{0,20}(\d{2,3})(?:/| over )\d{2,3}\b",
        re.IGNORECASE,
    ),
}
# What can be read of a living person; other numbers mean something else.
PLAUSIBLE = {
    "temperature": (30, 44), "pulse": (20, 250), "breaths": (4, 90),
    "saturation": (50, 100), "pressure": (40, 260),
}  # fmt: skip


def with_vital_signs(text: str) -> str:
    """The text with what each vital sign means behind it, as in `pulse 118 (high)`.

    A reading that a person cannot have stays as it is, and so do pulse, breaths and blood pressure
    of a child whose age the text does not say.
    """
    years = age(text)
    for sign, pattern in SIGNS.items():
        text = pattern.sub(partial(_explained, sign, years), text)
    return text


def age(text: str) -> float | None:
    """The first age that a text tells, in years; ADULT where it tells none and names no child."""
    match = AGE.search(text)
    if match is None:
        return None if SMALL.search(text) else ADULT

    old, unit, short, short_unit, number, share, with_sex, own, named = match.groups()
    if number:
        return int(number) / int(share)
    if unit or short_unit:
        return int(old or short) * UNITS[(unit or short_unit).lower()]
    return float(with_sex or own or named)


def meaning(sign: str, value: float, years: float | None) -> str | None:
    """The word of WORDS for a reading; None where it cannot be told."""
    low, high = PLAUSIBLE[sign]
    if not low <= value <= high:
        return None

    if sign in ("temperature", "saturation") or (years is not None and years >= ADULT):
        limits = NEWS2[sign]
        return next(
            (word for word, most in zip(WORDS, limits, strict=True) if most and value <= most),
            "very high",
        )
    if years is None:
        return None

    if sign == "pressure":  # PALS defines hypotension alone
        hypotension = 70 if years < 1 else min(70 + 2 * years, 90)
        return "low" if value < hypotension else "normal"

    _, *ranges = next(row for row in PALS if years < row[0])
    low, high = ranges[sign == "pulse"]
    return "low" if value < low else "high" if value > high else "normal"


def _explained(sign: str, years: float | None, match: re.Match[str]) -> str:
    """What a pattern of SIGNS matched, with its meaning."""
    value = float(next(number for number in match.groups() if number))
    if sign == "temperature" and ((match[2] or "").lower() == "f" or value > PLAUSIBLE[sign][1]):
        value = round((value - 32) / 1.8, 1)

    word = meaning(sign, value, years)
    return match[0] if word is None else f"{match[0]} ({word})"


if __name__ == "__main__":
    for line in sys.stdin:
        print(with_vital_signs(line.rstrip("\n")))
