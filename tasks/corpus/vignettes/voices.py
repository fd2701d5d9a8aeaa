"""Turns one clause into the words of a speaker: person, spelling, short forms, typing mistakes."""

from __future__ import annotations

import random
import re
from functools import cache

from tasks.corpus.vignettes.knowledge_base import american_words

VOICES = ("patient", "parent", "carer", "nurse", "terse")
PRONOUNS = {
    "I": {"I": "I", "my": "my", "me": "me", "myself": "myself"},
    "f": {"I": "she", "my": "her", "me": "her", "myself": "herself"},
    "m": {"I": "he", "my": "his", "me": "him", "myself": "himself"},
}
IRREGULAR = {"am": "is", "have": "has", "do": "does", "was": "was", "go": "goes"}
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


def typos(text: str, rng: random.Random, rate: float = 0.06) -> str:
    """Swapped, dropped or doubled letters in some long words; numbers and negations stay whole."""

    def spoil(match: re.Match[str]) -> str:
        word = match.group(0)
        if rng.random() > rate or word.lower() in NEGATIONS:
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
