"""Bytes against ED recall, at every precision: the rows of the view
`frontier` with their intervals.
"""

from __future__ import annotations

from collections.abc import Iterator

from flows.html_report.drawing import SHAPES
from flows.html_report.marks import Axis, PlanePoint, points
from flows.html_report.study import Panel, ReportedStudy, Section, and_others, panel_name, some
from flows.report.figures import ed_recall_figure, figure, random_mark, recipe_name
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, Row, rows_as
from tasks.judging.gate_thresholds import ED_RECALL

# Factor between two points of one size.
APART = 1.02
OWN = "own"  # the arm of the models that were trained at the precision at which they are judged
TRAINED = "Each point is a trained model"
TRAINED_AND_MOVED = (
    "Each point is a trained model or, where its recipe says from which precision, an adapter that "
    "was moved to another precision after its training"
)
READING = (
    "its stored size (a logarithmic axis), and the share of emergencies that its own decision rule "
    "sends to ED, with the 95 % interval. The dashed line is the gate, "
    f"{ED_RECALL:g}. Up and left is better, but recall alone is easy: see over-triage below. Models "
    "of one size stand a little apart; the table has the sizes."
)
MISSING = (
    "No trained model of this study has a stored size and a decision by its primary rule. A sweep "
    "gives them, e.g. triage sweep demo."
)


class StoredModel(Row):
    """A row of `frontier` with the interval of its evaluation."""

    @property
    def is_moved(self) -> bool:
        """An arm of a moved adapter also has the model that was trained, at its own precision."""
        return self.adapter not in (OWN, f"from {self.precision}")

    @property
    def full_recipe(self) -> str:
        """The recipe and, of a moved adapter, the precision that it was trained at."""
        return f"{self.recipe} {self.adapter}" if self.is_moved else self.recipe

    @property
    def kind(self) -> str:
        """What a point's shape stands for."""
        return f"{self.full_recipe}{random_mark(self)}"


def bytes_and_recall(study: ReportedStudy) -> Section:
    """A plane for each base model."""
    rows = _rows(study)
    heading = "Bytes against ED recall"
    if not rows:
        return Section("frontier", heading, missing=MISSING)

    base_models = list(dict.fromkeys(row.base_model for row in rows))
    panels = [
        _panel(study, name, [row for row in rows if row.base_model == name]) for name in base_models
    ]
    point = TRAINED_AND_MOVED if any(row.is_moved for row in rows) else TRAINED
    reading = f"{point}: {READING}"
    return Section(
        "frontier", heading, reading, _findings(study, rows), panels, [_table(study, rows)]
    )


def _rows(study: ReportedStudy) -> list[StoredModel]:
    """One row per evaluation: an adapter's own and its moved arm share that at its own precision,
    of which the own row stays.
    """
    rows = rows_as(StoredModel, "frontier", only=study.ids)
    own_ids = {row.evaluation_id for row in rows if row.adapter == OWN}
    unique = [row for row in rows if row.adapter == OWN or row.evaluation_id not in own_ids]
    by_id = study.by_id
    return [row for row in unique if row.evaluation_id in by_id and row.ed_recall is not None]


def _panel(study: ReportedStudy, base_model: str, rows: list[StoredModel]) -> Panel:
    all_kinds = list(dict.fromkeys(row.kind for row in rows))
    # One shape for all rather than one shape for two kinds.
    kinds = all_kinds if len(all_kinds) <= len(SHAPES) else [""]
    marks = [
        _point(row, study.by_id[row.evaluation_id], kinds, factor)
        for row, factor in zip(rows, _spreading_factors(rows), strict=True)
    ]
    precisions = {row.precision for row in rows}
    names = [name for name in study.precisions if name in precisions]
    names += sorted(precisions - set(names))
    sizes = [row.x or 0 for row in marks]
    x = Axis("stored size, MB", (0.8 * min(sizes), 1.25 * max(sizes)), log=True)
    y = Axis.of_shares("ED recall", [*(row.y_low for row in marks), *(row.y for row in marks), 1])
    drawing = points(marks, x, y, names, kinds, lines=[ED_RECALL])
    texts = [_text(study, row) for row in rows]
    alt = f"Stored size against ED recall of {base_model}: {some(texts)}. Gate: {ED_RECALL:g}."

    return Panel(panel_name("frontier", base_model), base_model, alt, drawing)


def _spreading_factors(rows: list[StoredModel]) -> list[float]:
    """By what a size is multiplied so that models of one size can be told apart."""
    sizes = [row.stored_bytes for row in rows]
    places = [sizes[:place].count(size) for place, size in enumerate(sizes)]
    return [
        APART ** (place - (sizes.count(size) - 1) / 2)
        for place, size in zip(places, sizes, strict=True)
    ]


def _point(
    row: StoredModel, evaluation: EvaluationRow, kinds: list[str], factor: float
) -> PlanePoint:
    kind = row.kind if row.kind in kinds else ""
    low = evaluation.ed_recall_low
    high = evaluation.ed_recall_high
    size = factor * row.stored_bytes / 1e6
    return PlanePoint(row.precision, size, row.ed_recall, y_low=low, y_high=high, kind=kind)


def _name(row: StoredModel) -> str:
    recipe = recipe_name(row.full_recipe, row.seed)
    return f"{row.base_model} {row.precision} {recipe}{random_mark(row)}"


def _recall(study: ReportedStudy, row: StoredModel) -> str:
    evaluation = study.by_id[row.evaluation_id]
    return ed_recall_figure(row.ed_recall, evaluation.ed_recall_low, evaluation.ed_recall_high)


def _text(study: ReportedStudy, row: StoredModel) -> str:
    return f"{_name(row)}, {row.stored_bytes / 1e6:.1f} MB: {_recall(study, row)}"


def _findings(study: ReportedStudy, rows: list[StoredModel]) -> list[str]:
    best_row = max(rows, key=lambda row: row.ed_recall or 0)
    ties = and_others([row.ed_recall for row in rows], best_row.ed_recall)
    trained_rows = [row for row in rows if not row.is_moved]
    moved_rows = [row for row in rows if row.is_moved]

    return [
        f"Highest ED recall: {_text(study, best_row)}{ties}.",
        *_reach(study, trained_rows, "trained models"),
        *_reach(study, moved_rows, "moved adapters"),
    ]


def _reach(study: ReportedStudy, rows: list[StoredModel], name: str) -> Iterator[str]:
    """How many of `rows`, if there are any, reach the gate."""
    if not rows:
        return

    reach = sum((row.ed_recall or 0) >= ED_RECALL for row in rows)
    hold = sum((study.by_id[row.evaluation_id].ed_recall_low or 0) >= ED_RECALL for row in rows)
    yield (
        f"{reach} of {len(rows)} {name} reach the gate of {ED_RECALL:g} by their point, "
        f"{hold} with the whole interval."
    )


def _table(study: ReportedStudy, rows: list[StoredModel]) -> ReportTable:
    records = [
        {
            "model": _name(row),
            "MB": f"{row.stored_bytes / 1e6:.1f}",
            "bits per weight": figure(row.bits_per_weight, digits=2),
            "ED recall": _recall(study, row),
            "macro F1": figure(row.macro_f1),
            "dominated by": row.dominated_by or "-",
        }
        for row in rows
    ]
    return ReportTable.of("Bytes, ED recall and macro F1", records)
