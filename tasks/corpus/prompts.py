"""The prompt as text: one versioned template, which training and scoring share."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from tasks.spec import short_digest


@dataclass(frozen=True)
class Prompt:
    """The instruction, and the plain template for tokenizers without a chat template."""

    version: int
    instruction: str
    plain: str
    plain_end: str

    @property
    def digest(self) -> str:
        """12 hex digits that identify the prompt in training ids."""
        return short_digest(vars(self))

    def messages(self, text: str) -> list[dict[str, str]]:
        """The conversation before the answer, for a chat template."""
        return [{"role": "system", "content": self.instruction}, {"role": "user", "content": text}]

    def plain_text(self, text: str) -> str:
        """The prompt of a text for a tokenizer without a chat template."""
        return self.plain.format(instruction=self.instruction, text=text)


def load_prompt() -> Prompt:
    """The prompt of training, scoring and generation: the table `triage` of `prompts.toml`."""
    text = (files(__package__) / "prompts.toml").read_text(encoding="utf-8")
    return Prompt(**tomllib.loads(text)["triage"])
