"""Precisions: flips, fidelity, and each of them against bfloat16."""

from __future__ import annotations

from flows.report.figures import (
    RANDOM,
    difference,
    ed_recall_figure,
    figure,
    pair_name,
    random_mark,
    recipe_name,
)
from flows.report.pairs import VERDICT, verdict_words
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Ids, Row, rows_of
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
# Of each variant and distribution the latest; a sample of a test set is measured once, whichever of
# the data sets with it asks first.
MEASUREMENTS = """(
    SELECT fidelity.*, coalesce(fidelity.created_at, landed.loaded_at) AS measured_at
    FROM fidelity LEFT JOIN landed ON landed.id = fidelity.fidelity_id
) WHERE base_model IN {base_models} AND (
    dataset_digest IN {datasets} OR dataset_digest IN (
        SELECT dataset_digest FROM dataset JOIN dataset_set USING (dataset_id)
        WHERE name = 'test' AND set_digest IN {set_digests}
    )
) QUALIFY row_number() OVER (
    PARTITION BY base_model, precision, distribution, dataset_digest, random_weights
    ORDER BY measured_at DESC, fidelity_id DESC
) = 1 ORDER BY base_model, bits, precision, distribution DESC, measured_at, fidelity_id"""


def flips(board: Board) -> ReportTable:
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
    flagged = "no dropout"
    if row.dropout_cases:
        count = row.flips_flagged + row.flips_not_flagged
        flagged = f"{row.flips_flagged} of {count} (of {row.dropout_cases} cases)"
    return {
        "pair": f"{pair_name(row, marked=False)}{mark}\n{row.change}",
        "flips": f"{row.flips} of {row.cases}",
        "right to\nwrong": str(row.correct_to_wrong),
        "wrong to\nright": str(row.wrong_to_correct),
        "ED lost": f"{row.ed_lost} of {row.ed_cases}",
        "ED gained": str(row.ed_gained),
        "harmless": figure(row.harmless, digits=0),
        "cost": figure(row.flip_cost, digits=0, sign=True),
        "flagged": flagged,
    }


def fidelity(board: Board) -> ReportTable:
    """Per variant and distribution the latest measurement on the test cases of `board`; random
    weights hide no real ones.
    """
    rows = rows_of(
        MEASUREMENTS.format(
            base_models=listed({row.base_model for row in board}),
            datasets=listed({row.dataset_digest for row in board if row.dataset_digest}),
            set_digests=listed({row.set_digest for row in board}),
        )
    )
    several = len({row.dataset_digest for row in rows}) > 1
    records = [_fidelity_record(row, several) for row in rows]
    table = ReportTable.of(FIDELITY, records, "quantization_alone")
    return table.noted(*(reference_note(row.reference_precision) for row in rows))


def _fidelity_record(row: Row, name_dataset: bool) -> dict[str, str]:
    dataset = f"\nof dataset {row.dataset_digest[:6]}" if name_dataset else ""
    variant = f"{row.base_model} {row.precision}{random_mark(row)}"
    return {
        "variant": f"{variant}\nagainst {row.reference_precision}",
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
PAIRS_QUERY = '"FROM precision_comparison"'


def pooled_over_adapters(board: Board, ids: Ids = None) -> ReportTable:
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
    table = ReportTable.of(TITLE, [_pool_record(pool) for pool in pools], PAIRS_QUERY)
    return table.noted(*(pool.note for pool in pools))


def _pool_record(pool: PrecisionPool) -> dict[str, str]:
    name = f"{pool.base_model} {pool.precision} {pool.recipe} {pool.adapter}{random_mark(pool)}"
    accuracy = pool.figures["accuracy"]
    left_out = f"\n{accuracy.pairs_left_out} left out" if accuracy.pairs_left_out else ""
    record = {
        "precision": f"{name}{_set_line(pool.evaluation_set)}\nagainst {pool.reference}",
        "bytes": f"x{figure(pool.bytes_ratio, digits=2)}",
        "adapters": f"{accuracy.pairs}{left_out}",
    }
    return record | {
        name: _pool_cell(pool.figures[metric], pool.ranges[metric])
        for metric, name in _COLUMNS.items()
    }


def _pool_cell(row: Pooled, extremes: Range) -> str:
    mean = figure(row.difference, row.low, row.high, sign=True, below=True)
    cell = f"{mean}\n{row.note or verdict_words(row.verdict)}"
    if extremes is None or row.pairs < 2:
        return cell

    lowest, highest = (figure(value, sign=True) for value in extremes)
    return f"{cell}\n{lowest} to {highest}"


def _set_line(evaluation_set: str) -> str:
    """The line that names a further evaluation set."""
    return "" if evaluation_set == "test" else f"\n{evaluation_set}"


COMPARISON = (
    "Precisions against their reference, paired by case; from 4bit: one adapter, trained at 4 "
    "bits, with its own threshold at each"
)
FRONTIER = (
    "Bytes against ED recall and macro F1 (primary rule); dominated: another precision needs no "
    "more bytes, is as good in both, and better in one of the three"
)
PLAIN = {"4bit", "8bit"}  # without another one, 4 against 8 bits says it all


def against_reference(board: Board, ids: Ids = None) -> ReportTable:
    """The latest pairs of the base models of `board` with their reference.

    `ids`: the evaluations of the study.
    """
    rows = _rows_about(board, "precision_comparison", ids)
    table = ReportTable.of(COMPARISON, [_comparison_record(row) for row in rows], PAIRS_QUERY)
    return table.noted(*(row.note for row in rows))


def frontier(board: Board, ids: Ids = None) -> ReportTable:
    """The frontiers of the base models of `board` that have another precision than 4 or 8 bits.

    `ids`: the evaluations of the study.
    """
    rows = _rows_about(board, "frontier", ids)
    arms = {_arm(row) for row in rows if row.precision not in PLAIN}
    shown_rows = [row for row in rows if _arm(row) in arms]
    records = [_frontier_record(row) for row in shown_rows]
    table = ReportTable.of(FRONTIER, records, '"FROM frontier"')
    return table.noted(*(row.note for row in shown_rows))


def _rows_about(board: Board, view: str, ids: Ids) -> list[Row]:
    """Rows of a view: of test sets those of the evaluations of `board`, of further sets all of its
    base models.
    """
    base_models = {row.base_model for row in board}
    own_ids = {row.evaluation_id for row in board}
    return [
        row
        for row in rows_of(view, only=ids)
        if (
            row.evaluation_id in own_ids
            if row.evaluation_set == "test"
            else row.base_model in base_models
        )
    ]


def _arm(row: Row) -> tuple[object, ...]:
    """What the precisions have in common among which one may be dominated."""
    arm = row.base_model, row.recipe, row.seed, row.adapter
    return *arm, row.evaluation_set, row.set_digest


def _name(row: Row) -> str:
    adapter = "" if row.adapter == "own" else f" {row.adapter}"
    recipe = recipe_name(f"{row.recipe}{adapter}", row.seed)
    name = f"{row.base_model} {row.precision} {recipe}{random_mark(row)}"
    return name + _set_line(row.evaluation_set)


def _comparison_record(row: Row) -> dict[str, str]:
    return {
        "precision": f"{_name(row)}\nagainst {row.reference}",
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "accuracy": difference(row, "accuracy"),
        VERDICT: verdict_words(row.accuracy_verdict),
        "ED recall": difference(row, "ed_recall"),
        f"ED {VERDICT}": verdict_words(row.ed_recall_verdict),
        "over-triage": difference(row, "over_triage"),
        "test loss": difference(row, "loss"),
    }


def _frontier_record(row: Row) -> dict[str, str]:
    return {
        "precision": _name(row),
        "MB": figure(row.stored_bytes / 1e6, digits=1),
        "bits per\nweight": figure(row.bits_per_weight, digits=2),
        "ED recall": ed_recall_figure(row.ed_recall),
        "macro F1": figure(row.macro_f1),
        "dominated by": row.dominated_by or ("n/a" if row.dominated is None else "-"),
        "computed": row.compute_path or "n/a",
    }
