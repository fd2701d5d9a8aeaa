"""What a change of precision does: decisions that flip after training, and divergence before any
training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from flows.report.figures import figure
from flows.report.names import RANDOM, random_mark, recipe_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, typed_rows
from tasks.precisions import reference_note
from warehouse.connect import listed

FLIPS = (
    "Decisions that flip with the precision (primary rule); "
    "harmless: from one wrong decision to another that costs no more"
)
FIDELITY = (
    "What quantisation alone changes, before any training: KL divergence to the reference, in "
    "nats; ±: standard error"
)


@dataclass(frozen=True)
class FlipsRow:
    """A row of `flips`: what the primary rule decides differently after a change of precision."""

    base_model: str
    recipe: str
    seed: int
    change: str
    cases: int
    ed_cases: int
    flips: int
    correct_to_wrong: int
    wrong_to_correct: int
    ed_lost: int
    ed_gained: int
    harmless: int | None
    flip_cost: float | None
    dropout_cases: int
    flips_flagged: int
    flips_not_flagged: int
    evaluation_before: str
    evaluation_after: str


@dataclass(frozen=True)
class FidelityRow:
    """A row of `fidelity`: a variant against the reference, in one distribution."""

    base_model: str
    precision: str
    distribution: str
    reference_precision: str
    random_weights: bool
    dataset_digest: str
    cases: int
    set_cases: int
    kl_mean: float | None
    kl_mean_se: float | None
    kl_median: float | None
    kl_p95: float | None
    kl_p99: float | None
    kl_p999: float | None
    kl_max: float | None
    same_top1: float | None
    same_top1_se: float | None
    perplexity_ratio: float | None
    perplexity_ratio_se: float | None
    measured_at: datetime | None

    @property
    def measured(self) -> tuple[str, str, str, str, bool]:
        """What is measured; a later row of the same replaces an earlier one."""
        return (
            self.base_model,
            self.precision,
            self.distribution,
            self.dataset_digest,
            self.random_weights,
        )


def flips(board: Collection[EvaluationRow]) -> ReportTable:
    """Per pair of evaluations of `board`: decisions lost and gained, their cost, and how many the
    review flag caught.
    """
    random_weights = {row.evaluation_id: row.random_weights for row in board}
    records = [
        _flips_record(row, RANDOM if random_weights[row.evaluation_after] else "")
        for row in typed_rows(FlipsRow, "flips", only=random_weights)
        if row.evaluation_before in random_weights and row.evaluation_after in random_weights
    ]
    return ReportTable.of(FLIPS, records, '"FROM flips"')


def _flips_record(row: FlipsRow, mark: str) -> dict[str, str]:
    recipe = recipe_name(row.recipe, row.seed)
    return {
        "pair": f"{row.base_model} {recipe}{mark}\n{row.change}",
        "flips": f"{row.flips} of {row.cases}",
        "right to\nwrong": str(row.correct_to_wrong),
        "wrong to\nright": str(row.wrong_to_correct),
        "ED lost": f"{row.ed_lost} of {row.ed_cases}",
        "ED gained": str(row.ed_gained),
        "harmless": figure(row.harmless, digits=0),
        "cost": figure(row.flip_cost, digits=0, sign=True),
        "flagged": _flagged(row),
    }


def _flagged(row: FlipsRow) -> str:
    if not row.dropout_cases:
        return "no dropout"
    flips = row.flips_flagged + row.flips_not_flagged
    return f"{row.flips_flagged} of {flips} (of {row.dropout_cases} cases)"


def fidelity(board: Collection[EvaluationRow]) -> ReportTable:
    """Per variant and distribution the latest measurement on the test cases of `board`; random
    weights hide no real ones.
    """
    base_models = {row.base_model for row in board}
    datasets = {row.dataset_digest for row in board} | _of_the_same_test_cases(board)
    rows = [
        row
        for row in _measurements()
        if row.base_model in base_models and row.dataset_digest in datasets
    ]
    # Rows come in order of time, so the last of each kind stays.
    latest = {row.measured: row for row in rows}
    latest_rows = [row for row in rows if latest[row.measured] is row]
    several = len({row.dataset_digest for row in latest_rows}) > 1
    table = ReportTable.of(
        FIDELITY, [_fidelity_record(row, several) for row in latest_rows], "quantization_alone"
    )

    return table.with_notes(reference_note(row.reference_precision) for row in latest_rows)


@dataclass(frozen=True)
class _TestSet:
    """A test set of a data set."""

    dataset_digest: str


def _of_the_same_test_cases(board: Collection[EvaluationRow]) -> set[str | None]:
    """Data sets with a test set of `board`: a sample of it is measured once, whichever asks first."""
    digests = listed({row.set_digest for row in board})
    rows = typed_rows(
        _TestSet,
        "dataset JOIN dataset_set USING (dataset_id) "
        f"WHERE name = 'test' AND set_digest IN {digests}",
    )
    return {row.dataset_digest for row in rows}


def _measurements() -> list[FidelityRow]:
    """All measurements, by variant, distribution and time."""
    return typed_rows(
        FidelityRow,
        "(SELECT f.*, coalesce(f.created_at, l.loaded_at) AS measured_at "
        "FROM fidelity AS f LEFT JOIN landed AS l ON l.id = f.fidelity_id) "
        "ORDER BY base_model, bits, precision, distribution DESC, measured_at, fidelity_id",
    )


def _fidelity_record(row: FidelityRow, name_dataset: bool) -> dict[str, str]:
    dataset = f"\nof dataset {row.dataset_digest[:6]}" if name_dataset else ""
    return {
        "variant": f"{row.base_model} {row.precision}{random_mark(row)}\nagainst {row.reference_precision}",
        "KL over": f"{row.distribution}\n{row.cases} of {row.set_cases} cases{dataset}",
        "mean": _with_error(row.kl_mean, row.kl_mean_se, 5),
        "median": figure(row.kl_median, digits=5),
        "95 %": figure(row.kl_p95, digits=5),
        "99 %": figure(row.kl_p99, digits=5),
        "99.9 %": figure(row.kl_p999, digits=5),
        "max": figure(row.kl_max, digits=5),
        "same\ntop": _with_error(row.same_top1, row.same_top1_se, 3),
        "perplexity\nratio": _with_error(row.perplexity_ratio, row.perplexity_ratio_se, 4),
    }


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    """A figure, and its standard error on a second line where it was measured."""
    text = figure(value, digits=digits)
    return text if error is None else f"{text}\n± {error:.{digits}f}"
