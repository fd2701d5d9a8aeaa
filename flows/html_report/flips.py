"""Emergencies that a change of precision loses and gains."""

from __future__ import annotations

from flows.html_report.marks import Bar, bars
from flows.html_report.study import Panel, ReportedStudy, Section, chart_labels, some
from flows.report.figures import figure, random_mark, recipe_name
from flows.report.precision import flips as flips_table
from flows.report.typed_rows import Row, rows_of

LOST = "lost"
GAINED = "gained"
READING = (
    "Emergencies that the primary rule sends to ED before the change and not after it (lost, to "
    "the left), and the other way round (gained, to the right). The same emergencies are in every "
    "line of a test set, so lines are not independent."
)
MISSING = (
    "No two evaluations of this study differ in precision alone. A sweep at both widths gives "
    "them, e.g. triage sweep demo."
)


def flips(study: ReportedStudy) -> Section:
    """One chart of all changes of precision."""
    by_id = study.by_id
    rows = [
        row
        for row in rows_of("flips", only=study.ids)
        if row.evaluation_before in by_id and row.evaluation_after in by_id
    ]
    heading = "Flips: emergencies lost and gained"
    if not rows:
        return Section("flips", heading, missing=MISSING)

    drawing = bars(_bars(study, rows), "emergencies", [LOST, GAINED])
    texts = [
        f"{_name(study, row)}: {row.ed_lost} lost, {row.ed_gained} gained of {row.ed_cases}"
        for row in rows
    ]
    panel = Panel("flips", "", f"Emergencies lost and gained: {some(texts)}.", drawing)

    return Section(
        "flips", heading, READING, _findings(study, rows), [panel], [flips_table(study.board)]
    )


def _name(study: ReportedStudy, row: Row) -> str:
    return f"{row.base_model} {_recipe(study, row)}, {row.change}"


def _recipe(study: ReportedStudy, row: Row) -> str:
    mark = random_mark(study.by_id[row.evaluation_after])
    return f"{recipe_name(row.recipe, row.seed)}{mark}"


def _bars(study: ReportedStudy, rows: list[Row]) -> list[Bar]:
    # On two lines: a recipe's name is as long as a model's and a change's.
    names = [
        f"{row.base_model} {row.change.removeprefix('adapter moved ')}\n{_recipe(study, row)}"
        for row in rows
    ]
    labels = chart_labels(names)
    return [
        bar
        for name, row in zip(names, rows, strict=True)
        for bar in (
            Bar(labels[name], LOST, -row.ed_lost),
            Bar(labels[name], GAINED, row.ed_gained),
        )
    ]


def _findings(study: ReportedStudy, rows: list[Row]) -> list[str]:
    """The largest loss, with the interval of the difference that it makes."""
    worst = max(rows, key=lambda row: row.ed_lost - row.ed_gained)
    lead = (
        f"Most lost, net: {_name(study, worst)}, {worst.ed_lost} lost and {worst.ed_gained} gained"
    )
    pair = next((pair for pair in study.pairs if _is_pair(study, worst, pair)), None)
    if pair is None or worst.change != "8 to 4 bits":
        return [f"{lead} of {worst.ed_cases}."]

    interval = figure(pair.ed_recall_diff, pair.ed_recall_low, pair.ed_recall_high, sign=True)
    return [f"{lead} of {worst.ed_cases}; in ED recall {interval}."]


def _is_pair(study: ReportedStudy, row: Row, pair: Row) -> bool:
    """Whether a change from 8 to 4 bits is that of the pair."""
    after = study.by_id[row.evaluation_after]
    of_row = (row.base_model, row.recipe, row.seed, after.random_weights)
    return of_row == (pair.base_model, pair.recipe, pair.seed, pair.random_weights)
