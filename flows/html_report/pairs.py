"""Sections about two evaluations that differ in precision alone: 4 minus 8 bits, and flips."""

from __future__ import annotations

from flows.html_report.charts import Mark, axis_of, bars, dots
from flows.html_report.study import ReportedStudy, Section, along
from flows.report.answer import points
from flows.report.figures import counted, figure, is_number, random_mark, recipe_name
from flows.report.pairs import flips, headline, quantization
from flows.report.typed_rows import rows_of
from tasks.judging.point_metrics import ED_AUROC
from warehouse.comparison.crossed import MARGIN

MARGIN_POINTS = 100 * MARGIN
# By the rules of the pairs' intervals.
FIGURES = (
    ("accuracy", "argmax", "Accuracy"),
    ("ed_recall", "primary", "ED recall"),
    (ED_AUROC, "argmax", "ED AUROC"),
)


def forest(study: ReportedStudy, section: Section) -> None:
    """Forest plots of accuracy, ED recall and the AUROC of emergencies, pair by pair and pooled,
    with the margin of two points.
    """
    section.values = {"margin": MARGIN_POINTS}
    if not study.pairs:
        return

    section.findings.append(headline(study.pairs))
    section.tables.append(quantization(study.pairs))
    for metric, rule, title in FIGURES:
        pooled = pooled_dots(study, metric, rule)
        marks = list(pooled)
        for pair in study.pairs:
            recipe = f"{recipe_name(pair.recipe, pair.seed)}{random_mark(pair)}"
            ends = [getattr(pair, f"{metric}_{end}") for end in ("diff", "low", "high")]
            marks.append(_dot(f"{pair.base_model}\n{recipe}", "a pair", *ends))
        marks = [mark for mark in marks if mark["x"] is not None]
        if not marks:
            continue

        series = ["mean over seeds", "a pair"] if pooled else ["a pair"]
        axis = axis_of(f"{title}: 4 minus 8 bits, points")
        drawing = dots(marks, axis, series, [0, -MARGIN_POINTS], MARGIN_POINTS)
        texts = [_text(mark) for mark in marks]
        section.show(title, f"Forest plot of {title}, 4 minus 8 bits in points", texts, drawing)


def pooled_dots(study: ReportedStudy, metric: str, rule: str) -> list[Mark]:
    """The recipes' means over their seeds, on the shown cases."""
    digests = {row.set_digest for row in study.board}
    marks = []
    for row in study.recipes:
        is_shown = row.evaluation_set == "test" and row.set_digest in digests
        if not is_shown or (row.metric, row.rule) != (metric, rule) or row.seeds < 2:
            continue
        label = f"{row.base_model}\n{row.recipe}, {counted(row.seeds, 'seed')}{random_mark(row)}"
        marks.append(_dot(label, "mean over seeds", row.difference, row.low, row.high))

    return marks


def _dot(label: str, series: str, *difference: float | None) -> Mark:
    value, low, high = (100 * end if is_number(end) else None for end in difference)
    return {"label": label, "series": series, **along("x", (value, low, high))}


def _text(mark: Mark) -> str:
    label = mark["label"].replace("\n", " ")
    ends = [points(mark[end] / 100) for end in ("x_low", "x_high") if mark[end] is not None]
    bracket = f" [{', '.join(ends)}]" if len(ends) == 2 else ""
    return f"{label} {points(mark['x'] / 100)}{bracket}"


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
