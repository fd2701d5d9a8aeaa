"""Cases to tokens, with the one template that training and scoring share. Runs where a tokenizer is
at hand.

A completion is the answer (a label, or the word for it) and the end of the turn. With a chat
template the tokens are exactly those of `apply_chat_template`, so what is scored is what was
trained.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from tasks.corpus.prompts import Prompt
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Label

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
    """The template of a tokenizer, whose completions are the difference of two renderings.

    Raises BadInput where the tokenizer cannot tell the labels apart.
    """
    probe = "I have a sore throat."
    start = _prompt_tokens(tokenizer, prompt, chat, probe)
    completions: list[Tokens] = []
    lengths: list[int] = []  # of the label within each completion

    for label in LABELS:
        answer = prompt.answer(label)
        whole = _whole_tokens(tokenizer, prompt, chat, probe, answer)
        if whole[: len(start)] != start:
            raise BadInput(
                f"The tokenizer merges the prompt with the {_label_name(label, answer)}; this model "
                "cannot be scored exactly."
            )

        completion = tuple(whole[len(start) :])
        completions.append(completion)
        lengths.append(_answer_length(tokenizer, completion, label, answer))

    answer_tokens = [tokens[:n] for tokens, n in zip(completions, lengths, strict=True)]
    _check_prefixes(answer_tokens, prompt)
    return Template(tokenizer, prompt, chat, tuple(completions), tuple(lengths))


def _check_prefixes(answer_tokens: list[Tokens], prompt: Prompt) -> None:
    """Refuse an answer whose tokens begin another's.

    It holds that one's probability too, so the other could never be decided.
    """
    answers = zip(LABELS, answer_tokens, strict=True)
    for (short_label, short), (label, tokens) in itertools.permutations(answers, 2):
        if tokens[: len(short)] == short:
            relation = "is the same as" if short == tokens else "begins like"
            raise BadInput(
                f"The {_label_name(label, prompt.answer(label))} {relation} "
                f"{prompt.answer(short_label)} in this tokenizer; the model cannot "
                "tell them apart: use another."
            )


def _label_name(label: Label, answer: str) -> str:
    """A label in an error, with its answer where that is another word."""
    return f"label {label}" if answer == label else f"answer {answer!r} of the label {label}"


def encode(template: Template, case_id: str, text: str, label: str, max_tokens: int) -> Encoded:
    """Tokens of one case; a text that does not fit loses its middle, and the case says so.

    Raises BadInput if not even an empty text and the longest answer fit `max_tokens`.
    """
    room = max_tokens - max(len(completion) for completion in template.completions)
    tokens = _prompt_tokens(template.tokenizer, template.prompt, template.chat, text)
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
        short_text = _without_middle(text, length)
        tokens = _prompt_tokens(template.tokenizer, template.prompt, template.chat, short_text)

    return Encoded(case_id, LABELS.index(label), tuple(tokens), shortened)


def _without_middle(text: str, length: int) -> str:
    """The beginning and the end of a text, about `length` characters together."""
    if not length:
        return ""
    half = length // 2
    return text[:half] + ELLIPSIS + text[len(text) - half :]


def _prompt_tokens(tokenizer: Any, prompt: Prompt, chat: bool, text: str) -> list[int]:
    if chat:
        return _chat_tokens(tokenizer, prompt.messages(text), add_generation_prompt=True)
    return list(tokenizer.encode(prompt.plain_text(text)))


def _whole_tokens(tokenizer: Any, prompt: Prompt, chat: bool, text: str, answer: str) -> list[int]:
    """Tokens of the prompt and its completion."""
    if chat:
        messages = [*prompt.messages(text), {"role": "assistant", "content": answer}]
        return _chat_tokens(tokenizer, messages, add_generation_prompt=False)

    # The answer's tokens are appended, never merged with the prompt's last token.
    head = list(tokenizer.encode(prompt.plain_text(text)))
    return head + list(tokenizer.encode(f" {answer}{prompt.plain_end}", add_special_tokens=False))


def _chat_tokens(
    tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool
) -> list[int]:
    tokens = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
    return list(tokens)


def _answer_length(tokenizer: Any, completion: Tokens, label: Label, answer: str) -> int:
    """How many tokens of a completion are the answer itself."""
    for length in range(1, len(completion) + 1):
        if tokenizer.decode(list(completion[:length])).strip() == answer:
            return length

    raise BadInput(
        f"The tokenizer does not give the {_label_name(label, answer)} back when its tokens are decoded."
    )
