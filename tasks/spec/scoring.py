"""How a trained adapter is scored and judged, and the id of judged scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.spec.base import SCORING_VERSION, Strict
from tasks.spec.costs import CostMatrix
from tasks.spec.digests import short_digest


class Scoring(Strict):
    """How a trained adapter is scored and judged."""

    passes: int = Field(default=50, ge=2, le=1000, description="Monte Carlo dropout passes")
    mc_cases: Annotated[int, Field(ge=3)] | Literal["all"] = Field(
        default="all",
        description="number of test cases in the dropout passes (a fixed stratified sample)",
    )
    # At most ln 3, rounded up: the entropy of votes that three labels share evenly.
    review_entropy: float = Field(
        default=0.3, ge=0, le=1.0987, description="vote entropy in nats above which to flag a case"
    )
    cost_matrix: CostMatrix | None = Field(
        default=None,
        description="prices the decisions of every experiment; without it that of `[safety]`",
    )
    conformal_miss_rate: float = Field(
        default=0.05, gt=0, lt=1, description="share of emergencies that conformal sets may miss"
    )
    generated_cases: int = Field(
        default=20, ge=0, le=10_000, description="number of test cases with a generated answer"
    )
    fidelity_cases: int = Field(
        default=100, ge=3, description="number of test cases to compare with unquantised weights"
    )
    move_adapters: bool | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=False,
        description="also score each adapter on the other bit width (`true`), or on these"
        ' precisions, e.g. `["8bit", "mxfp4"]`: nothing is trained',
    )
    moved_passes: bool = Field(
        default=True, description="also run the dropout passes of these adapters"
    )


def evaluation_id(scores: str) -> str:
    """Id of an evaluation: the scores with this id, judged as this version judges.

    Both begin with the id of the training.
    """
    return f"{training_of(scores)}-e{short_digest({'scores': scores, 'version': SCORING_VERSION})}"


def training_of(scores: str) -> str:
    """The id of the training to which scores, or an evaluation, with this id belong."""
    return scores.rpartition("-")[0]
