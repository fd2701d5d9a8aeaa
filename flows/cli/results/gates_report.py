"""What `triage gates` prints: the gates of an experiment, its subgroups and missed emergencies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows.cli.find_experiment import EvaluationSummary, find_evaluations
from flows.cli.terminal import print_line, printable
from flows.cli.waiting import load_what_waits
from flows.report.disclaimer import disclaimer
from flows.report.figures import counted, figure, gate_figure, percent
from flows.report.gates import FALSE_NEGATIVES, NAMES, GateRow, adjusted, looks
from flows.report.names import random_mark, verdict
from flows.report.prevalence import check_prevalence, restated
from flows.report.table import ReportTable, print_table
from flows.report.typed_rows import typed_rows
from tasks.corpus.case import can_be_encoded, exact_digest
from tasks.corpus.reading.tables import read_rows
from warehouse.connect import quoted
from warehouse.health import bring_up_to_date

NO_SUBGROUPS = (
    "ED recall by subgroup: not available, no judged emergency names one (set `subgroup_columns` "
    "to read them from your cases; this makes a new dataset and retrains its models)."
)


@dataclass(frozen=True)
class Subgroup:
    """A row of `subgroup_metric`: ED recall of the primary rule in one subgroup."""

    field: str
    subgroup: str
    value: float | None
    low: float | None
    high: float | None
    method: str | None
    n: int
    note: str | None


@dataclass(frozen=True)
class Miss:
    """An ED case that the primary rule sent elsewhere.

    `review`: the review flag, None for a case outside the sample of the dropout passes.
    """

    case_id: str
    case_digest: str | None
    decision: str
    p_ed: float
    review: bool | None


@dataclass(frozen=True)
class Dropout:
    """Columns of `evaluation`: on how many cases and passes the review flag rests."""

    mc_status: str | None
    mc_reason: str | None
    mc_passes: int | None
    mc_cases: int | None
    cases: int


def print_gates(
    console: Console, experiment: str, show_text: Path | None, prevalence: float | None
) -> None:
    """Print the latest evaluation of an experiment on each of its sets.

    `experiment`: a cell, training or evaluation id, or an unambiguous beginning of one.
    `show_text`: the user's own file of cases, the only place from which a text is read. Raises
    BadInput.
    """
    check_prevalence(prevalence)
    load_what_waits()
    bring_up_to_date()
    texts = texts_by_digest(show_text) if show_text else None

    evaluations = find_evaluations(experiment)
    for choice in evaluations:
        _print_evaluation(console, choice.evaluation, texts, prevalence)
        if choice.other_evaluations_note:
            print_line(console, choice.other_evaluations_note)

    print_line(console, disclaimer({choice.evaluation.set_digest for choice in evaluations}))


def texts_by_digest(path: Path) -> dict[str, str]:
    """Every text of a JSONL, CSV or Parquet file by its digest in predictions. Raises BadInput."""
    # From every column, so that it need not be named; cases are stored without space around them.
    texts = (value for _, row in read_rows(path) for value in row.values())
    return {
        exact_digest(variant): variant
        for text in texts
        if isinstance(text, str) and can_be_encoded(text)
        for variant in (text, text.strip())
    }


def _print_evaluation(
    console: Console,
    evaluation: EvaluationSummary,
    texts: dict[str, str] | None,
    prevalence: float | None,
) -> None:
    gates = typed_rows(GateRow, f"gate WHERE {_is(evaluation)} ORDER BY gate")
    misses = missed_emergencies(evaluation)

    print_line(console, _headline(evaluation), style="bold")
    print_table(console, gate_table(gates))
    print_line(console, _precision(evaluation, prevalence))
    _print_subgroups(console, evaluation)
    if misses:
        print_line(console, _basis_of_flags(evaluation))

    print_line(console, f"Missed emergencies: {_count_of_misses(evaluation, gates, len(misses))}")
    for miss in misses:
        _print_miss(console, miss, texts)


def _headline(evaluation: EvaluationSummary) -> str:
    name = f"{evaluation.cell_id}{random_mark(evaluation)}"
    outcome = verdict(evaluation).replace("\n", " ")
    basis = f"{evaluation.origin}, rule {evaluation.primary_rule}"
    return f"{name} on {evaluation.evaluation_set}: {outcome} ({basis})"


def gate_table(gates: list[GateRow]) -> ReportTable:
    """The gates of an evaluation with counts, bound and method."""
    columns = ("gate", "state", "value", "bound", "bound for all looks", "counts", "method")
    looked = looks()
    rows = [
        (
            (
                f"{NAMES.get(gate.gate, gate.gate)} "
                f"{'<=' if gate.gate == FALSE_NEGATIVES else '>='} {gate.threshold:g}"
            ),
            gate.state,
            gate_figure(gate.value, gate.threshold),
            gate_figure(gate.bound, gate.threshold),
            adjusted(looked.get((gate.evaluation_id, gate.gate))) or "n/a",
            f"n={gate.n}" if gate.successes is None else f"{gate.successes} of {gate.n}",
            _lines(gate.method, gate.note),
        )
        for gate in gates
    ]

    return ReportTable("Gates", columns, tuple(rows))


def _precision(evaluation: EvaluationSummary, prevalence: float | None) -> str:
    """Precision and F2 at the set's own prevalence, and restated at another one."""
    text = (
        f"At this set's prevalence of {percent(evaluation.ed_prevalence)} ED: "
        f"precision {figure(evaluation.ed_precision)}, F2 {figure(evaluation.ed_f2)}."
    )
    if prevalence is None:
        return text

    precision, f2 = restated(
        evaluation.ed_recall, evaluation.ed_precision, evaluation.ed_prevalence, prevalence
    )
    return (
        f"{text} At {percent(prevalence)}: precision {figure(precision)}, F2 {figure(f2)} "
        "(same recall, same false alarms)."
    )


def _print_subgroups(console: Console, evaluation: EvaluationSummary) -> None:
    clauses = (
        f"subgroup_metric WHERE {_is(evaluation)} AND metric = 'ed_recall' ORDER BY field, subgroup"
    )
    subgroups = typed_rows(Subgroup, clauses)
    if subgroups:
        print_table(console, _subgroup_table(subgroups))
    else:
        print_line(console, NO_SUBGROUPS)


def _subgroup_table(subgroups: list[Subgroup]) -> ReportTable:
    rows = [
        (
            f"{group.field} {group.subgroup}",
            str(group.n),
            _recall(group),
            _lines(group.method if group.method != "none" else None, group.note),
        )
        for group in subgroups
    ]
    columns = ("subgroup", "ED cases", "ED recall", "method")
    return ReportTable("ED recall by subgroup", columns, tuple(rows))


def _recall(group: Subgroup) -> str:
    if group.value is None:
        return "not available"
    return figure(group.value, group.low, group.high)


def missed_emergencies(evaluation: EvaluationSummary) -> list[Miss]:
    """The most confident mistakes first."""
    return typed_rows(
        Miss,
        "prediction LEFT JOIN (SELECT evaluation_id, case_id, review FROM mc_dropout) "
        f"USING (evaluation_id, case_id) WHERE {_is(evaluation)} "
        "AND label = 'ED' AND decision <> 'ED' ORDER BY p_ed, case_id",
    )


@dataclass(frozen=True)
class _Emergencies:
    """ED cases of an evaluation, and how many of them its primary rule decided."""

    ed: int
    decided: int


def _count_of_misses(evaluation: EvaluationSummary, gates: list[GateRow], missed: int) -> str:
    """The number of missed emergencies, or the reason why there is none."""
    (emergencies,) = typed_rows(
        _Emergencies,
        "(SELECT count(*) AS ed, count(decision) AS decided FROM prediction "
        f"WHERE {_is(evaluation)} AND label = 'ED')",
    )
    if not emergencies.ed:
        return "not available: no ED case in this set"
    if not emergencies.decided:
        cases = counted(emergencies.ed, "ED case")
        return f"not available for {cases}: {_why_undecided(evaluation, gates)}"

    return f"{missed} of {emergencies.ed}" + (", most confident mistakes first" if missed else "")


def _why_undecided(evaluation: EvaluationSummary, gates: list[GateRow]) -> str:
    for gate in gates:
        if gate.note:
            return gate.note.removeprefix("not available: ")
    return f"rule {evaluation.primary_rule} gave no decision"


def _basis_of_flags(evaluation: EvaluationSummary) -> str:
    """The cases on which the review flag rests: a case outside the sample has none."""
    (dropout,) = typed_rows(Dropout, f"evaluation WHERE {_is(evaluation)}")
    if dropout.mc_status != "available":
        return f"Review flag: not available: {dropout.mc_reason}"
    return (
        f"Review flag: from {dropout.mc_passes} dropout passes on {dropout.mc_cases} "
        f"of {dropout.cases} cases"
    )


def _print_miss(console: Console, miss: Miss, texts: dict[str, str] | None) -> None:
    flags = {None: ", no passes", True: ", flagged for review", False: ", not flagged"}
    text = f"  {miss.case_id}  decided {miss.decision}, p(ED) {miss.p_ed:.3f}{flags[miss.review]}"
    print_line(console, printable(text))
    if texts is not None:
        case_text = texts.get(miss.case_digest or "", "its text is not in that file")
        print_line(console, f"    {printable(case_text)}")


def _is(evaluation: EvaluationSummary) -> str:
    return f"evaluation_id = {quoted(evaluation.evaluation_id)}"


def _lines(*parts: str | None) -> str:
    return "\n".join(part for part in parts if part)
