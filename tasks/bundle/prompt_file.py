"""`prompt.json` of an export: the prompt as text, and the answers as text and as tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.corpus.encode import Template
from tasks.spec import LABELS

PROMPT_FILE = "prompt.json"
_TEXT = "\x00"  # stands for the patient's text, which holds none


def prompt_entries(template: Template, max_tokens: int) -> dict[str, Any]:
    """What a program needs to ask the model as it was asked in training.

    `answers`: the tokens of each label's word, order LABELS. With a chat template, `messages`
    stand before the patient's; without one the prompt is `before`, the text, `after`.
    """
    entries: dict[str, Any] = {
        "labels": list(LABELS),
        "words": [template.prompt.answer(label) for label in LABELS],
        "answers": [
            list(tokens[:length])
            for tokens, length in zip(template.completions, template.label_lengths, strict=True)
        ],
        "max_tokens": max_tokens,
    }
    if template.chat:
        return entries | {"messages": template.prompt.messages(_TEXT)[:-1]}

    before, _, after = template.prompt.plain_text(_TEXT).partition(_TEXT)
    return entries | {"before": before, "after": after}


def write_prompt(template: Template, max_tokens: int, folder: Path) -> None:
    """Write prompt.json."""
    text = json.dumps(prompt_entries(template, max_tokens), indent=1, ensure_ascii=False)
    (folder / PROMPT_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_prompt(folder: Path) -> dict[str, Any]:
    """The entries of prompt.json."""
    entries: dict[str, Any] = json.loads((folder / PROMPT_FILE).read_text(encoding="utf-8"))
    return entries
