"""The prompt that training and scoring share: as text, from versioned templates, and as tokens, where
a tokenizer is at hand.

A completion is the answer (a label, or the word for it) and the end of the turn. With a chat
template the tokens are exactly those of `apply_chat_template`, so what is scored is what was
trained.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.corpus.vital_signs import VERSION as VITAL_SIGNS_VERSION
from tasks.corpus.vital_signs import with_vital_signs
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Label, PromptChoice, short_digest

DEFAULT = PromptChoice()
TEMPLATES = Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8")
VERSIONS = tomllib.loads(TEMPLATES)["version"]


@dataclass(frozen=True)
class Example:
    """An answered message before the patient's."""

    label: Label
    text: str


@dataclass(frozen=True)
class Prompt:
    """The instruction, and the plain template for tokenizers without a chat template.

    `plain_example`: the plain form of an example. `answers`: the word for each label, if a grid
    names them. `vital_signs`: 0, or the version of `vital_signs.py`, which says behind each
    vital sign of a message what it means.
    """

    version: int
    instruction: str
    plain: str
    plain_end: str
    plain_example: str = ""
    examples: tuple[Example, ...] = ()
    answers: Mapping[Label, str] | None = None
    vital_signs: int = 0

    @property
    def digest(self) -> str:
        """12 hex digits that identify the prompt in training ids."""
        return short_digest(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The prompt as JSON; what it has none of is not in it."""
        return {name: value for name, value in asdict(self).items() if value}

    def answer(self, label: Label) -> str:
        """The word that a model answers with for a label."""
        return self.answers[label] if self.answers else label

    @property
    def words(self) -> dict[Label, str]:
        """The word for each label."""
        return {label: self.answer(label) for label in LABELS}

    def message(self, text: str) -> str:
        """The patient's message as the model reads it."""
        return with_vital_signs(text) if self.vital_signs else text

    def messages(self, text: str) -> list[dict[str, str]]:
        """The conversation before the answer, for a chat template."""
        messages = [{"role": "system", "content": self.instruction}]
        for example in self.examples:
            messages.append({"role": "user", "content": example.text})
            messages.append({"role": "assistant", "content": self.answer(example.label)})
        return [*messages, {"role": "user", "content": self.message(text)}]

    def plain_text(self, text: str) -> str:
        """The prompt of a text for a tokenizer without a chat template."""
        examples = "".join(
            self.plain_example.format(text=example.text, answer=self.answer(example.label))
            for example in self.examples
        )
        message = self.message(text)
        return self.plain.format(instruction=self.instruction, examples=examples, text=message)


def load_prompt(choice: PromptChoice = DEFAULT) -> Prompt:
    """The prompt of training, scoring and generation that a grid names, from `prompts.toml`."""
    template = VERSIONS[str(choice.version)]
    words = choice.answers or {label: label for label in LABELS}
    form = "one word" if all(len(word.split()) == 1 for word in words.values()) else "one of"
    values = template | {
        "instruction": template["instruction"].format(form=form, **words),
        "examples": tuple(Example(**entry) for entry in template.get("examples", ())),
    }
    signs = VITAL_SIGNS_VERSION if choice.vital_signs else 0
    return Prompt(version=choice.version, answers=choice.answers, vital_signs=signs, **values)


ELLIPSIS = " ... "
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """One case as the tokens of its prompt. `label`: its place in LABELS."""

    case_id: str
    label: int
    prompt: Tokens
    shortened: bool


@dataclass(frozen=True)
class Template:
    """A tokenizer with the prompt. `completions`: one per label, in the order of LABELS.

    `label_lengths`: how many tokens of each completion are the answer.
    """

    tokenizer: Any
    prompt: Prompt
    chat: bool
    completions: tuple[Tokens, ...]
    label_lengths: tuple[int, ...]

    @property
    def single_token(self) -> bool:
        """True if the first token alone tells every answer apart and is the whole answer."""
        return set(self.label_lengths) == {1}


def make_template(tokenizer: Any, prompt: Prompt, chat: bool) -> Template:
    """The template of a tokenizer, whose completions are the difference of two renderings. Raises
    BadInput where the tokenizer cannot tell the labels apart.
    """
    probe = "I have a sore throat."
    start = _tokens(tokenizer, prompt, chat, probe)
    completions: list[Tokens] = []
    lengths: list[int] = []  # of the label within each completion

    for label in LABELS:
        answer = prompt.answer(label)
        whole = _tokens(tokenizer, prompt, chat, probe, answer)
        if whole[: len(start)] != start:
            raise BadInput(
                f"The tokenizer merges the prompt with the {_label_name(label, answer)}; this model "
                "cannot be scored exactly."
            )

        completion = tuple(whole[len(start) :])
        completions.append(completion)
        # How many tokens of the completion are the answer itself.
        parts = (completion[:length] for length in range(1, len(completion) + 1))
        length = next((len(p) for p in parts if tokenizer.decode(list(p)).strip() == answer), None)
        if length is None:
            raise BadInput(
                f"The tokenizer does not give the {_label_name(label, answer)} back when its tokens "
                "are decoded."
            )
        lengths.append(length)

    # An answer whose tokens begin another's holds that one's probability too, so the other could
    # never be decided.
    answer_tokens = [tokens[:n] for tokens, n in zip(completions, lengths, strict=True)]
    answers = zip(LABELS, answer_tokens, strict=True)
    for (short_label, short), (label, tokens) in itertools.permutations(answers, 2):
        if tokens[: len(short)] == short:
            raise BadInput(
                f"The {_label_name(label, prompt.answer(label))} begins like "
                f"{prompt.answer(short_label)} in this tokenizer; the model cannot "
                "tell them apart: use another."
            )

    return Template(tokenizer, prompt, chat, tuple(completions), tuple(lengths))


def _label_name(label: Label, answer: str) -> str:
    """A label in an error, with its answer where that is another word."""
    return f"label {label}" if answer == label else f"answer {answer!r} of the label {label}"


def encode(template: Template, case_id: str, text: str, label: str, max_tokens: int) -> Encoded:
    """Tokens of one case; a text that does not fit loses its middle, and the case says so. Raises
    BadInput if not even an empty text fits `max_tokens` with the longest answer.
    """
    room = max_tokens - max(len(completion) for completion in template.completions)
    tokens = _tokens(template.tokenizer, template.prompt, template.chat, text)
    shortened = len(tokens) > room
    length = len(text)

    while len(tokens) > room:
        if length == 0:
            raise BadInput(
                "The prompt and its longest answer alone are longer than max_tokens = "
                f"{max_tokens}; raise training.max_tokens."
            )
        # In proportion to the excess, and by at least one character, so that it ends.
        length = max(0, min(length - 1, int(length * room / len(tokens))))
        half = length // 2
        short_text = text[:half] + ELLIPSIS + text[len(text) - half :] if length else ""
        tokens = _tokens(template.tokenizer, template.prompt, template.chat, short_text)

    return Encoded(case_id, LABELS.index(label), tuple(tokens), shortened)


def _tokens(
    tokenizer: Any, prompt: Prompt, chat: bool, text: str, answer: str | None = None
) -> list[int]:
    """Tokens of the prompt of a text and, where an answer is given, of its completion."""
    if chat:
        messages = prompt.messages(text)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        tokens = tokenizer.apply_chat_template(
            messages, add_generation_prompt=answer is None, tokenize=True, return_dict=False
        )
        return list(tokens)

    tokens = list(tokenizer.encode(prompt.plain_text(text)))
    if answer is not None:
        # The answer's tokens are appended, never merged with the prompt's last token.
        tokens += tokenizer.encode(f" {answer}{prompt.plain_end}", add_special_tokens=False)
    return tokens
