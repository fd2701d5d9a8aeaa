"""A prepared set of cases, encoded for one variant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.corpus.encode import Template, encode, make_template
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Emit, StepWarning
from tasks.runtime.files import file_digest, read_lines
from tasks.spec import PromptChoice
from tasks.tuning.batches import EncodedCases, make_cases


@dataclass(frozen=True)
class LoadedSet:
    """A set and the lines of its file, in the same order.

    `shortened`: how many cases lose the middle of their text.
    """

    cases: EncodedCases
    records: tuple[dict[str, Any], ...]
    shortened: int


def load_template(variant: Path, prompt: PromptChoice) -> Template:
    """The tokenizer of a variant folder with a prompt, chat or plain by the variant's manifest."""
    # Slow to import, and needed in child processes only.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(variant), trust_remote_code=False)
    chat = VariantManifest.read(variant).has_chat_template
    return make_template(tokenizer, load_prompt(prompt), chat)


def load_set(data: Path, name: str, template: Template, max_tokens: int) -> LoadedSet:
    """Encode a set (`train`, `valid`, ...) of a prepared dataset folder."""
    file = data / f"{name}.jsonl"
    records = read_lines(file)
    encoded = [
        encode(template, record["case_id"], record["text"], record["label"], max_tokens)
        for record in records
    ]
    shortened = sum(case.shortened for case in encoded)
    cases = replace(make_cases(template, encoded), set_digest=file_digest(file))
    return LoadedSet(cases, tuple(records), shortened)


def warn_of_shortened(name: str, loaded: LoadedSet, limit: int, emit: Emit) -> None:
    """Warn of cases that lose the middle of their text; raises BadInput if all of them would."""
    total = len(loaded.cases.encoded)
    if loaded.shortened == total:
        raise BadInput(
            f"Every case of {name} is longer than training.max_tokens = {limit} and would lose the "
            "middle of its text; raise training.max_tokens."
        )

    if loaded.shortened:
        emit(
            StepWarning(
                f"{loaded.shortened} of {total} cases of {name} are longer than "
                f"training.max_tokens = {limit}: the middle of their text is left out."
            )
        )
