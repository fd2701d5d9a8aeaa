"""Costs of decisions and weights of labels, as a grid's `[safety]` table gives them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.spec.base import Label, Strict, every_label


def _right_is_cheapest(value: dict[Label, dict[Label, float]]) -> dict[Label, dict[Label, float]]:
    for truth, row in value.items():
        if row[truth] > min(row.values()):
            raise ValueError(f"in the row {truth} the right decision costs more than a wrong one")
    return value


RowCosts = Annotated[
    dict[Label, Annotated[float, Field(ge=0, le=1e6)]], AfterValidator(every_label)
]
CostMatrix = Annotated[
    dict[Label, RowCosts], AfterValidator(every_label), AfterValidator(_right_is_cheapest)
]
ClassWeights = Annotated[
    dict[Label, Annotated[float, Field(gt=0, le=1e6)]], AfterValidator(every_label)
]


class Safety(Strict):
    """Defaults of all safety recipes; its cost matrix also prices the decisions of the others."""

    cost_matrix: CostMatrix | None = Field(
        default=None, description="cost of each decision (column) for each true label (row)"
    )
    class_weights: ClassWeights | None = Field(
        default=None, description="weight of each label in the loss"
    )
