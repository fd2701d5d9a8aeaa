"""A bundled model in a process of its own: texts in, decisions and answers out."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tasks.bundle.bundle import Bundle, BundledModel
from tasks.corpus.case import can_be_encoded, is_blank, text_digest
from tasks.corpus.reading.rows import RowReader
from tasks.corpus.reading.tables import place, read_rows
from tasks.runtime.conversation import Answered, Conversation
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import lock_of, locked, remove_abandoned
from tasks.spec import LABELS, Columns, Label

MOST_BYTES = 1_000_000  # of one text in UTF-8: three times 50,000 English words
TOO_LARGE = f"The text is larger than {MOST_BYTES // 1_000_000} MB; shorten it."


@dataclass(frozen=True)
class Decision:
    """What a model says to one text.

    - `label`: by the recipe's rule; None where the rule is not available.
    - `probabilities`: of the labels, order LABELS, not calibrated.
    - `conformal_set`: the labels that cannot be ruled out.
    - `review`: the review flag, and `vote_entropy` in nats behind it; None without dropout passes.
    - `shortened`: the text lost its middle. `markup`: it held tokens that steer a conversation.
    """

    label: Label | None
    probabilities: tuple[float, float, float]
    conformal_set: tuple[Label, ...]
    review: bool | None = None
    vote_entropy: float | None = None
    passes: int | None = None
    shortened: bool = False
    markup: bool = False


# A decision whose fields came through a child's pipe, where tuples are lists.
READ_DECISION = TypeAdapter(Decision)


def answer(bundle: Bundle, decision: Decision) -> dict[str, Any]:
    """The whole answer as JSON: the decision, and what must be known with each one."""
    notes = []
    if not bundle.rule.is_available:
        notes.append(f"The rule {bundle.rule.name} is {bundle.rule.note}.")
    if bundle.conformal.note:
        notes.append(f"Conformal sets, when they were judged: {bundle.conformal.note}.")
    if decision.shortened:
        notes.append("The text is longer than the model reads: its middle was left out.")
    if decision.markup:
        notes.append("The text held marks of the model's own markup, which were read as words.")
    review_note = bundle.review.why_not
    if review_note is None and decision.passes is None:
        review_note = "not available: it needs dropout passes, e.g. --passes 50"

    return {
        "decision": decision.label,
        "probabilities": dict(zip(LABELS, decision.probabilities, strict=True)),
        "conformal_set": list(decision.conformal_set),
        "review": decision.review,
        "review_note": review_note,
        "vote_entropy_nats": decision.vote_entropy,
        "notes": notes,
        "model_id": bundle.model_id,
        "rule": bundle.rule.name,
        "origin": bundle.origin,
        "verdict": bundle.verdict,
        "warning": bundle.warning,
        "notice": bundle.notice,
    }


class AskedModel(contextlib.AbstractContextManager["AskedModel"]):
    """One child process with a loaded model; texts reach it by its pipe alone.

    `passes`: dropout passes of each text for the review flag, which a recipe without dropout cannot
    give: then none run. `use`: names the folder of its log.
    """

    def __init__(self, model: BundledModel, passes: int | None, use: str) -> None:
        self.bundle = model.bundle
        args = {
            "model": model.model_dump(mode="json"),
            "passes": passes if self.bundle.review.available else None,
        }
        log = home() / "logs" / f"{use}-{self.bundle.model_id}"
        self.conversation = Conversation("tasks.bundle.loaded_model:predict", args, log)

    def __exit__(self, *error: object) -> None:
        self.conversation.close()

    def ask(self, text: str) -> Answered:
        """Send a text, to be read with `decision_of`; many may wait at once."""
        return self.conversation.ask({"text": text})


def decision_of(answered: Answered) -> Decision:
    """Wait for an answer. Raises the error with which the process has ended."""
    return READ_DECISION.validate_python(answered.result())


@contextlib.contextmanager
def in_use(model: BundledModel, use: str) -> Iterator[None]:
    """Hold a lock of this process in the home of a model, so that what it reads is not removed.

    `triage data forget` and `triage clean` see it (tasks/runtime/store.py);
    an exported folder needs none.
    """
    if model.folder != home():
        yield
        return

    logs = home() / "logs"
    remove_abandoned(logs, lock_of(logs / f"{use}-*").name)  # a killed program leaves its own
    name = logs / f"{use}-{model.bundle.model_id}-{os.getpid()}"
    with locked(name):
        try:
            yield
        finally:
            lock_of(name).unlink(missing_ok=True)


def checked_text(text: str) -> str:
    """The text without space around it. Raises BadInput where a model cannot be asked about it."""
    text = text.strip()
    if "\0" in text or not can_be_encoded(text):
        raise BadInput("The text holds NUL or half a surrogate pair; remove them.")
    if is_blank(text):
        raise BadInput("The text is empty; write what the patient says.")
    if len(text.encode()) > MOST_BYTES:
        raise BadInput(TOO_LARGE)
    return text


def decoded_text(data: bytes) -> str:
    """A checked text from bytes in UTF-8, with or without a byte order mark; they may be the first
    MOST_BYTES + 4 of a larger text, which is refused.
    """
    if len(data) > MOST_BYTES + len(codecs.BOM_UTF8):
        raise BadInput(TOO_LARGE)
    try:
        return checked_text(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"The text is not UTF-8 at byte {error.start + 1}; convert it.") from error


def numbered_texts(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """(case id, text) of each row of a table, one row in memory at a time.

    Without a column `case_id` or `id` a case is known by the digest of its text. Raises BadInput
    for a row that cannot be used, and for a file without rows.
    """
    reader = RowReader(Columns(text_column=column))
    number = -1
    for number, row in read_rows(path):
        location = place(path, number)
        if column not in row:
            raise BadInput(
                f"{location}: has no column '{column}' among its {len(row)}; name the column of the "
                "texts with --text-column, and give a CSV file without a header one."
            )
        try:
            text, case_id = reader.text(row), reader.case_id(row)
        except BadInput as error:
            raise BadInput(f"{location}: {error}") from None
        if len(text.encode()) > MOST_BYTES:
            raise BadInput(f"{location}: '{column}' is longer than {MOST_BYTES // 1_000_000} MB.")
        yield case_id or f"text-{text_digest(text)}", text

    if number < 0:
        raise BadInput(f"{path} holds no texts; it needs rows with '{column}'.")
