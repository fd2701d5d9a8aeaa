"""The prompt as text: versioned templates, which training and scoring share."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tasks.spec import LABELS, Label, PromptChoice, short_digest

DEFAULT = PromptChoice()


@dataclass(frozen=True)
class Example:
    """An answered message that stands before the patient's."""

    label: Label
    text: str


@dataclass(frozen=True)
class Prompt:
    """The instruction, and the plain template for tokenizers without a chat template.

    `plain_example`: the plain form of an example. `answers`: the word for each label where a grid
    names them, else None.
    """

    version: int
    instruction: str
    plain: str
    plain_end: str
    plain_example: str = ""
    examples: tuple[Example, ...] = ()
    answers: Mapping[Label, str] | None = None

    @property
    def digest(self) -> str:
        """12 hex digits that identify the prompt in training ids."""
        return short_digest(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The prompt as JSON; what it has none of is not in it."""
        optional = {
            "plain_example": self.plain_example,
            "examples": [vars(example) for example in self.examples],
            "answers": self.answers and dict(self.answers),
        }
        return {
            "version": self.version,
            "instruction": self.instruction,
            "plain": self.plain,
            "plain_end": self.plain_end,
            **{name: value for name, value in optional.items() if value},
        }

    def answer(self, label: Label) -> str:
        """The word that a model answers with for a label."""
        return self.answers[label] if self.answers else label

    @property
    def words(self) -> dict[Label, str]:
        """The word for each label."""
        return {label: self.answer(label) for label in LABELS}

    def messages(self, text: str) -> list[dict[str, str]]:
        """The conversation before the answer, for a chat template."""
        messages = [{"role": "system", "content": self.instruction}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.text})
            messages.append({"role": "assistant", "content": self.answer(example.label)})
        return [*messages, {"role": "user", "content": text}]

    def plain_text(self, text: str) -> str:
        """The prompt of a text for a tokenizer without a chat template."""
        return self.plain.format(
            instruction=self.instruction, examples=self.plain_examples, text=text
        )

    @property
    def plain_examples(self) -> str:
        """The examples for a tokenizer without a chat template."""
        return "".join(
            self.plain_example.format(text=example.text, answer=self.answer(example.label))
            for example in self.examples
        )


def load_prompt(choice: PromptChoice = DEFAULT) -> Prompt:
    """The prompt of training, scoring and generation that a grid names, from `prompts.toml`."""
    template = _versions()[str(choice.version)]
    words = choice.answers or {label: label for label in LABELS}
    form = "one word" if all(len(word.split()) == 1 for word in words.values()) else "one of"
    return Prompt(
        version=choice.version,
        instruction=template["instruction"].format(form=form, **words),
        plain=template["plain"],
        plain_end=template["plain_end"],
        plain_example=template.get("plain_example", ""),
        examples=tuple(Example(**entry) for entry in template.get("examples", ())),
        answers=choice.answers,
    )


@cache
def _versions() -> dict[str, Any]:
    """The tables of `prompts.toml`, by version."""
    text = (files(__package__) / "prompts.toml").read_text(encoding="utf-8")
    versions: dict[str, Any] = tomllib.loads(text)["version"]
    return versions
