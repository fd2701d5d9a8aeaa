"""A decision about one text, and the answer that a person or a program gets: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.bundle.bundle import Bundle
from tasks.spec import LABELS, Label

SHORTENED = "The text is longer than the model reads: its middle was left out."
MARKUP = "The text held marks of the model's own markup; they were broken up and read as words."


@dataclass(frozen=True)
class Decision:
    """What a model says to one text.

    `label`: by the recipe's rule, None where that is not available; `probabilities`: of the labels,
    order LABELS, as the rule and the warehouse have them (not calibrated); `conformal_set`: the
    labels that cannot be ruled out; `review`: the review flag, None without dropout passes, and
    `vote_entropy` in nats behind it. `shortened`: the text lost its middle; `markup`: it held
    tokens that steer a conversation.
    """

    label: Label | None
    probabilities: tuple[float, float, float]
    conformal_set: tuple[Label, ...]
    review: bool | None = None
    vote_entropy: float | None = None
    passes: int | None = None
    shortened: bool = False
    markup: bool = False

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Decision:
        """The decision whose fields came through a child's pipe, where tuples are lists."""
        tuples = {name: tuple(values[name]) for name in ("probabilities", "conformal_set")}
        return cls(**(values | tuples))


def why_no_review(bundle: Bundle, passes: int | None) -> str | None:
    """Why a decision has no review flag; None where it has one."""
    if not bundle.review.available:
        return bundle.review.why_not
    if passes is None:
        return "not available: it needs dropout passes, e.g. --passes 50"
    return None


def why_no_decision(bundle: Bundle) -> str:
    """Why a model decides nothing whose rule is not available."""
    return f"The rule {bundle.rule.name} is {bundle.rule.note}."


def conformal_notes(bundle: Bundle) -> list[str]:
    """What to mind about the conformal sets of a model, if anything: one sentence."""
    note = bundle.conformal.note
    return [] if note is None else [f"Conformal sets, when they were judged: {note}."]


def answer(bundle: Bundle, decision: Decision) -> dict[str, Any]:
    """The whole answer as JSON: the decision, and what must be known with each one."""
    notes = [] if decision.label else [why_no_decision(bundle)]
    if decision.shortened:
        notes.append(SHORTENED)
    if decision.markup:
        notes.append(MARKUP)
    notes += conformal_notes(bundle)

    return {
        "decision": decision.label,
        "probabilities": dict(zip(LABELS, decision.probabilities, strict=True)),
        "conformal_set": list(decision.conformal_set),
        "review": decision.review,
        "review_note": why_no_review(bundle, decision.passes),
        "vote_entropy_nats": decision.vote_entropy,
        "notes": notes,
        "model_id": bundle.model_id,
        "rule": bundle.rule.name,
        "verdict": bundle.verdict,
        "warning": bundle.warning,
        "notice": bundle.notice,
    }
