"""Studies of the warehouse, and which evaluations belong to one."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flows.report.typed_rows import typed_rows
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import quoted, warehouse_path
from warehouse.place import FILE, REBUILD

EARLIER = "earlier"  # the study of results that no sweep names


@dataclass(frozen=True)
class StudyRow:
    """A row of `study`. The study EARLIER has no grid."""

    study: str
    grid: str | None
    grid_digest: str | None
    dataset: str | None
    dataset_digest: str | None
    train_cases: int | None
    test_cases: int | None
    experiments: int
    evaluations: int
    sweeps: int
    first_sweep: datetime | None
    last_sweep: datetime | None


@dataclass(frozen=True)
class _Member:
    id: str


def study_rows() -> list[StudyRow]:
    """Every study, the one of the last sweep first."""
    return typed_rows(StudyRow, "study")


def find_study(name: str | None = None) -> StudyRow | None:
    """The study of this name; without one, that of the last sweep, or None where there is none.

    Raises BadInput, with the nearest name or where its results are, for a study that is not there.
    """
    return select_study(study_rows(), name)


def select_study(studies: Collection[StudyRow], name: str | None) -> StudyRow | None:
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
        return f"{sentence}; did you mean {nearest[0]}? triage studies lists them."

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
    return [row.id for row in typed_rows(_Member, clauses)]
