"""Sections about two evaluations that differ in precision alone: 4 minus 8 bits, and flips."""

from __future__ import annotations

from flows.html_report.charts import Mark, axis_of, bars, dots
from flows.html_report.study import ReportedStudy, Section, along
from flows.report.figures import (
    counted,
    figure,
    in_points,
    is_number,
    random_mark,
    recipe_name,
)
from flows.report.pairs import flips, pairs_on, quantization, recipe_table
from flows.report.rules import THRESHOLD
from flows.report.typed_rows import rows_of
from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.crossed import LOWER_IS_BETTER, MARGIN

MARGIN_POINTS = 100 * MARGIN
OF_RECIPES, OF_PAIRS, OF_BASELINE = "recipe", "one training", "baseline"
# Recipes by their metric and rule, and the pairs, which have figures by the recipe's own rule alone.
PANELS = (
    ("Accuracy", "accuracy", "argmax", True),
    ("ED recall by own rule", "ed_recall", "primary", True),
    ("ED recall by threshold", "ed_recall", THRESHOLD, False),
    ("Over-triage by threshold", "over_triage", THRESHOLD, False),
    ("ED AUROC", ED_AUROC, "argmax", True),
)


def forest(study: ReportedStudy, section: Section) -> None:
    """Forest plots of 4 minus 8 bits, recipe by recipe and pair by pair, with the margin, and of the
    linear baseline minus 8 bits by the same rule.
    """
    section.values = {"margin": MARGIN_POINTS}
    if not study.pairs:
        return

    recipes = pairs_on(study.board, study.recipes)
    section.tables += [recipe_table(recipes, whole=True), quantization(study.pairs)]
    for title, metric, rule, has_pairs in PANELS:
        marks = []
        for row in recipes:
            if (row.metric, row.rule) != (metric, rule):
                continue
            label = (
                f"{row.base_model}\n{row.recipe}, {counted(row.seeds, 'seed')}{random_mark(row)}"
            )
            marks.append(_dot(label, OF_RECIPES, row.difference, row.low, row.high))
            if row.qualifies and is_number(row.linear_value) and is_number(row.value_8bit):
                marks.append(
                    _dot(label, OF_BASELINE, row.linear_value - row.value_8bit, None, None)
                )
        for pair in study.pairs if has_pairs else ():
            recipe = f"{recipe_name(pair.recipe, pair.seed)}{random_mark(pair)}"
            ends = [getattr(pair, f"{metric}_{end}") for end in ("diff", "low", "high")]
            marks.append(_dot(f"{pair.base_model}\n{recipe}", OF_PAIRS, *ends))

        marks = [mark for mark in marks if mark["x"] is not None]
        if not marks:
            continue
        drawn = {mark["series"] for mark in marks}
        series = [name for name in (OF_RECIPES, OF_PAIRS, OF_BASELINE) if name in drawn]
        edge = MARGIN_POINTS if metric in LOWER_IS_BETTER else -MARGIN_POINTS
        axis = axis_of(f"{title}: 4 minus 8 bits, points")
        drawing = dots(marks, axis, series, [0, edge], MARGIN_POINTS)
        texts = [_text(mark) for mark in marks if mark["series"] != OF_BASELINE]
        section.show(title, f"Forest plot of {title}, 4 minus 8 bits in points", texts, drawing)


def _dot(label: str, series: str, *difference: float | None) -> Mark:
    value, low, high = (100 * end if is_number(end) else None for end in difference)
    return {"label": label, "series": series, **along("x", (value, low, high))}


def _text(mark: Mark) -> str:
    ends = (mark[end] and mark[end] / 100 for end in ("x", "x_low", "x_high"))
    return f"{mark['label'].replace(chr(10), ' ')} {in_points(*ends)}"


def flip_bars(study: ReportedStudy, section: Section) -> None:
    """One chart of all changes of precision: the emergencies that each loses and gains."""
    by_id = {row.evaluation_id: row for row in study.board}
    rows = [
        row
        for row in rows_of("flips", only=study.ids)
        if row.evaluation_before in by_id and row.evaluation_after in by_id
    ]
    if not rows:
        return

    marks = []
    texts = []
    for row in rows:
        mark = random_mark(by_id[row.evaluation_after])
        recipe = f"{recipe_name(row.recipe, row.seed)}{mark}"
        row.name = f"{row.base_model} {recipe}, {row.change}"
        texts.append(f"{row.name}: {row.ed_lost} lost, {row.ed_gained} gained of {row.ed_cases}")
        # On two lines: a recipe's name is as long as a model's and a change's.
        change = row.change.removeprefix("adapter moved ")
        label = f"{row.base_model} {change}\n{recipe}"
        marks.append({"label": label, "series": "lost", "x": -row.ed_lost})
        marks.append({"label": label, "series": "gained", "x": row.ed_gained})

    drawing = bars(marks, "emergencies", ["lost", "gained"])
    section.show("", "Emergencies lost and gained", texts, drawing)

    worst = max(rows, key=lambda row: row.ed_lost - row.ed_gained)
    finding = (
        f"Most lost, net: {worst.name}, {worst.ed_lost} lost and {worst.ed_gained} gained of "
        f"{worst.ed_cases}"
    )
    for pair in study.pairs:
        changed = (pair.evaluation_8bit, pair.evaluation_4bit)
        if changed == (worst.evaluation_before, worst.evaluation_after):
            ends = (pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high)
            finding += f"; in ED recall {figure(*ends, sign=True)}"

    section.findings.append(f"{finding}.")
    section.tables.append(flips(study.board))
