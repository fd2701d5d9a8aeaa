"""The shapes of requests and answers, for the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tasks.bundle.asking import MOST_BYTES
from tasks.spec import Label


class Question(BaseModel):
    """A text to decide."""

    text: Annotated[str, Field(min_length=1, description=f"at most {MOST_BYTES:,} bytes of UTF-8")]


class Answered(BaseModel):
    """A decision, and what must be known with it."""

    decision: Label | None = Field(description="by the recipe's own rule; null if not available")
    probabilities: dict[Label, float] = Field(description="of the labels, not calibrated")
    conformal_set: list[Label] = Field(description="the labels that cannot be ruled out")
    review: bool | None = Field(description="the review flag; null without dropout passes")
    review_note: str | None = Field(description="why there is no review flag")
    vote_entropy_nats: float | None = Field(description="what the review flag rests on")
    notes: list[str] = Field(description="what to mind about this text")
    model_id: str = Field(description="the training that made the model")
    rule: str = Field(description="argmax, target_recall or min_cost")
    verdict: str = Field(description="passes_gates, provisional or unsafe")
    warning: str | None = Field(description="why the model must not be relied on")
    notice: str = Field(description="what the answer is not")


class Health(BaseModel):
    """The state of the model, which is sent with the status 503 where it is lost."""

    model: Literal["ready", "lost"]
    waiting: int = Field(description="texts that wait for a decision")
    model_id: str
    verdict: str
    warning: str | None


class Problem(BaseModel):
    """Why there is no decision."""

    error: str
