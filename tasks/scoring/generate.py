"""Greedy generation by an adapted variant, case by case; the instruction's keys and values are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, trim_prompt_cache

from tasks.corpus.encode import Template
from tasks.runtime.events import Emit, ProgressReport
from tasks.tuning.architecture import embed, project, run_blocks
from tasks.tuning.batches import Cases
from tasks.tuning.lora import Adapted

MAX_TOKENS = 8  # a label and the end of the turn are two or three; what is longer is no such answer


def greedy_answers(
    adapted: Adapted, cases: Cases, chosen: Sequence[int], template: Template, emit: Emit,
    max_tokens: int = MAX_TOKENS,
) -> list[str]:  # fmt: skip
    """The text that follows each chosen case's prompt: the most probable token at each step, without special tokens.

    Ends at the end of the turn, or after `max_tokens` tokens. Dropout is off.
    """
    adapted.set_dropout(None)
    ends = {template.tokenizer.eos_token_id} | {
        completion[length]
        for completion, length in zip(template.completions, template.label_lengths, strict=True)
        if length < len(completion)
    }
    past = [KVCache() for _ in range(adapted.stack.depth)]
    common = cases.leading
    if common:
        _next_token(adapted, list(cases.encoded[chosen[0]].prompt[:common]), past)
    answers = []
    for number, case in enumerate(chosen, 1):
        tokens = generate(
            adapted, list(cases.encoded[case].prompt[common:]), past, ends, max_tokens
        )
        trim_prompt_cache(past, past[0].offset - common)
        answers.append(template.tokenizer.decode(tokens, skip_special_tokens=True))
        emit(ProgressReport("generated answers", number, len(chosen)))
    return answers


def generate(
    adapted: Adapted, prompt: list[int], past: list[Any], ends: set[int], max_tokens: int
) -> list[int]:
    """At most `max_tokens` greedy tokens after `prompt`, itself after what `past` holds; one of `ends` stops it."""
    tokens: list[int] = []
    following = prompt
    while len(tokens) < max_tokens:
        token = _next_token(adapted, following, past)
        if token in ends:
            break
        tokens.append(token)
        following = [token]
    return tokens


def _next_token(adapted: Adapted, tokens: list[int], past: list[Any]) -> int:
    stack = adapted.stack
    hidden = run_blocks(stack, embed(stack, mx.array([tokens])), 0, stack.depth, past)
    return int(np.array(project(stack, hidden[:, -1])).argmax())
