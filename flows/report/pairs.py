"""Precisions: 4 bits against 8 bits, by recipe and by pair; flips, fidelity, and each against its reference."""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import (
    RANDOM,
    difference,
    ed_recall_figure,
    figure,
    in_points,
    is_number,
    megabytes,
    pair_name,
    random_mark,
    recipe_name,
)
from flows.report.rules import THRESHOLD
from flows.report.table import ReportTable
from flows.report.typed_rows import Board, Ids, Row, rows_of
from tasks.judging.point_metrics import ED_AUROC
from tasks.precisions import reference_note
from warehouse.comparison.pools import adapter_rows
from warehouse.connect import listed

PAIRS = (
    "4 bits (first line) against 8 bits (second line) in one training each, by the recipe's own rule; "
    "differences are 4 minus 8, paired by case"
)
NOT_MEASURABLE = "not measurable on this backend"
NO_PAIR = "no pair of otherwise equal experiments yet"
RECIPES = (
    "4 minus 8 bits in points, the mean over the seeds of each recipe; accuracy, macro-F1 and AUROC by "
    "the most probable label, ED recall and over-triage by each model's threshold; in brackets: 95 % "
    "intervals, each for one figure, over trainings and groups of cases, with one seed over groups alone"
)
# The figures of a recipe with their rules, and their columns.
FIGURES = {
    ("accuracy", "argmax"): "accuracy",
    ("ed_recall", THRESHOLD): "ED recall",
    ("over_triage", THRESHOLD): "over-triage",
    (ED_AUROC, "argmax"): "ED AUROC",
    ("macro_f1", "argmax"): "macro-F1",
}


def pair_rows(only: Ids = None) -> list[Row]:
    """Pairs of the latest evaluations, or of those whose ids are in `only`."""
    return rows_of("quantization_comparison", only=only)


def summary_rows(only: Ids = None) -> list[Row]:
    """Recipes at 4 and 8 bits, the mean over their seeds, of the latest evaluations, or of those
    whose ids are in `only`, which are those of a study.
    """
    return rows_of("quantization_summary", only=only)


def pairs_on(board: Board, pairs: Collection[Row]) -> list[Row]:
    """The pairs that were judged on a test set of `board`."""
    digests = {row.set_digest for row in board}
    return [pair for pair in pairs if pair.set_digest in digests]


def quantization(pairs: Collection[Row]) -> ReportTable:
    """One row per pair of a 4-bit and an 8-bit experiment; without memory and time where no pair
    has them.
    """
    measurable = any(pair.resources != NOT_MEASURABLE for pair in pairs)
    table = ReportTable.of(
        PAIRS, [_record(pair, measurable) for pair in pairs], '"FROM quantization_comparison"'
    )
    return table.noted(None if measurable else f"memory and time are {NOT_MEASURABLE}")


def recipe_table(recipes: Collection[Row], whole: bool = False) -> ReportTable:
    """A line per recipe: its differences in points with their intervals. `whole`: with Holm's p value
    of each, one-sided, that the loss is the margin or more.
    """
    records: dict[str, dict[str, str]] = {}
    for row in recipes:
        column = FIGURES.get((row.metric, row.rule))
        if column is None:
            continue
        name = f"{row.base_model} {row.recipe}{random_mark(row)}"
        empty = {"recipe": name, "seeds": str(row.seeds), **dict.fromkeys(FIGURES.values(), "n/a")}
        record = records.setdefault(row.seed_group, empty)
        record[column] = in_points(row.difference, row.low, row.high)
        if whole and is_number(row.holm_p):
            record[column] += f"\np {row.holm_p:.3f}"

    table = ReportTable.of(RECIPES, list(records.values()), '"FROM quantization_summary"')
    about_p = "p: that the loss is 2 points or more, one-sided, by Holm over all figures of the set"
    return table.noted(about_p if whole else None)


def _record(pair: Row, with_resources: bool) -> dict[str, str]:
    record = {
        "pair": pair_name(pair),
        "MB": _both(pair.stored_bytes_4bit / 1e6, pair.stored_bytes_8bit / 1e6, digits=1),
        "accuracy": _both(pair.accuracy_4bit, pair.accuracy_8bit),
        "difference": difference(pair, "accuracy"),
        "ED recall": _both(pair.ed_recall_4bit, pair.ed_recall_8bit),
        "ED difference": difference(pair, "ed_recall"),
        "AUROC difference": difference(pair, "ed_auroc"),
        "test loss": _both(pair.loss_4bit, pair.loss_8bit),
    }
    return record | {"memory, time": _resources(pair)} if with_resources else record


def _both(four: float | None, eight: float | None, digits: int = 3) -> str:
    return f"{figure(four, digits=digits)}\n{figure(eight, digits=digits)}"


def _resources(pair: Row) -> str:
    """Peak memory and time of both trainings."""
    if pair.resources == NOT_MEASURABLE:
        return NOT_MEASURABLE

    lines = []
    for peak_bytes, seconds in (
        (pair.peak_memory_bytes_4bit, pair.train_seconds_4bit),
        (pair.peak_memory_bytes_8bit, pair.train_seconds_8bit),
    ):
        memory = f"{megabytes(peak_bytes)} MB" if is_number(peak_bytes) else "n/a"
        lines.append(f"{memory}, {seconds:.0f} s" if is_number(seconds) else memory)
    return "\n".join(lines)


def pair_lines(pairs: Collection[Row], most: int) -> ReportTable:
    """A line for each of the `most` pairs that lose most accuracy at 4 bits."""
    marked = not all(pair.random_weights for pair in pairs)
    shown_count = min(most, len(pairs))
    which = "all pairs" if shown_count == len(pairs) else f"{shown_count} of {len(pairs)} pairs"
    records = [
        {
            "pair": pair_name(pair, marked),
            "accuracy": in_points(pair.accuracy_diff, pair.accuracy_low, pair.accuracy_high),
            "ED recall": in_points(pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high),
            "ED AUROC": in_points(pair.ed_auroc_diff, pair.ed_auroc_low, pair.ed_auroc_high),
        }
        # Pairs without a figure stand last.
        for pair in sorted(
            pairs, key=lambda pair: (pair.accuracy_diff is None, pair.accuracy_diff or 0)
        )
    ]
    title = (
        f"One training each, {which}, largest loss of accuracy at 4 bits first: 4 minus 8 bits in "
        "points, ED recall by the recipe's own rule; chance in training is left out"
    )
    return ReportTable.of(title, records[:most])


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
    "both: accuracy and AUROC by the most probable label, the others by the recipe's own rule; "
    "95 % intervals over adapters and groups of cases"
)
_COLUMNS = {
    ("accuracy", "argmax"): "accuracy",
    ("ed_recall", "primary"): "ED recall",
    (ED_AUROC, "argmax"): "ED AUROC",
    ("over_triage", "primary"): "over-triage",
}
PAIRS_QUERY = '"FROM precision_comparison"'


def pooled_over_adapters(board: Board, ids: Ids = None) -> ReportTable:
    """A row per base model of `board`, recipe, origin of its adapters, set of cases and precision;
    of test sets, those of `board` alone.

    `ids`: the evaluations of the study.
    """
    base_models = {row.base_model for row in board}
    digests = {row.set_digest for row in board}
    records: dict[str, dict[str, str]] = {}
    notes = []
    for row in (Row(**values) for values in adapter_rows(ids)):
        column = _COLUMNS.get((row.metric, row.rule))
        on_other_test = row.evaluation_set == "test" and row.set_digest not in digests
        if column is None or row.base_model not in base_models or on_other_test:
            continue
        name = f"{row.base_model} {row.precision} {row.recipe} {row.adapter}{random_mark(row)}"
        name = f"{name}{_set_line(row.evaluation_set)}\nagainst {row.reference}"
        record = records.setdefault(
            f"{name} {row.set_digest}",
            {
                "precision": name,
                "bytes": f"x{figure(row.bytes_ratio, digits=2)}",
                "adapters": str(row.seeds),
                **dict.fromkeys(_COLUMNS.values(), ""),
            },
        )
        mean = figure(row.difference, row.low, row.high, sign=True, below=True)
        record[column] = mean if is_number(row.low) else f"{mean}\n{row.note}"
        notes.append(row.reference_note)

    return ReportTable.of(TITLE, list(records.values()), PAIRS_QUERY).noted(*notes)


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
        "ED recall": difference(row, "ed_recall"),
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
