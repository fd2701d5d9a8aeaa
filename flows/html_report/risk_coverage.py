"""Risk and coverage: the error rate of the cases that are not sent to review, with the review flag."""

from __future__ import annotations

from flows.html_report.marks import Axis, BandPoint, curves
from flows.html_report.study import (
    Panel,
    ReportedStudy,
    Section,
    full_name,
    panel_name,
    panels_of,
    series,
    some,
)
from flows.report.figures import figure, is_number
from flows.report.gates import review as review_table
from flows.report.typed_rows import EvaluationRow, Row, rows_of
from warehouse.connect import listed

MOST_POINTS = 40
VOTES = "vote_entropy"
ONE_PASS = "max_probability"
KINDS = {VOTES: "votes of the passes", ONE_PASS: "one pass"}
READING = (
    "Cases in the order of their uncertainty: the share that is decided without review, and how "
    "many of those are decided wrongly. A useful score has a curve that falls to the left. The "
    "largest mark is the review flag of the dropout passes; dashed: the same with the probability of one "
    "pass. Brackets hold the 95 % interval of the difference between both, in area under the curve."
)
MISSING = (
    "No evaluation of this study went through Monte Carlo dropout, so there is no review flag. A "
    "recipe with dropout above 0 and mc_cases above 0 in the grid's [scoring] give it."
)
# Every so many points, and the last one, where all cases are kept.
SQL = """(
    FROM risk_coverage
    WHERE evaluation_id IN {ids} AND score IN ('vote_entropy', 'max_probability')
    WINDOW curve AS (PARTITION BY evaluation_id, score)
    QUALIFY kept % ceil(count(*) OVER curve / {most})::BIGINT = 0 OR kept = count(*) OVER curve
    ORDER BY evaluation_id, score, kept
)"""


Risks = dict[str, list[Row]]
Flags = dict[str, dict[str, Row]]


def risk_coverage(study: ReportedStudy) -> Section:
    """A panel for what differs in precision alone."""
    ids = listed(study.ids)
    risks: Risks = {}
    for row in rows_of(SQL.format(ids=ids, most=MOST_POINTS)):
        risks.setdefault(row.evaluation_id, []).append(row)

    heading = "Risk and coverage, with the review flag"
    judged_rows = [row for row in study.board if row.evaluation_id in risks]
    if not judged_rows:
        return Section("risk-coverage", heading, missing=MISSING)

    flags: Flags = {}
    for flag in rows_of(f"review_flag WHERE evaluation_id IN {ids}"):
        flags.setdefault(flag.evaluation_id, {})[flag.score] = flag

    # One scale for all panels, on which good models are told apart too.
    highest = max(
        row.error_kept for evaluation in judged_rows for row in risks[evaluation.evaluation_id]
    )
    wrong = Axis("share wrong", (0, min(1, 1.1 * highest + 0.01)))
    panels = [
        _panel(study, name, group, risks, flags, wrong)
        for name, group in panels_of(judged_rows).items()
    ]
    findings = _findings(judged_rows, flags)

    return Section("risk-coverage", heading, READING, findings, panels, [review_table(judged_rows)])


def _panel(
    study: ReportedStudy,
    name: str,
    group: list[EvaluationRow],
    risks: Risks,
    flags: Flags,
    error_axis: Axis,
) -> Panel:
    """`error_axis`: the axis of the share that is wrong."""
    marks = [
        BandPoint(series(evaluation), row.coverage, row.error_kept, kind=KINDS[row.score])
        for evaluation in group
        for row in risks[evaluation.evaluation_id]
    ]
    flag_marks = [
        BandPoint(series(evaluation), 1 - flag.load, flag.error_kept)
        for evaluation in group
        if (flag := flags.get(evaluation.evaluation_id, {}).get(VOTES))
        and is_number(flag.error_kept)
    ]
    precisions = {series(evaluation) for evaluation in group}
    names = [precision for precision in study.precisions if precision in precisions]
    coverage_axis = Axis("share decided without review", (0, 1))
    drawing = curves(
        marks, coverage_axis, error_axis, names, list(KINDS.values()), marked=flag_marks
    )
    texts = [
        f"{series(evaluation)}: {_text(flags.get(evaluation.evaluation_id, {}))}"
        for evaluation in group
    ]
    alt = f"Risk and coverage of {name}. {some(texts)}."

    return Panel(panel_name("risk-coverage", name), name, alt, drawing)


def _text(flags: dict[str, Row]) -> str:
    flag = flags.get(VOTES)
    other = flags.get(ONE_PASS)
    if flag is None:
        return "no review flag"

    sentence = (
        f"{figure(flag.load, digits=2)} of {flag.cases} cases flagged, "
        f"{figure(flag.error_kept)} of the rest wrong"
    )
    if other is None or not is_number(other.aurc_difference):
        return sentence

    area = figure(other.aurc_difference, other.difference_low, other.difference_high, sign=True)
    return f"{sentence}; one pass minus votes {area}"


def _findings(judged_rows: list[EvaluationRow], flags: Flags) -> list[str]:
    verdicts = [
        (row.verdict or "cannot tell").replace("_", " ")
        for evaluation in judged_rows
        if (row := flags.get(evaluation.evaluation_id, {}).get(ONE_PASS))
    ]
    if not verdicts:
        return []

    counts = ", ".join(f"{name} in {verdicts.count(name)}" for name in dict.fromkeys(verdicts))
    example = next(evaluation for evaluation in judged_rows if flags.get(evaluation.evaluation_id))
    return [
        f"Which order finds errors better, votes or one pass ({len(verdicts)} models): {counts}.",
        f"{full_name(example)}: {_text(flags[example.evaluation_id])}.",
    ]
