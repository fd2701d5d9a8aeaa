"""Studies as tables: all of them, and two side by side."""

from __future__ import annotations

from collections.abc import Sequence

from flows.report.figures import ed_recall_figure, figure
from flows.report.leaderboard import by_test_set
from flows.report.names import listed_name, verdict
from flows.report.study import StudyRow, evaluation_ids
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, leaderboard_rows

STUDIES = "Studies, the one of the last sweep first"
NONE = "-"
Key = tuple[str, bool | None]


def studies_table(rows: Sequence[StudyRow]) -> ReportTable:
    """One row per study."""
    return ReportTable.of(STUDIES, [_study_record(row) for row in rows])


def _study_record(row: StudyRow) -> dict[str, str]:
    return {
        "study": row.study,
        "cases": NONE if row.dataset is None else f"{row.dataset} {row.dataset_digest}",
        "train": figure(row.train_cases, digits=0),
        "test": figure(row.test_cases, digits=0),
        "experiments": str(row.experiments),
        "evaluations": str(row.evaluations),
        "sweeps": str(row.sweeps),
        "first sweep": NONE if row.first_sweep is None else f"{row.first_sweep:%Y-%m-%d %H:%M}",
        "last sweep": NONE if row.last_sweep is None else f"{row.last_sweep:%Y-%m-%d %H:%M}",
    }


def side_by_side(first_study: StudyRow, second_study: StudyRow) -> ReportTable:
    """One row per experiment of either study, on the test set that each judged last.

    Differences have no interval here: only two evaluations of the same cases could be paired.
    """
    boards = [_latest_board(first_study.study), _latest_board(second_study.study)]
    names = list(dict.fromkeys(key for board in boards for key in board))
    records = [
        _pair_record(first_study, second_study, boards[0].get(key), boards[1].get(key))
        for key in names
    ]
    title = f"{_description(first_study, boards[0])}; {_description(second_study, boards[1])}"
    return ReportTable.of(title, records, '"FROM leaderboard"')


def _latest_board(study: str) -> dict[Key, EvaluationRow]:
    sets = by_test_set(leaderboard_rows(evaluation_ids(study)))
    return {(row.cell_id, row.random_weights): row for row in (sets[0] if sets else [])}


def _description(study: StudyRow, board: dict[Key, EvaluationRow]) -> str:
    if not board:
        return f"{study.study}: no finished experiment"
    row = next(iter(board.values()))
    dataset = f" of dataset {row.dataset_digest}" if row.dataset_digest else ""
    return f"{study.study}: {row.cases} test cases{dataset}"


def _pair_record(
    first_study: StudyRow,
    second_study: StudyRow,
    first_row: EvaluationRow | None,
    second_row: EvaluationRow | None,
) -> dict[str, str]:
    named_row = first_row or second_row
    assert named_row is not None
    first_figures = _figures(first_row)
    second_figures = _figures(second_row)
    record = {"experiment": listed_name(named_row)}
    for name in first_figures:
        record[f"{name}\n{first_study.study}"] = first_figures[name]
        record[f"{name}\n{second_study.study}"] = second_figures[name]

    return record | {"the two": _relation(first_row, second_row)}


def _figures(row: EvaluationRow | None) -> dict[str, str]:
    if row is None:
        return dict.fromkeys(("accuracy", "ED recall", "gates"), NONE)
    return {
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high),
        "ED recall": ed_recall_figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high),
        "gates": verdict(row).replace("\n", " "),
    }


def _relation(first: EvaluationRow | None, second: EvaluationRow | None) -> str:
    """Whether two rows may be compared, in a few words."""
    if first is None or second is None:
        return "in one study only"
    if first.evaluation_id == second.evaluation_id:
        return "one evaluation, in both"
    if first.set_digest != second.set_digest:
        return "on other cases: not comparable"
    if first.training_id == second.training_id:
        return "one training, judged otherwise"
    return "the same cases, other training"
