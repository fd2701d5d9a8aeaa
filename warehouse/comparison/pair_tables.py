"""Pairs of evaluations, and the tables with their figures: 4 bits against 8, and any precision
against its reference.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from warehouse.comparison.paired import METRICS, WITH_OVER_TRIAGE, MetricComparison


@dataclass(frozen=True)
class EqualPair:
    """Two evaluations that differ in bits alone; fields as in `equal_pair` and `pair_metric`."""

    base_model: str
    recipe: str
    seed: int
    evaluation_set: str
    evaluation_4bit: str
    evaluation_8bit: str

    @property
    def sides(self) -> tuple[str, str]:
        return self.evaluation_4bit, self.evaluation_8bit


@dataclass(frozen=True)
class ReferencePair:
    """An evaluation at a precision and that of its reference; fields as in `reference_pair`."""

    evaluation_id: str
    reference_evaluation: str

    @property
    def sides(self) -> tuple[str, str]:
        return self.evaluation_id, self.reference_evaluation


Pair = EqualPair | ReferencePair


@dataclass(frozen=True)
class PairTable:
    """A view of pairs, and the table of their figures.

    `sides`: the columns of both evaluations; `renamed`: columns of the figures that are called
    otherwise than the fields of Comparison; `with_losses`: whether losses are compared too;
    `precisions`: those without which there is no pair.
    """

    view: str
    name: str
    pair: type[EqualPair] | type[ReferencePair]
    sides: tuple[str, str]
    renamed: dict[str, str]
    metrics: tuple[str, ...]
    with_losses: bool
    precisions: frozenset[str]

    @property
    def keys(self) -> list[str]:
        return [field.name for field in fields(self.pair)]

    @property
    def columns(self) -> list[str]:
        figures = [field.name for field in fields(MetricComparison)]
        return [*self.keys, "rule", *(self.renamed.get(name, name) for name in figures)]


FOUR_AGAINST_EIGHT = PairTable(
    view="equal_pair",
    name="pair_metric",
    pair=EqualPair,
    sides=("evaluation_4bit", "evaluation_8bit"),
    renamed={},
    metrics=METRICS,
    with_losses=False,
    precisions=frozenset({"4bit", "8bit"}),
)
AGAINST_REFERENCE = PairTable(
    view="reference_pair",
    name="reference_metric",
    pair=ReferencePair,
    sides=("evaluation_id", "reference_evaluation"),
    renamed={
        "value_4bit": "value",
        "value_8bit": "reference_value",
        "b": "right_only",
        "c": "reference_right_only",
    },
    metrics=WITH_OVER_TRIAGE,
    with_losses=True,
    precisions=frozenset({"bf16"}),
)
TABLES = (FOUR_AGAINST_EIGHT, AGAINST_REFERENCE)
