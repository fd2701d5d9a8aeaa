"""Single cases: what each model decided, how sure it was, and how often over the dropout passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.html_report.study import ReportedStudy, full_name
from flows.report.figures import counted
from flows.report.typed_rows import Row, rows_of
from tasks.runtime.errors import BadInput
from warehouse.connect import listed, quoted

if TYPE_CHECKING:
    from pathlib import Path

MOST_ROWS = 6000  # a line for each case and model: more would not fit into 6 MB with the charts
MATTERS = """(
    WITH decided AS (
        SELECT
            case_id, label, bool_or(decision = 'ED') AS caught,
            count(*) FILTER (decision <> 'ED') AS missed, count(*) AS models
        FROM prediction
        WHERE evaluation_id IN {models} AND label = 'ED' AND decision IS NOT NULL
        GROUP BY case_id, label
    ),
    flipped AS (
        SELECT eight.case_id, count(*) AS flips
        FROM quantization_comparison AS pair
        JOIN prediction AS eight ON eight.evaluation_id = pair.evaluation_8bit
        JOIN prediction AS four
            ON four.evaluation_id = pair.evaluation_4bit AND four.case_id = eight.case_id
        WHERE eight.label = 'ED' AND (four.decision = 'ED') <> (eight.decision = 'ED')
        GROUP BY eight.case_id
    )
    SELECT case_id, missed, models, coalesce(flips, 0) AS flips
    FROM decided LEFT JOIN flipped USING (case_id)
    WHERE missed > 0
    ORDER BY flips DESC, missed DESC, case_id
)"""
ANSWERS = """(
    SELECT p.*, m.passes, m.decision_majority, m.decision_confidence, m.majority, m.confidence, m.review
    FROM prediction AS p LEFT JOIN mc_dropout AS m USING (evaluation_id, case_id)
    WHERE p.evaluation_id IN {models} AND p.case_id IN {cases}
)"""


@dataclass(frozen=True)
class ShownCase:
    """A case of the report, with a line for each model; `text` only from the user's own file."""

    case_id: str
    label: str
    group: str | None
    summary: str
    lines: list[tuple[str, str, str, str]]
    text: str | None = None


@dataclass(frozen=True)
class ShownCases:
    """The cases of a report, and how many emergencies that a model missed do not fit into it."""

    cases: list[ShownCase]
    missed: int
    left_out: int

    @property
    def has_texts(self) -> bool:
        return any(case.text is not None for case in self.cases)


def shown_cases(study: ReportedStudy, case_ids: Collection[str], texts: Path | None) -> ShownCases:
    """The cases that were asked for; without any, emergencies that a model missed, flips first.

    Raises BadInput for a case that the study does not have, and for a file whose texts fit no case.
    """
    evaluations = {row.evaluation_id: row for row in study.board if row.precision is not None}
    models = listed(evaluations)
    mattering_cases = rows_of(MATTERS.format(models=models), only=study.ids)
    most = max(1, MOST_ROWS // max(1, len(evaluations)))
    by_case = {row.case_id: row for row in mattering_cases}

    ids = list(dict.fromkeys(case_ids)) or [row.case_id for row in mattering_cases[:most]]
    answers: dict[str, list[Row]] = {}
    if ids:
        statement = ANSWERS.format(models=models, cases=listed(ids))
        for row in rows_of(statement):
            answers.setdefault(row.case_id, []).append(row)

    for id in ids:
        if id not in answers:
            raise BadInput(_unknown(id, study))

    by_digest = _texts(texts, answers) if texts else {}
    names = {id: full_name(row) for id, row in evaluations.items()}
    cases = [_case(id, answers[id], names, by_case.get(id), by_digest) for id in ids]
    return ShownCases(
        cases, len(mattering_cases), 0 if case_ids else max(0, len(mattering_cases) - most)
    )


def _unknown(id: str, study: ReportedStudy) -> str:
    query = f"SELECT case_id FROM prediction WHERE evaluation_id = {quoted(study.ids[0])}"
    return (
        f"No model of the study {study.name} was judged on a case {id!r}; ids are those of the "
        f'warehouse: triage sql "{query}"'
    ) + "."


def _texts(path: Path, answers: Mapping[str, list[Row]]) -> Mapping[str, str]:
    from flows.cli.gates import texts_by_digest

    texts = texts_by_digest(path)
    if not any(row.case_digest in texts for rows in answers.values() for row in rows):
        raise BadInput(
            f"No text in {path} is that of a case in the report; give the file from which the test "
            "cases of this study were read."
        )

    return texts


def _case(
    id: str,
    rows: list[Row],
    names: dict[str, str],
    matter: Row | None,
    texts: Mapping[str, str],
) -> ShownCase:
    by_evaluation = {row.evaluation_id: row for row in rows}
    first = rows[0]
    lines = [
        _line(name, by_evaluation[evaluation])
        for evaluation, name in names.items()
        if evaluation in by_evaluation
    ]

    summary = "no model missed it as an emergency"
    if matter is not None:
        summary = f"missed by {matter.missed} of {matter.models} models"
        if matter.flips:
            pairs = counted(matter.flips, "pair")
            summary += f", caught at one precision alone in {pairs}"

    return ShownCase(
        id, first.label, first.case_group, summary, lines, texts.get(first.case_digest or "")
    )


def _line(name: str, row: Row) -> tuple[str, str, str, str]:
    probabilities = f"{row.p_ed:.2f} {row.p_gp:.2f} {row.p_home:.2f}"
    decision = row.decision or f"{row.argmax} (argmax)"
    if row.passes is None or row.confidence is None:
        return name, decision, probabilities, "-"

    flag = ", review" if row.review else ""
    return (
        name,
        decision,
        probabilities,
        f"{row.majority} in {row.confidence:.0%} of {row.passes}{flag}",
    )
