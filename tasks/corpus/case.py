"""One patient text with its label: what readers return and sets store, one JSON object a line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import get_args

from tasks.spec import Label, SetName

SETS: tuple[SetName, ...] = get_args(SetName)


@dataclass(frozen=True, slots=True)
class Case:
    """A text with its label.

    `group` keeps related cases on one side of a split. `subgroup` (facts for reports) and
    `rationale` (why the label) are kept with the case and never shown to a model.
    """

    case_id: str
    text: str
    label: Label
    group: str | None = None
    subgroup: dict[str, str] = field(default_factory=dict)
    rationale: str | None = None


def to_json(case: Case) -> str:
    """One line of JSON without the line break; characters beyond ASCII stay readable."""
    entry = asdict(case)
    if case.rationale is None:
        del entry["rationale"]
    return json.dumps(entry, ensure_ascii=False)


def from_json(line: str) -> Case:
    """The inverse of `to_json`, for the project's own files (`readers.py` reads users' files)."""
    return Case(**json.loads(line))


def normal_text(text: str) -> str:
    """The text in one case and with single spaces: texts that are equal so are the same text."""
    return " ".join(text.casefold().split())


def can_be_encoded(text: str) -> bool:
    """Whether a text holds whole characters only: half a surrogate pair has no bytes and no digest."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it has spaces and control characters at most."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def exact_digest(text: str) -> str:
    """SHA-256 (hex) of a text as it is: it joins scores, prediction rows and a user's own file."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2)  # a reader and a checker ask for the same text one after the other
def text_digest(text: str) -> str:
    """16 hex digits that identify a text up to case and spacing."""
    return hashlib.sha256(normal_text(text).encode()).hexdigest()[:16]
