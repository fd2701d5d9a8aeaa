"""What a search aims at, always on `valid`: what chooses the recipe's adapter, or the ED recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.spec import Recipe, Search

Metric = Literal["validation value", "macro-F1", "ED recall"]


@dataclass(frozen=True)
class SearchObjective:
    """`over_triage`: the over-triage at which the ED recall is taken; None for the other metrics."""

    metric: Metric
    over_triage: float | None = None

    @classmethod
    def of(cls, recipe: Recipe, search: Search) -> SearchObjective:
        """Standard recipes aim at what chooses their best adapter. Safety recipes aim at ED recall,
        whatever chooses theirs: their validation values weigh it by settings that vary.
        """
        if recipe.kind == "safety":
            return cls("ED recall", search.over_triage)
        return cls("macro-F1" if recipe.select_by == "macro_f1" else "validation value")

    @property
    def name(self) -> str:
        if self.over_triage is None:
            return self.metric
        return f"{self.metric} at over-triage {self.over_triage:g}"

    @property
    def is_higher_better(self) -> bool:
        """Where every comparison of values has its direction from."""
        return self.metric != "validation value"

    def loss(self, value: float) -> float:
        """A number that is lower for a better value."""
        return -value if self.is_higher_better else value

    def worse_than(self, values: Sequence[float]) -> float:
        """A value worse than all of these, for a training that failed."""
        if self.is_higher_better:
            return 0.0
        return 2 * max(values, default=1.0)
