"""The prompt that a grid chooses, and its answer words."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.spec.base import LABELS, Label, Strict, every_label


def _is_answer(word: str) -> str:
    if not word.isprintable() or word != word.strip() or not word:
        raise ValueError(f"the answer {word!r} must be one line of text, without spaces around it")
    return word


def _can_be_told_apart(answers: dict[Label, str]) -> dict[Label, str]:
    """Refuses answers of which one is, or starts, another: whoever reads the first cannot know
    which label is meant.
    """
    for (label, word), (other, longer) in itertools.permutations(answers.items(), 2):
        if longer.casefold().startswith(word.casefold()):
            relation = "is" if len(longer) == len(word) else "starts"
            raise ValueError(
                f"the answer {word!r} for {label} {relation} that for {other} ({longer!r}); "
                "give each label a word that starts no other"
            )
    return answers


def _unless_the_labels_themselves(answers: dict[Label, str]) -> dict[Label, str] | None:
    return None if all(label == word for label, word in answers.items()) else answers


Answers = Annotated[
    dict[Label, Annotated[str, Field(max_length=40), AfterValidator(_is_answer)]],
    AfterValidator(every_label),
    AfterValidator(_can_be_told_apart),
    AfterValidator(_unless_the_labels_themselves),
]


class PromptChoice(Strict):
    """What a model is asked, and the words that it answers with."""

    version: Literal[1, 2] = Field(
        default=1,
        description="1: the instruction; 2: the instruction and an answered example of each label",
    )
    answers: Answers | None = Field(
        default=None,
        description="the word, of at most 40 characters, that a model answers with for each label, e.g."
        ' `{ ED = "Emergency", GP = "Doctor", HOME = "Home" }`; without it the labels themselves',
    )

    @property
    def title(self) -> str:
        """The prompt in names, e.g. `prompt 2 emergency/doctor/home`; empty for the default one."""
        version = f"prompt {self.version}" if self.version > 1 else ""
        words = "/".join(self.answers[label] for label in LABELS) if self.answers else ""
        return " ".join(part for part in (version, words) if part)
