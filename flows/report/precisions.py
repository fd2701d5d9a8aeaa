"""Models that differ in precision: 4 minus 8 bits by recipe and by training, the comparison that the
answer is about, flips, bytes against recall, and what quantisation alone changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.report.answer import Primary, bits_of, primary_of, verdict_in_words
from flows.report.figures import (
    ED_RECALL,
    cells,
    counted,
    figure,
    in_points,
    megabytes,
    p_value,
    pair_name,
    random_mark,
    recipe_name,
)
from flows.report.rows import THRESHOLD, Row, Study, interval_of, is_number, rows_of
from flows.report.table import TITLES, Chart, Mark, Record, Section, Table, along
from tasks.precisions import reference_note
from tasks.spec import ED_AUROC
from warehouse.comparison.crossed import LOWER_IS_BETTER, MARGIN
from warehouse.comparison.pools import adapter_rows
from warehouse.connect import listed

# The figures of a recipe with their rules, and their columns.
FIGURES = {
    ("accuracy", "argmax"): "accuracy",
    ("ed_recall", THRESHOLD): "ED recall",
    ("over_triage", THRESHOLD): "over-triage",
    (ED_AUROC, "argmax"): "ED AUROC",
    ("macro_f1", "argmax"): "macro-F1",
}
MEAN, TRAINING, BASELINE = "mean", "one training", "linear baseline"
OWN = "own"  # the arm of the models that were trained at the precision at which they are judged


def in_arm(recipe: str, adapter: str) -> str:
    """A recipe with the arm of a moved adapter: `tuned from 8bit, threshold kept`."""
    if adapter == OWN:
        return recipe
    return f"{recipe} {adapter}{'' if ',' in adapter else ', threshold kept'}"


# --- 4 against 8 bits -------------------------------------------------------------------------------


def recipe_table(study: Study) -> Table:
    """A line per recipe: its differences in points with their intervals, and Holm's p value of each,
    one-sided, that the loss is the margin or more. Verdicts are on the figures of which the answer
    speaks, where no claim is fixed beforehand.
    """
    verdicts = ("ED recall", "accuracy") if study.claim is None else ()
    empty = dict.fromkeys([*(f"verdict on\n{name}" for name in verdicts), *FIGURES.values()], "n/a")
    records: dict[str, Record] = {}
    for row in study.recipes:
        column = FIGURES.get((row.metric, row.rule))
        if column is None:
            continue
        name = f"{row.base_model} {row.recipe}{random_mark(row)}"
        record = records.setdefault(
            row.seed_group, {"recipe": name, "seeds": str(row.seeds), **empty}
        )
        p = f" {p_value(row.holm_p)}" if is_number(row.holm_p) else ""
        record[column] = f"{in_points(row)}{p}"
        if column in verdicts:
            # Where models learned nothing there is nothing to lose.
            none = "no linear baseline" if row.qualifies is None else "learned too little"
            record[f"verdict on\n{column}"] = (
                verdict_in_words(row) if row.qualifies else f"none: {none}"
            )

    table = Table(TITLES["recipe_table"], list(records.values()), '"FROM quantization_summary"')
    return table.noted(
        "in brackets: 95 % intervals, each for one figure, over trainings and groups of cases, with one "
        "seed over groups alone",
        "p: that the loss is 2 points or more, one-sided, by Holm over all figures of the set",
    )


def pair_table(pairs: Sequence[Row]) -> Table:
    """A row per pair of a 4-bit and an 8-bit experiment, largest loss of accuracy at 4 bits first;
    pairs without a figure last.
    """
    records = [
        {"pair": pair_name(pair)}
        | cells(pair, "accuracy_diff", "ed_recall_diff", "ed_auroc_diff", "loss_diff")
        for pair in sorted(
            pairs, key=lambda one: (one.accuracy_diff is None, one.accuracy_diff or 0)
        )
    ]
    return Table(TITLES["pair_table"], records, '"FROM quantization_comparison"')


def primary_chart(primary: Primary | None, *others: Primary) -> Chart | None:
    """The comparison that the answer is about, and others with its sides: the mean with interval and
    margin, and each training.
    """
    if primary is None or not is_number(primary.row.difference):
        return None
    return _forest("", " minus ".join(map(bits_of, primary.sides)), [primary, *others])


def _forest(title: str, sides: str, lines: Sequence[Primary]) -> Chart:
    """A line for each recipe: its mean, each of several trainings, and the linear baseline beside a
    recipe that learned something, by the same rule: how much there is to lose.
    """
    marks: list[Mark] = []
    for line in lines:
        row = line.row
        label = f"{line.name.replace(' ', chr(10), 1)}, {counted(row.seeds, 'seed')}"
        ends = (row.difference, row.low, row.high)
        middle, low, high = (100 * end if is_number(end) else None for end in ends)
        own = [{"series": MEAN, **along("x", (middle, low, high))}]
        if len(line.seeds) > 1:
            own += [{"series": TRAINING, "x": 100 * value} for value in line.seeds.values()]
        if getattr(row, "qualifies", None) and is_number(row.linear_value):
            own.append({"series": BASELINE, "x": 100 * (row.linear_value - row.value_8bit)})
        marks += [{"label": label} | mark for mark in own]

    marks.sort(key=lambda mark: (MEAN, TRAINING, BASELINE).index(mark["series"]))
    first = lines[0].row
    names = {metric: name for (metric, _), name in FIGURES.items()} | {"ed_f2": "ED F2"}
    rule = " by threshold" if first.rule == THRESHOLD else ""
    edge = 100 * first.margin
    options = {
        "axis": {"title": f"{names[first.metric]}{rule}: {sides}, points"},
        "lines": [0, edge if first.metric in LOWER_IS_BETTER else -edge],
        "margin": edge,
    }
    return Chart("dots", title, marks, options)


def forest(study: Study) -> Section:
    """Forest plots of 4 minus 8 bits, recipe by recipe, with the margin, each training, and the
    linear baseline minus 8 bits by the same rule.
    """
    section = Section(values={"margin": 100 * MARGIN})
    if not study.pairs:
        return section

    section.tables = [recipe_table(study), pair_table(study.pairs)]
    for (metric, rule), title in FIGURES.items():
        rows = [row for row in study.recipes if (row.metric, row.rule) == (metric, rule)]
        lines = [primary_of(row, study) for row in rows if is_number(row.difference)]
        if lines:
            section.charts.append(_forest(title, "4 minus 8 bits", lines))
    return section


def flips(study: Study) -> Section:
    """Decisions that a change of precision turns, and a chart of the emergencies that each loses and
    gains.
    """
    by_id = {row.evaluation_id: row for row in study.board}
    rows = [
        row
        for row in rows_of("flips", only=study.board_ids)
        if row.evaluation_before in by_id and row.evaluation_after in by_id
    ]
    if not rows:
        return Section()

    records = []
    marks: list[Mark] = []
    for row in rows:
        row.random_weights = by_id[row.evaluation_after].random_weights
        change = row.change
        if change.startswith("adapter moved") and "," not in change:
            change += ", threshold kept"
        flagged = "no dropout"
        if row.dropout_cases:
            count = row.flips_flagged + row.flips_not_flagged
            flagged = f"{row.flips_flagged} of {count} (of {row.dropout_cases} cases)"
        records.append(
            {"pair": f"{pair_name(row)}, {change}", "flips": f"{row.flips} of {row.cases}"}
            | cells(row, "correct_to_wrong", "wrong_to_correct")
            | {"ED lost": f"{row.ed_lost} of {row.ed_cases}"}
            | cells(row, "ed_gained", "harmless", "flip_cost", digits=0)
            | {"flagged": flagged}
        )
        # On two lines: a recipe's name is as long as a model's and a change's.
        change = change.removeprefix("adapter moved ").replace(", ", "\n")
        label = f"{row.base_model} {change}\n{recipe_name(row.recipe, row.seed)}{random_mark(row)}"
        marks.append({"label": label, "series": "lost", "x": -row.ed_lost})
        marks.append({"label": label, "series": "gained", "x": row.ed_gained})

    section = Section([Table(TITLES["flips"], records, '"FROM flips"')])
    section.draw("dots", "", marks, axis={"title": "emergencies lost and gained"}, lines=[0])
    return section


# --- Bytes against recall ---------------------------------------------------------------------------

APART = 1.02  # factor between two points of one size


def frontier(study: Study) -> Section:
    """A plane for each base model: the models of the view `frontier` by the rules that all share, an
    adapter's own and its moved arm at its own precision once.
    """
    section = Section(values={"gate": ED_RECALL})
    by_id = {row.evaluation_id: row for row in study.models if is_number(row.ed_recall)}
    landed = rows_of("frontier", only=study.board_ids)
    own_ids = {row.evaluation_id for row in landed if row.adapter == OWN}
    rows = [
        row
        for row in landed
        if row.evaluation_id in by_id and (row.adapter == OWN or row.evaluation_id not in own_ids)
    ]
    records = []
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        evaluation = by_id[row.evaluation_id]
        is_moved = row.adapter.partition(",")[0] != f"from {row.precision}"
        recipe = in_arm(row.recipe, row.adapter) if is_moved else row.recipe
        of_model = marks.setdefault(row.base_model, [])
        same_size = sum(mark["bytes"] == row.stored_bytes for mark in of_model)
        mark = {"series": row.precision, "kind": f"{recipe}{random_mark(row)}"}
        mark |= {"bytes": row.stored_bytes, "x": APART**same_size * row.stored_bytes / 1e6}
        of_model.append(mark | along("y", interval_of(evaluation, "ed_recall")))
        name = f"{row.base_model} {row.precision} {recipe_name(recipe, row.seed)}{random_mark(row)}"
        dominated = row.dominated_by or ("n/a" if row.dominated is None else "-")
        records.append(
            {"model": name, "MB": megabytes(row.stored_bytes), "dominated by": dominated}
            | cells(row, "bits_per_weight")
            | cells(evaluation, "ed_recall", "over_triage", "macro_f1")
        )

    for base_model, of_model in marks.items():
        sizes = [mark["x"] for mark in of_model]
        domain = (0.8 * min(sizes), 1.25 * max(sizes))
        x = {"title": "stored size, MB", "domain": domain, "log": True}
        section.draw(
            "points", base_model, of_model, x=x, y={"title": "ED recall"}, lines=[ED_RECALL]
        )
    if records:
        title = (
            "Bytes, ED recall, over-triage and macro-F1; dominated (primary rule): another precision "
            "needs no more bytes, is as good in ED recall and macro-F1, and better in one of the three"
        )
        section.tables = [Table(title, records, '"FROM frontier"').noted(*(r.note for r in rows))]
    return section


# --- Quantisation alone, and other precisions -------------------------------------------------------

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
PAIRS_QUERY = '"FROM precision_comparison"'
OVER_ADAPTERS = {
    ("accuracy", "argmax"): "accuracy",
    ("ed_recall", "primary"): "ED recall",
    (ED_AUROC, "argmax"): "ED AUROC",
    ("over_triage", "primary"): "over-triage",
}


def fidelity(study: Study) -> Section:
    """What quantisation alone changes, and every precision against its reference: the mean over a
    recipe's adapters, and each pair. Of further sets all rows about the board's base models.
    """
    measured = rows_of(
        MEASUREMENTS.format(
            base_models=listed({row.base_model for row in study.board}),
            datasets=listed({row.dataset_digest for row in study.board if row.dataset_digest}),
            set_digests=listed({row.set_digest for row in study.board}),
        )
    )
    records = [
        {
            "variant": f"{row.base_model} {row.precision}{random_mark(row)}",
            "against": row.reference_precision,
            "KL over": f"{row.distribution}, {row.cases} of {row.set_cases} cases",
            "dataset": (row.dataset_digest or "")[:6],
            "mean": _with_error(row.kl_mean, row.kl_mean_se, 5),
        }
        | cells(row, "kl_median", "kl_p95", "kl_p99", "kl_p999", "kl_max", digits=5)
        | {
            "same top": _with_error(row.same_top1, row.same_top1_se, 3),
            "perplexity ratio": _with_error(row.perplexity_ratio, row.perplexity_ratio_se, 4),
        }
        for row in measured
    ]
    references = (reference_note(row.reference_precision) for row in measured)
    alone = Table(TITLES["measured"], records, "quantization_alone").noted(*references)

    means: dict[tuple[str, ...], Record] = {}
    notes = []
    for row in _of_board(study, [Row(**values) for values in adapter_rows(study.ids)]):
        column = OVER_ADAPTERS.get((row.metric, row.rule))
        if column is None:
            continue
        recipe = in_arm(row.recipe, row.adapter)
        name = f"{row.base_model} {row.precision} {recipe}{random_mark(row)}"
        record = means.setdefault(
            (name, row.evaluation_set, row.set_digest, row.reference),
            {
                "precision": name,
                "against": row.reference,
                "set": row.evaluation_set,
                "bytes": f"x{figure(row.bytes_ratio, digits=2)}",
                "adapters": str(row.seeds),
                **dict.fromkeys(OVER_ADAPTERS.values(), ""),
            },
        )
        record[column] = figure(row.difference, row.low, row.high, sign=True)
        notes += [row.reference_note, None if is_number(row.low) else row.note]
    over_adapters = Table(TITLES["over_adapters"], list(means.values()), PAIRS_QUERY)

    rows = _of_board(study, rows_of("precision_comparison", only=study.ids))
    pairs = []
    for row in rows:
        recipe = in_arm(row.recipe, row.adapter)
        name = f"{row.base_model} {row.precision} {recipe_name(recipe, row.seed)}{random_mark(row)}"
        pairs.append(
            {"precision": name, "against": row.reference, "set": row.evaluation_set}
            | cells(row, "bits_per_weight", "accuracy_diff", "ed_recall_diff")
            | cells(row, "over_triage_diff", "loss_diff")
        )
    against = Table(TITLES["against_reference"], pairs, PAIRS_QUERY)
    tables = [alone, over_adapters.noted(*notes), against.noted(*(row.note for row in rows))]
    return Section([table for table in tables if len(table)])


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    """A figure, with its standard error where it was measured."""
    text = figure(value, digits=digits)
    return text if error is None else f"{text} ± {error:.{digits}f}"


def _of_board(study: Study, rows: Sequence[Row]) -> list[Row]:
    """Rows about the base models of the board: on its test set, and on all further sets."""
    base_models = {row.base_model for row in study.board}
    digest = study.board[0].set_digest
    return [
        row
        for row in rows
        if row.base_model in base_models
        and (row.evaluation_set != "test" or row.set_digest == digest)
    ]
