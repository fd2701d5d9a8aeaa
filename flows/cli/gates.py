"""`triage gates EXPERIMENT`: the safety gates of an experiment, its subgroups, and the emergencies
that it missed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.cli.experiments import EvaluationSummary, find_evaluations
from flows.cli.terminal import (
    Experiment,
    Prevalence,
    console,
    load_what_waits,
    print_line,
    printable,
)
from flows.report.figures import (
    counted,
    disclaimer,
    figure,
    gate_figure,
    percent,
    random_mark,
    verdict,
)
from flows.report.gates import FALSE_NEGATIVES, NAMES, adjusted, check_prevalence, looks, restated
from flows.report.table import ReportTable, print_table
from flows.report.typed_rows import Row, rows_of
from tasks.corpus.case import can_be_encoded, exact_digest
from tasks.corpus.reading.tables import read_rows
from warehouse.connect import quoted
from warehouse.health import bring_up_to_date
from warehouse.query import query_rows

NO_SUBGROUPS = (
    "ED recall by subgroup: not available, no judged emergency names one (set `subgroup_columns` "
    "to read them from your cases; this makes a new dataset and retrains its models)."
)
FLAGS = {None: ", no passes", True: ", flagged for review", False: ", not flagged"}

ShowText = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="print the texts of missed cases, read from this file"),
]


def gates(
    experiment: Experiment, show_text: ShowText = None, prevalence: Prevalence = None
) -> None:
    """Show an experiment's safety gates, and the emergencies that it missed."""
    print_gates(console, experiment, show_text, prevalence)


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
    of_evaluation = f"evaluation_id = {quoted(evaluation.evaluation_id)}"
    gates = rows_of(f"gate WHERE {of_evaluation} ORDER BY gate")

    name = f"{evaluation.cell_id}{random_mark(evaluation)} on {evaluation.evaluation_set}"
    outcome = verdict(evaluation).replace("\n", " ")
    basis = f"{evaluation.origin}, rule {evaluation.primary_rule}"
    print_line(console, f"{name}: {outcome} ({basis})", style="bold")
    print_table(console, gate_table(gates))
    print_line(console, _precision(evaluation, prevalence))
    _print_subgroups(console, of_evaluation)
    _print_misses(console, evaluation, gates, of_evaluation, texts)


def gate_table(gates: list[Row]) -> ReportTable:
    """The gates of an evaluation with counts, bound and method."""
    columns = ("gate", "state", "value", "bound", "bound for all looks", "counts", "method")
    looked = looks()
    rows = []
    for gate in gates:
        sign = "<=" if gate.gate == FALSE_NEGATIVES else ">="
        row = (
            f"{NAMES.get(gate.gate, gate.gate)} {sign} {gate.threshold:g}",
            gate.state,
            gate_figure(gate.value, gate.threshold),
            gate_figure(gate.bound, gate.threshold),
            adjusted(looked.get((gate.evaluation_id, gate.gate))) or "n/a",
            f"n={gate.n}" if gate.successes is None else f"{gate.successes} of {gate.n}",
            _lines(gate.method, gate.note),
        )
        rows.append(row)
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


def _print_subgroups(console: Console, of_evaluation: str) -> None:
    """Print the ED recall of the primary rule in each subgroup."""
    rows: Any = query_rows(
        "SELECT field, subgroup, n, value, low, high, method, note FROM subgroup_metric "
        f"WHERE {of_evaluation} AND metric = 'ed_recall' ORDER BY field, subgroup"
    ).rows
    if not rows:
        print_line(console, NO_SUBGROUPS)
        return

    cells = []
    for field, subgroup, n, value, low, high, method, note in rows:
        recall = "not available" if value is None else figure(value, low, high)
        basis = _lines(None if method == "none" else method, note)
        cells.append((f"{field} {subgroup}", str(n), recall, basis))
    columns = ("subgroup", "ED cases", "ED recall", "method")
    print_table(console, ReportTable("ED recall by subgroup", columns, tuple(cells)))


def missed_emergencies(evaluation_id: str) -> list[Row]:
    """ED cases that the primary rule sent elsewhere, the most confident mistakes first.

    `review`: the review flag, None for a case outside the sample of the dropout passes.
    """
    return rows_of(
        "prediction LEFT JOIN (SELECT evaluation_id, case_id, review FROM mc_dropout) "
        f"USING (evaluation_id, case_id) WHERE evaluation_id = {quoted(evaluation_id)} "
        "AND label = 'ED' AND decision <> 'ED' ORDER BY p_ed, case_id",
    )


def _print_misses(
    console: Console,
    evaluation: EvaluationSummary,
    gates: list[Row],
    of_evaluation: str,
    texts: dict[str, str] | None,
) -> None:
    """Print the missed emergencies and on what their flags rest, or the reason why there are none."""
    misses = missed_emergencies(evaluation.evaluation_id)
    if misses:
        columns = "mc_status, mc_reason, mc_passes, mc_cases, cases"
        dropout = query_rows(f"SELECT {columns} FROM evaluation WHERE {of_evaluation}")
        ((status, reason, passes, flagged, cases),) = dropout.rows
        basis = f"from {passes} dropout passes on {flagged} of {cases} cases"
        if status != "available":
            basis = f"not available: {reason}"
        print_line(console, f"Review flag: {basis}")

    emergencies: Any = query_rows(
        f"SELECT count(*), count(decision) FROM prediction WHERE {of_evaluation} AND label = 'ED'"
    )
    ((ed, decided),) = emergencies.rows
    if not ed:
        count = "not available: no ED case in this set"
    elif not decided:
        notes = (gate.note.removeprefix("not available: ") for gate in gates if gate.note)
        why = next(notes, f"rule {evaluation.primary_rule} gave no decision")
        count = f"not available for {counted(ed, 'ED case')}: {why}"
    else:
        count = f"{len(misses)} of {ed}" + (", most confident mistakes first" if misses else "")
    print_line(console, f"Missed emergencies: {count}")

    for miss in misses:
        decision = f"decided {miss.decision}, p(ED) {miss.p_ed:.3f}{FLAGS[miss.review]}"
        print_line(console, printable(f"  {miss.case_id}  {decision}"))
        if texts is not None:
            text = texts.get(miss.case_digest or "", "its text is not in that file")
            print_line(console, f"    {printable(text)}")


def _lines(*parts: str | None) -> str:
    return "\n".join(part for part in parts if part)
