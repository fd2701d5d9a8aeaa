"""Studies: their evaluations, their test sets, and two of them side by side."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Collection, Sequence
from datetime import datetime

from flows.report.figures import figure, interval, listed_name, verdict
from flows.report.leaderboard import by_test_set
from flows.report.table import ReportTable
from flows.report.typed_rows import Row, leaderboard_rows, rows_of
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
    studies = study_rows()
    if name is None:
        return next(iter(studies), None)
    by_name = {row.study: row for row in studies}
    if name not in by_name:
        raise BadInput(_unknown(name, list(by_name)))
    return by_name[name]


def _unknown(name: str, studies: Collection[str]) -> str:
    path = warehouse_path()
    sentence = f"The warehouse {path} has no study {name!r}"
    # With the date, since the name may be the beginning of another, as `tuned` is of `tuned-best`.
    landed = f"sweep-{glob.escape(name)}-{'[0-9]' * 8}-*"
    if any((home() / "landing").glob(landed)):
        # The file that is filled where the command is typed outside a checkout.
        other = home() / FILE
        filled = other if other != path and other.is_file() else "the file that its sweep filled"
        return (
            f"{sentence}, but its results are in {home() / 'landing'}: `{REBUILD}` fills this file "
            f"again from there, or set TRIAGE_WAREHOUSE to {filled}."
        )
    if not studies:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."

    nearest = difflib.get_close_matches(name, studies, n=1, cutoff=0.5)
    if nearest:
        return f"{sentence}; did you mean {nearest[0]}? triage warehouse studies lists them."
    return f"{sentence}; it has {', '.join(studies)}. Set TRIAGE_WAREHOUSE to read another file."


def evaluations_of_study(name: str | None = None) -> list[str]:
    """evaluation_ids of a study; without a name, of that of the last sweep."""
    study = find_study(name)
    return [] if study is None else evaluation_ids(study.study)


def evaluation_ids(study: str) -> list[str]:
    """evaluation_ids of the study of exactly this name."""
    clauses = f"study_member WHERE kind = 'evaluation' AND study = {quoted(study)}"
    return [row.id for row in rows_of(clauses)]


def evaluations_of_sweep(sweep: str) -> list[str]:
    """evaluation_ids that a sweep made or found."""
    clauses = f"sweep_member JOIN landed USING (id) WHERE sweep_id = {quoted(sweep)}"
    return [row.id for row in rows_of(f"{clauses} AND kind = 'evaluation'")]


NONE = "-"


def studies_table(rows: Sequence[Row]) -> ReportTable:
    """One row per study."""
    records = [
        {
            "study": row.study,
            "cases": NONE if row.dataset is None else f"{row.dataset} {row.dataset_digest}",
            "train": figure(row.train_cases, digits=0),
            "test": figure(row.test_cases, digits=0),
            "experiments": str(row.experiments),
            "evaluations": str(row.evaluations),
            "sweeps": str(row.sweeps),
            "first sweep": _minute(row.first_sweep),
            "last sweep": _minute(row.last_sweep),
        }
        for row in rows
    ]
    return ReportTable.of("Studies, the one of the last sweep first", records)


def _minute(time: datetime | None) -> str:
    return NONE if time is None else f"{time:%Y-%m-%d %H:%M}"


def side_by_side(first_study: Row, second_study: Row) -> ReportTable:
    """One row per experiment of either study, on the test set that each judged last.

    Differences have no interval here: only two evaluations of the same cases could be paired.
    """
    studies = (first_study.study, second_study.study)
    boards = []
    titles = []
    for study in studies:
        rows = next(iter(by_test_set(leaderboard_rows(evaluation_ids(study)))), [])
        boards.append({(row.cell_id, row.random_weights): row for row in rows})
        title = f"{study}: no finished experiment"
        if rows:
            dataset = f" of dataset {rows[0].dataset_digest}" if rows[0].dataset_digest else ""
            title = f"{study}: {rows[0].cases} test cases{dataset}"
        titles.append(title)

    records = []
    for key in boards[0] | boards[1]:
        pair = [board.get(key) for board in boards]
        figures = [_figures(row) for row in pair]
        record = {"experiment": next(listed_name(row) for row in pair if row is not None)}
        for name in figures[0]:
            record |= {f"{name}\n{studies[place]}": figures[place][name] for place in (0, 1)}
        records.append(record | {"the two": _relation(*pair)})

    return ReportTable.of("; ".join(titles), records, '"FROM leaderboard"')


def _figures(row: Row | None) -> dict[str, str]:
    if row is None:
        return dict.fromkeys(("accuracy", "ED recall", "gates"), NONE)
    return {
        "accuracy": interval(row, "accuracy"),
        "ED recall": interval(row, "ed_recall"),
        "gates": verdict(row).replace("\n", " "),
    }


def _relation(first: Row | None, second: Row | None) -> str:
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
