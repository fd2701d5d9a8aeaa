"""Greedy generation by an adapted variant, case by case.

The instruction's keys and values are computed once and serve all cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, trim_prompt_cache

from tasks.corpus.prompts import Template
from tasks.runtime.events import Emit, ProgressReport
from tasks.tuning.data import EncodedCases
from tasks.tuning.lora import Adapted
from tasks.tuning.model import embed, project, run_blocks

# A label and the end of the turn are two or three; an answer that is longer still is no label.
MAX_TOKENS = 8


def greedy_answers(
    adapted: Adapted,
    cases: EncodedCases,
    case_numbers: Sequence[int],
    template: Template,
    emit: Emit,
    max_tokens: int | None = None,
) -> list[str]:
    """The text that follows the prompt of each of these cases, without special tokens.

    Each token is the most probable one. An answer ends at the end of the turn, or after
    `max_tokens` tokens: without it MAX_TOKENS, or as many as the longest right answer has. Dropout
    is off.
    """
    limit = max_tokens or max(MAX_TOKENS, *map(len, template.completions))
    adapted.set_dropout(None)
    # The tokenizer's end, and what follows a label in a completion.
    ends = {template.tokenizer.eos_token_id}
    for completion, length in zip(template.completions, template.label_lengths, strict=True):
        if length < len(completion):
            ends.add(completion[length])
    # Not mlx-lm's rotating caches, which cannot be trimmed once they are full: windows are in
    # the masks here.
    past = [KVCache() for _ in range(adapted.stack.depth)]
    if cases.leading:
        instruction = cases.encoded[case_numbers[0]].prompt[: cases.leading]
        # For its keys and values alone: the token that would follow is not used.
        _next_token(adapted, list(instruction), past)

    answers = []
    for count, number in enumerate(case_numbers, 1):
        prompt = list(cases.encoded[number].prompt[cases.leading :])
        tokens = _generate(adapted, prompt, past, ends, limit)
        trim_prompt_cache(past, past[0].offset - cases.leading)
        answers.append(template.tokenizer.decode(tokens, skip_special_tokens=True))
        emit(ProgressReport("generated answers", count, len(case_numbers)))

    return answers


def _generate(
    adapted: Adapted, prompt: list[int], past: list[KVCache], ends: set[int], max_tokens: int
) -> list[int]:
    """At most `max_tokens` tokens after `past` and `prompt`, up to the first of `ends`."""
    tokens: list[int] = []
    following = prompt
    while len(tokens) < max_tokens:
        token = _next_token(adapted, following, past)
        if token in ends:
            break
        tokens.append(token)
        following = [token]

    return tokens


def _next_token(adapted: Adapted, tokens: list[int], past: list[KVCache]) -> int:
    stack = adapted.stack
    hidden = run_blocks(stack, embed(stack, mx.array([tokens])), 0, stack.depth, past)
    logits = project(stack, hidden[:, -1])
    return int(np.array(logits).argmax())
