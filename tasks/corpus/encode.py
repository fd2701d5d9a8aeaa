"""Cases to tokens, with the one template that training and scoring share. Runs where a tokenizer is at hand.

A completion is the label and the end of the turn. With a chat template the tokens are exactly those of
`apply_chat_template`, so what is scored is what was trained.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from tasks.corpus.prompts import Prompt
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

ELLIPSIS = " ... "


@dataclass(frozen=True)
class Encoded:
    """One case as tokens: `prompt` and, per label in the order of LABELS, the completion after it."""

    case_id: str
    label: int
    prompt: tuple[int, ...]
    shortened: bool


@dataclass(frozen=True)
class Template:
    """A tokenizer with the prompt: `completions` (per label) are the same for every case."""

    tokenizer: Any
    prompt: Prompt
    chat: bool
    completions: tuple[tuple[int, ...], ...]
    label_lengths: tuple[int, ...]

    @property
    def single_token(self) -> bool:
        """True if the first token alone tells every label apart and is the whole label."""
        return set(self.label_lengths) == {1}


def make_template(tokenizer: Any, prompt: Prompt, chat: bool) -> Template:
    """Work out the completion tokens of each label once, from the difference of two renderings."""
    probe = "I have a sore throat."
    start = _prompt_tokens(tokenizer, prompt, chat, probe)
    completions, lengths = [], []
    for label in LABELS:
        whole = _whole_tokens(tokenizer, prompt, chat, probe, label)
        if whole[: len(start)] != start:
            raise BadInput(
                f"The tokenizer merges the prompt with the label {label}; this model cannot be scored exactly."
            )
        completion = tuple(whole[len(start) :])
        end = _end_length(tokenizer, prompt, chat, completion, label)
        completions.append(completion)
        lengths.append(len(completion) - end)
    _refuse_shared(completions, lengths)
    return Template(tokenizer, prompt, chat, tuple(completions), tuple(lengths))


def _refuse_shared(completions: list[tuple[int, ...]], lengths: list[int]) -> None:
    """A label whose tokens begin another's holds that one's probability too, so the other could never be decided."""
    own = [completion[:length] for completion, length in zip(completions, lengths, strict=True)]
    for (a, one), (b, other) in itertools.permutations(zip(LABELS, own, strict=True), 2):
        if other[: len(one)] == one:
            same = "is the same as" if one == other else "begins like"
            raise BadInput(
                f"The label {b} {same} {a} in this tokenizer; the model cannot tell them apart: use another."
            )


def encode(template: Template, case_id: str, text: str, label: str, max_tokens: int) -> Encoded:
    """Tokens of one case; a text that does not fit is shortened from its middle, and the case says so.

    Raises BadInput if not even an empty text fits `max_tokens`.
    """
    room = max_tokens - max(len(c) for c in template.completions)
    tokens = _prompt_tokens(template.tokenizer, template.prompt, template.chat, text)
    shortened = len(tokens) > room
    keep = len(text)
    while len(tokens) > room:
        if keep == 0:
            raise BadInput(
                f"The prompt alone is longer than max_tokens = {max_tokens}; raise training.max_tokens."
            )
        keep = min(keep - 1, int(keep * room / len(tokens)))
        half = keep // 2
        cut = text[:half] + ELLIPSIS + text[len(text) - half :] if keep else ""
        tokens = _prompt_tokens(template.tokenizer, template.prompt, template.chat, cut)
    return Encoded(case_id, LABELS.index(label), tuple(tokens), shortened)


def _prompt_tokens(tokenizer: Any, prompt: Prompt, chat: bool, text: str) -> list[int]:
    if chat:
        return _chat_tokens(tokenizer, prompt.messages(text), add_generation_prompt=True)
    return list(tokenizer.encode(prompt.plain_text(text)))


def _whole_tokens(tokenizer: Any, prompt: Prompt, chat: bool, text: str, label: str) -> list[int]:
    if chat:
        answer = {"role": "assistant", "content": label}
        return _chat_tokens(
            tokenizer, [*prompt.messages(text), answer], add_generation_prompt=False
        )
    # The label's tokens are appended, never merged with the prompt's last token.
    head = list(tokenizer.encode(prompt.plain_text(text)))
    return head + list(tokenizer.encode(f" {label}{prompt.plain_end}", add_special_tokens=False))


def _chat_tokens(
    tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool
) -> list[int]:
    tokens = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
    return list(tokens)


def _end_length(
    tokenizer: Any, prompt: Prompt, chat: bool, completion: tuple[int, ...], label: str
) -> int:
    """How many tokens of a completion come after the label itself."""
    for length in range(1, len(completion) + 1):
        if tokenizer.decode(list(completion[:length])).strip() == label:
            return len(completion) - length
    raise BadInput(
        f"The tokenizer does not give the label {label} back when its tokens are decoded."
    )
