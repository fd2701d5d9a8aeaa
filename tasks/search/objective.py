"""What a search aims at, always on `valid`: the recipe's own validation value, or the ED recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.spec import Recipe, Search


@dataclass(frozen=True)
class Objective:
    """`over_triage`: the over-triage at which the ED recall is taken; None: the validation value,
    by which the trainer chooses the best adapter.
    """

    over_triage: float | None

    @classmethod
    def of(cls, recipe: Recipe, search: Search) -> Objective:
        """Safety recipes aim at ED recall: their validation values weigh it by settings that vary."""
        return cls(search.over_triage if recipe.kind == "safety" else None)

    @property
    def name(self) -> str:
        if self.over_triage is None:
            return "validation value"
        return f"ED recall at over-triage {self.over_triage:g}"

    @property
    def is_higher_better(self) -> bool:
        return self.over_triage is not None

    def loss(self, value: float) -> float:
        """A number that is lower for a better value."""
        return -value if self.is_higher_better else value

    def worse_than(self, values: Sequence[float]) -> float:
        """A value worse than all of these, for a training that failed."""
        if self.is_higher_better:
            return 0.0
        return 2 * max(values, default=1.0)
