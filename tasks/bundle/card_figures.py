"""The figures of a model card: what an evaluation has landed, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.bundle.bundle import Bundle
from tasks.corpus.case import SETS

Row = dict[str, Any]  # one landed row, by column
# Metrics of the card: the name of each in the warehouse, in words, and as the Hub knows it.
METRICS = (
    ("ed_recall", "ED recall (sensitivity)", "recall"),
    ("over_triage", "over-triage (share sent somewhere more urgent)", "over_triage"),
    ("under_triage", "under-triage (share sent somewhere less urgent)", "under_triage"),
    ("ed_precision", "ED precision", "precision"),
    ("ed_f2", "ED F2", "f2"),
    ("accuracy", "accuracy", "accuracy"),
    ("macro_f1", "macro F1", "f1"),
)


@dataclass(frozen=True)
class CardMetric:
    """A metric on the test set with its 95 % interval.

    `hub_type`: what the Hub calls it; `value` is None where `note` says why.
    """

    name: str
    hub_type: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    note: str | None


@dataclass(frozen=True)
class SetSize:
    """How many cases of a set have which label; `groups` is None where none has a group."""

    name: str
    cases: int
    labels: tuple[int, int, int]
    groups: int | None


@dataclass(frozen=True)
class CardFigures:
    """`metrics` under the model's own rule; `conformal_miss`: the share of emergencies that the
    conformal sets missed; `data`: name of the data set, and `sets`, which are empty where it was
    not described in this home.
    """

    metrics: tuple[CardMetric, ...]
    conformal_miss: CardMetric
    data: str
    sets: tuple[SetSize, ...]

    @property
    def rows(self) -> tuple[CardMetric, ...]:
        """Every figure of the card's table."""
        return (*self.metrics, self.conformal_miss)


def card_figures(home: Path, bundle: Bundle) -> CardFigures:
    """The figures of the evaluation that judged the bundle's model."""
    folder = home / "landing" / bundle.judged_on.evaluation_id
    of_rule = {
        row["metric"]: row for row in _rows(folder, "metric") if row["rule"] == bundle.rule.name
    }
    data = home / "landing" / f"dataset-{bundle.judged_on.dataset_digest}"
    described = _rows(data, "dataset") if (data / "dataset.parquet").is_file() else []

    return CardFigures(
        metrics=tuple(
            _metric(of_rule[metric], name, hub_type)
            for metric, name, hub_type in METRICS
            if metric in of_rule
        ),
        conformal_miss=_conformal_miss(_rows(folder, "conformal")[0]),
        data=described[0]["dataset"] if described else bundle.judged_on.dataset_digest,
        sets=_sets(_rows(data, "dataset_set")) if described else (),
    )


def _rows(folder: Path, table: str) -> list[Row]:
    import pyarrow.parquet as pq  # slow to import

    rows: list[Row] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return rows


def _metric(row: Row, name: str, hub_type: str) -> CardMetric:
    figures = {key: row[key] for key in ("value", "low", "high", "method", "n", "note")}
    return CardMetric(name=name, hub_type=hub_type, **figures)


def _conformal_miss(row: Row) -> CardMetric:
    return CardMetric(
        name="emergencies without ED in their conformal set",
        hub_type="conformal_miss_rate",
        value=row["ed_miss_rate"],
        low=row["miss_low"],
        high=row["miss_high"],
        method=row["miss_method"] or "none",
        n=row["ed_cases"] or 0,
        note=row["note"],
    )


def _sets(rows: Sequence[Row]) -> tuple[SetSize, ...]:
    learned_first = {name: place for place, name in enumerate(SETS)}
    ordered_rows = sorted(rows, key=lambda row: learned_first.get(row["name"], len(SETS)))
    return tuple(
        SetSize(
            row["name"],
            row["cases"],
            (row["ed_cases"], row["gp_cases"], row["home_cases"]),
            row["groups"],
        )
        for row in ordered_rows
    )
