"""Studies: their evaluations, their test sets, and two of them side by side."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Collection, Sequence
from pathlib import Path

from flows.report.figures import ed_recall_figure, figure, listed_name, percent, verdict
from flows.report.gates import at_prevalence
from flows.report.leaderboard import by_test_set
from flows.report.table import ReportTable
from flows.report.typed_rows import (
    EvaluationRow,
    Row,
    further_rows,
    leaderboard_rows,
    rows_of,
)
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import FILE, REBUILD, quoted, warehouse_path

EARLIER = "earlier"  # the study of results that no sweep names


def study_rows() -> list[Row]:
    """Every study, the one of the last sweep first."""
    return rows_of("study")


def find_study(name: str | None = None) -> Row | None:
    """The study of this name; without one, that of the last sweep, or None where there is none.

    Raises BadInput, with the nearest name or where its results are, for a study that is not there.
    """
    return select_study(study_rows(), name)


def select_study(studies: Collection[Row], name: str | None) -> Row | None:
    """`find_study` among these rows."""
    if name is None:
        return next(iter(studies), None)
    by_name = {row.study: row for row in studies}
    if name not in by_name:
        raise BadInput(_unknown(name, list(by_name)))
    return by_name[name]


def _unknown(name: str, studies: Collection[str]) -> str:
    path = warehouse_path()
    sentence = f"The warehouse {path} has no study {name!r}"
    if _has_landed(name):
        return (
            f"{sentence}, but its results are in {home() / 'landing'}: `{REBUILD}` fills this file "
            f"again from there, or set TRIAGE_WAREHOUSE to {_other_file(path)}."
        )
    if not studies:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."

    nearest = difflib.get_close_matches(name, studies, n=1, cutoff=0.5)
    if nearest:
        return f"{sentence}; did you mean {nearest[0]}? triage warehouse studies lists them."

    return f"{sentence}; it has {', '.join(studies)}. Set TRIAGE_WAREHOUSE to read another file."


def _has_landed(study: str) -> bool:
    """Whether a sweep of this name landed in TRIAGE_HOME, for another warehouse than this one."""
    # With the date, since the name may be the beginning of another, as `tuned` is of `tuned-best`.
    date = "[0-9]" * 8
    return any((home() / "landing").glob(f"sweep-{glob.escape(study)}-{date}-*"))


def _other_file(path: Path) -> str:
    """The file that is filled where the command is typed outside a checkout, unless `path` is it."""
    other = home() / FILE
    return str(other) if other != path and other.is_file() else "the file that its sweep filled"


def evaluations_of_study(name: str | None = None) -> list[str]:
    """evaluation_ids of a study; without a name, of that of the last sweep."""
    study = find_study(name)
    return [] if study is None else evaluation_ids(study.study)


def evaluation_ids(study: str) -> list[str]:
    """evaluation_ids of the study of exactly this name."""
    return _ids(f"study_member WHERE kind = 'evaluation' AND study = {quoted(study)}")


def evaluations_of_sweep(sweep: str) -> list[str]:
    """evaluation_ids that a sweep made or found."""
    return _ids(
        f"(FROM sweep_member JOIN landed USING (id)) "
        f"WHERE kind = 'evaluation' AND sweep_id = {quoted(sweep)}"
    )


def _ids(clauses: str) -> list[str]:
    return [row.id for row in rows_of(clauses)]


STUDIES = "Studies, the one of the last sweep first"
NONE = "-"
Key = tuple[str, bool | None]


def studies_table(rows: Sequence[Row]) -> ReportTable:
    """One row per study."""
    return ReportTable.of(STUDIES, [_study_record(row) for row in rows])


def _study_record(row: Row) -> dict[str, str]:
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


def side_by_side(first_study: Row, second_study: Row) -> ReportTable:
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


def _description(study: Row, board: dict[Key, EvaluationRow]) -> str:
    if not board:
        return f"{study.study}: no finished experiment"
    row = next(iter(board.values()))
    dataset = f" of dataset {row.dataset_digest}" if row.dataset_digest else ""
    return f"{study.study}: {row.cases} test cases{dataset}"


def _pair_record(
    first_study: Row,
    second_study: Row,
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


SOURCES = (
    "On further evaluation sets, source by source "
    "(thresholds from calibration; never used for choosing)"
)


def by_source(
    board: list[EvaluationRow],
    prevalence: float | None = None,
    ids: Collection[str] | None = None,
) -> ReportTable:
    """One row per experiment of `board` and evaluation set other than test.

    `ids`: the evaluations of the study. `prevalence` restates ED precision and F2
    at another share of emergencies.
    """
    return ReportTable.of(
        SOURCES,
        [_record(row, prevalence) for row in further_rows(board, ids)],
        '"FROM evaluation_summary"',
    )


def _record(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    share = percent(row.ed_prevalence)
    return {
        "set": f"{row.evaluation_set}\n{row.cases} cases, {share} ED",
        "experiment": listed_name(row),
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high, below=True),
        "macro F1": figure(row.macro_f1),
        "ED recall": ed_recall_figure(
            row.ed_recall, row.ed_recall_low, row.ed_recall_high, below=True
        ),
        **at_prevalence(row, prevalence),
        "over-triage": figure(
            row.over_triage, row.over_triage_low, row.over_triage_high, below=True
        ),
        "gates": verdict(row),
    }
