"""Precisions: flips, fidelity, and each of them against bfloat16."""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import RANDOM, ed_recall_figure, figure, random_mark, recipe_name
from flows.report.pairs import VERDICT, verdict_words
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_as, rows_of
from tasks.judging.point_metrics import ED_AUROC
from tasks.precisions import reference_note
from warehouse.comparison.pooled import Pooled
from warehouse.comparison.precision_pools import PrecisionPool, Range, precision_pools
from warehouse.connect import listed

FLIPS = (
    "Decisions that flip with the precision (primary rule); "
    "harmless: from one wrong decision to another that costs no more"
)
FIDELITY = (
    "What quantisation alone changes, before any training: KL divergence to the reference, in "
    "nats; ±: standard error"
)


class FidelityRow(Row):
    """A row of `fidelity`: a variant against the reference, in one distribution."""

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
        for row in rows_of("flips", only=random_weights)
        if row.evaluation_before in random_weights and row.evaluation_after in random_weights
    ]
    return ReportTable.of(FLIPS, records, '"FROM flips"')


def _flips_record(row: Row, mark: str) -> dict[str, str]:
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


def _flagged(row: Row) -> str:
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


def _of_the_same_test_cases(board: Collection[EvaluationRow]) -> set[str | None]:
    """Data sets with a test set of `board`: a sample of it is measured once, whichever asks first."""
    digests = listed({row.set_digest for row in board})
    rows = rows_of(
        "dataset JOIN dataset_set USING (dataset_id) "
        f"WHERE name = 'test' AND set_digest IN {digests}",
    )
    return {row.dataset_digest for row in rows}


def _measurements() -> list[FidelityRow]:
    """All measurements, by variant, distribution and time."""
    return rows_as(
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


TITLE = (
    "Precisions against their reference, the mean over a recipe's adapters that were judged at "
    "both: accuracy and AUROC by the most probable label, the others by the recipe's own rule; 95 % bands over "
    "cases hold for all figures of a line; verdicts at 2 points, between seeds too; below "
    "them the lowest and the highest difference of one adapter"
)
_COLUMNS = {
    "accuracy": "accuracy",
    "ed_recall": "ED recall",
    ED_AUROC: "ED AUROC",
    "over_triage": "over-triage",
}


def pooled_over_adapters(
    board: Collection[EvaluationRow], ids: Collection[str] | None = None
) -> ReportTable:
    """A row per base model of `board`, recipe, origin of its adapters, set of cases and precision;
    of test sets, those of `board` alone.

    `ids`: the evaluations of the study.
    """
    base_models = {row.base_model for row in board}
    digests = {row.set_digest for row in board}
    pools = [
        pool
        for pool in precision_pools(ids)
        if pool.base_model in base_models
        and (pool.evaluation_set != "test" or pool.set_digest in digests)
    ]
    table = ReportTable.of(TITLE, [_record(pool) for pool in pools], '"FROM precision_comparison"')
    return table.with_notes(pool.note for pool in pools)


def _record(pool: PrecisionPool) -> dict[str, str]:
    name = f"{pool.base_model} {pool.precision} {pool.recipe} {pool.adapter}{random_mark(pool)}"
    on_set = "" if pool.evaluation_set == "test" else f"\n{pool.evaluation_set}"
    accuracy = pool.figures["accuracy"]
    left_out = f"\n{accuracy.pairs_left_out} left out" if accuracy.pairs_left_out else ""
    record = {
        "precision": f"{name}{on_set}\nagainst {pool.reference}",
        "bytes": f"x{figure(pool.bytes_ratio, digits=2)}",
        "adapters": f"{accuracy.pairs}{left_out}",
    }
    return record | {
        name: _cell(pool.figures[metric], pool.ranges[metric]) for metric, name in _COLUMNS.items()
    }


def _cell(row: Pooled, extremes: Range) -> str:
    difference = figure(row.difference, row.low, row.high, sign=True, below=True)
    cell = f"{difference}\n{row.note or verdict_words(row.verdict)}"
    if extremes is None or row.pairs < 2:
        return cell

    lowest, highest = (figure(value, sign=True) for value in extremes)
    return f"{cell}\n{lowest} to {highest}"


COMPARISON = (
    "Precisions against their reference, paired by case; from 4bit: one adapter, trained at 4 "
    "bits, with its own threshold at each"
)
FRONTIER = (
    "Bytes against ED recall and macro F1 (primary rule); dominated: another precision needs no "
    "more bytes, is as good in both, and better in one of the three"
)
PLAIN = {"4bit", "8bit"}  # without another one, 4 against 8 bits says it all


class FrontierRow(Row):
    """A row of `frontier`."""

    @property
    def group(self) -> tuple[str, str, int, str, str, str]:
        """The precisions among which one may be dominated."""
        arm = self.base_model, self.recipe, self.seed, self.adapter
        return *arm, self.evaluation_set, self.set_digest


def against_reference(
    board: Collection[EvaluationRow], ids: Collection[str] | None = None
) -> ReportTable:
    """The latest pairs of the base models of `board` with their reference.

    `ids`: the evaluations of the study.
    """
    pairs = rows_of("precision_comparison", only=ids)
    rows = [row for row in pairs if _is_of(row, board)]
    table = ReportTable.of(
        COMPARISON, [_comparison_record(row) for row in rows], '"FROM precision_comparison"'
    )
    return table.with_notes(row.note for row in rows)


def frontier(board: Collection[EvaluationRow], ids: Collection[str] | None = None) -> ReportTable:
    """The frontiers of the base models of `board` that have another precision than 4 or 8 bits.

    `ids`: the evaluations of the study.
    """
    rows = [row for row in rows_as(FrontierRow, "frontier", only=ids) if _is_of(row, board)]
    groups = {row.group for row in rows if row.precision not in PLAIN}
    shown_rows = [row for row in rows if row.group in groups]
    table = ReportTable.of(
        FRONTIER, [_frontier_record(row) for row in shown_rows], '"FROM frontier"'
    )
    return table.with_notes(row.note for row in shown_rows)


def _is_of(row: Row, board: Collection[EvaluationRow]) -> bool:
    if row.evaluation_set == "test":
        return row.evaluation_id in {evaluation.evaluation_id for evaluation in board}
    return row.base_model in {evaluation.base_model for evaluation in board}


def _name(row: Row) -> str:
    adapter = "" if row.adapter == "own" else f" {row.adapter}"
    on_set = "" if row.evaluation_set == "test" else f"\n{row.evaluation_set}"
    recipe = recipe_name(f"{row.recipe}{adapter}", row.seed)
    return f"{row.base_model} {row.precision} {recipe}{random_mark(row)}{on_set}"


def _comparison_record(row: Row) -> dict[str, str]:
    return {
        "precision": f"{_name(row)}\nagainst {row.reference}",
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "accuracy": _difference(row.accuracy_diff, row.accuracy_low, row.accuracy_high),
        VERDICT: verdict_words(row.accuracy_verdict),
        "ED recall": _difference(row.ed_recall_diff, row.ed_recall_low, row.ed_recall_high),
        f"ED {VERDICT}": verdict_words(row.ed_recall_verdict),
        "over-triage": _difference(row.over_triage_diff, row.over_triage_low, row.over_triage_high),
        "test loss": _difference(row.loss_diff, row.loss_low, row.loss_high),
    }


def _difference(value: float | None, low: float | None, high: float | None) -> str:
    return figure(value, low, high, sign=True, below=True)


def _frontier_record(row: FrontierRow) -> dict[str, str]:
    return {
        "precision": _name(row),
        "MB": figure(row.stored_bytes / 1e6, digits=1),
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "ED recall": ed_recall_figure(row.ed_recall),
        "macro F1": figure(row.macro_f1),
        "dominated by": row.dominated_by or ("n/a" if row.dominated is None else "-"),
        "computed": row.compute_path or "n/a",
    }
