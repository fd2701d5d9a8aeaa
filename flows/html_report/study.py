"""The study that a report shows: its evaluations on one test set, its pairs, and what it is called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flows.html_report.labels import chart_labels
from flows.report.answer import answer
from flows.report.disclaimer import disclaimer
from flows.report.leaderboard import by_test_set
from flows.report.names import experiment_name, random_mark, recipe_name
from flows.report.pairs import PairRow, pair_rows
from flows.report.study import StudyRow, evaluation_ids, find_study
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from tasks.runtime.errors import BadInput
from warehouse.comparison.summary import PooledSet, pooled_sets

EVERYTHING = "all results"  # the name where the warehouse knows no study
NO_MODEL = "no language model"


@dataclass(frozen=True)
class ReportedStudy:
    """What every part of the report is made from.

    `board`: the evaluations on the test set that is shown, in the leaderboard's order;
    `ids`: theirs. `further`: evaluations on other test sets, which are left out.
    `sentences`: those of `triage compare`.
    """

    name: str
    grid: str | None
    grid_digest: str | None
    board: list[EvaluationRow]
    pairs: list[PairRow]
    pools: list[PooledSet]
    further: int
    sentences: list[str]
    notice: str

    @property
    def ids(self) -> list[str]:
        return [row.evaluation_id for row in self.board]

    @property
    def by_id(self) -> dict[str, EvaluationRow]:
        return {row.evaluation_id: row for row in self.board}

    @property
    def precisions(self) -> list[str]:
        """Series of the charts: precisions, short names first, and what is no model last."""
        names = {series(row) for row in self.board}
        return sorted(names, key=lambda name: (name == NO_MODEL, len(name), name))


def reported_study(name: str | None) -> ReportedStudy:
    """The study of this name; without one, that of the last sweep, or
    everything where there is none.

    Raises BadInput, with the nearest name, for an unknown study, and where nothing has finished.
    """
    study = find_study(name)
    only = evaluation_ids(study.study) if study else None
    board = leaderboard_rows(only)
    if not board:
        raise BadInput(_nothing_to_report(study))

    shown_rows = by_test_set(board)[0]
    ids = [row.evaluation_id for row in shown_rows]
    pools = pooled_sets(only)
    return ReportedStudy(
        name=study.study if study else EVERYTHING,
        grid=study.grid if study else None,
        grid_digest=study.grid_digest if study else None,
        board=shown_rows,
        pairs=pair_rows(ids),
        pools=pools,
        further=len(board) - len(shown_rows),
        sentences=answer(board, pair_rows(only), pools),
        notice=disclaimer({row.set_digest for row in board}),
    )


def _nothing_to_report(study: StudyRow | None) -> str:
    of = f" of the study {study.study}" if study else ""
    return (
        f"The warehouse holds no finished experiment{of}, so there is nothing to report; "
        "run `triage sweep demo` first, or name another study (triage studies)."
    )


def series(row: EvaluationRow) -> str:
    """What a mark's colour stands for: the precision."""
    return row.precision or NO_MODEL


def full_name(row: EvaluationRow) -> str:
    """An experiment on one line."""
    return experiment_name(row).replace("\n", " ")


def and_others(values: Sequence[float | None], best: float | None) -> str:
    """What follows the name of a best model, for those that reach the same; empty without one."""
    ties = sum(value == best for value in values) - 1
    return f" and {ties} other{'s' if ties > 1 else ''} with the same figure" if ties > 0 else ""


def labels_of(rows: Collection[EvaluationRow]) -> dict[str, str]:
    """The label of each evaluation in a chart of these, by its id."""
    labels = chart_labels([experiment_name(row) for row in rows])
    return {row.evaluation_id: labels[experiment_name(row)] for row in rows}


def short_name(row: EvaluationRow) -> str:
    """An experiment without its precision: what the curves of one panel have in common."""
    if row.precision is None:
        return full_name(row)
    return f"{row.base_model} {recipe_name(row.recipe, row.seed)}{random_mark(row)}"


def panels_of(rows: Collection[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """The evaluations of each panel, which differ in precision alone."""
    panels: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        panels.setdefault(short_name(row), []).append(row)
    return panels
