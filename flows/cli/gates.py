"""`triage gates EXPERIMENT`: the safety gates of an experiment, its subgroups, and the emergencies
that it missed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.experiments import find_evaluations, note_on_others, origin_of
from flows.cli.terminal import (
    Experiment,
    Prevalence,
    console,
    print_line,
    printable,
    refresh_warehouse,
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
from flows.report.gates import FALSE_NEGATIVES, NAMES, adjusted, check_prevalence, figures_at, looks
from flows.report.table import ReportTable, print_table
from flows.report.typed_rows import Row, rows_of
from tasks.corpus.case import can_be_encoded, exact_digest
from tasks.corpus.reading.tables import read_rows
from warehouse.connect import quoted

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
    # The latest evaluation on each of its sets; texts are read from the user's own file alone.
    check_prevalence(prevalence)
    refresh_warehouse()
    texts = texts_by_digest(show_text) if show_text else None

    evaluations = find_evaluations(experiment)
    for evaluation in evaluations:
        _print_evaluation(evaluation, texts, prevalence)
        if note := note_on_others(evaluation):
            print_line(console, note)

    print_line(console, disclaimer({row.set_digest for row in evaluations}))


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
    evaluation: Row, texts: dict[str, str] | None, prevalence: float | None
) -> None:
    name = f"{evaluation.cell_id}{random_mark(evaluation)} on {evaluation.evaluation_set}"
    outcome = verdict(evaluation).replace("\n", " ")
    basis = f"{origin_of(evaluation)}, rule {evaluation.primary_rule}"
    print_line(console, f"{name}: {outcome} ({basis})", style="bold")
    print_table(console, gate_table(evaluation.evaluation_id))

    own_prevalence = evaluation.ed_prevalence
    own_precision, own_f2 = evaluation.ed_precision, evaluation.ed_f2
    sentences = (
        f"At this set's prevalence of {percent(own_prevalence)} ED: "
        f"precision {figure(own_precision)}, F2 {figure(own_f2)}."
    )
    if prevalence is not None:
        precision, f2 = figures_at(evaluation, prevalence)
        sentences += (
            f" At {percent(prevalence)}: precision {figure(precision)}, F2 {figure(f2)} "
            "(same recall, same false alarms)."
        )
    print_line(console, sentences)
    _print_subgroups(evaluation.evaluation_id)
    _print_misses(evaluation, texts)


def gate_table(evaluation_id: str) -> ReportTable:
    """The gates of an evaluation with counts, bound and method."""
    looked = looks()
    records = []
    for gate in rows_of(f"gate WHERE evaluation_id = {quoted(evaluation_id)} ORDER BY gate"):
        sign = "<=" if gate.gate == FALSE_NEGATIVES else ">="
        counts = f"n={gate.n}" if gate.successes is None else f"{gate.successes} of {gate.n}"
        record = {
            "gate": f"{NAMES.get(gate.gate, gate.gate)} {sign} {gate.threshold:g}",
            "state": gate.state,
            "value": gate_figure(gate.value, gate.threshold),
            "bound": gate_figure(gate.bound, gate.threshold),
            "bound for all looks": adjusted(looked.get((evaluation_id, gate.gate))) or "n/a",
            "counts": counts,
            "method": _lines(gate.method, gate.note),
        }
        records.append(record)
    return ReportTable.of("Gates", records)


def _print_subgroups(evaluation_id: str) -> None:
    """Print the ED recall of the primary rule in each subgroup."""
    rows = rows_of(
        f"subgroup_metric WHERE evaluation_id = {quoted(evaluation_id)} "
        "AND metric = 'ed_recall' ORDER BY field, subgroup"
    )
    if not rows:
        print_line(console, NO_SUBGROUPS)
        return

    records = [
        {
            "subgroup": f"{row.field} {row.subgroup}",
            "ED cases": str(row.n),
            "ED recall": (
                "not available" if row.value is None else figure(row.value, row.low, row.high)
            ),
            "method": _lines(None if row.method == "none" else row.method, row.note),
        }
        for row in rows
    ]
    print_table(console, ReportTable.of("ED recall by subgroup", records))


def _print_misses(evaluation: Row, texts: dict[str, str] | None) -> None:
    """Print the missed emergencies, the most confident mistakes first, and on what their flags rest,
    or the reason why there are none. A case outside the sample of the dropout passes has no flag.
    """
    of_evaluation = f"evaluation_id = {quoted(evaluation.evaluation_id)}"
    emergencies = rows_of(
        "prediction LEFT JOIN (SELECT evaluation_id, case_id, review FROM mc_dropout) "
        f"USING (evaluation_id, case_id) WHERE {of_evaluation} AND label = 'ED' "
        "ORDER BY p_ed, case_id"
    )
    decided = [row for row in emergencies if row.decision is not None]
    misses = [row for row in decided if row.decision != "ED"]
    if misses:
        (dropout,) = rows_of(f"evaluation WHERE {of_evaluation}")
        basis = f"not available: {dropout.mc_reason}"
        if dropout.mc_status == "available":
            basis = (
                f"from {dropout.mc_passes} dropout passes on {dropout.mc_cases} of "
                f"{dropout.cases} cases"
            )
        print_line(console, f"Review flag: {basis}")

    count = f"{len(misses)} of {len(emergencies)}"
    if not emergencies:
        count = "not available: no ED case in this set"
    elif not decided:
        notes = rows_of(f"gate WHERE {of_evaluation} AND note <> '' ORDER BY gate")
        reason = f"rule {evaluation.primary_rule} gave no decision"
        if notes:
            reason = notes[0].note.removeprefix("not available: ")
        count = f"not available for {counted(len(emergencies), 'ED case')}: {reason}"
    elif misses:
        count += ", most confident mistakes first"
    print_line(console, f"Missed emergencies: {count}")

    for miss in misses:
        decision = f"decided {miss.decision}, p(ED) {miss.p_ed:.3f}{FLAGS[miss.review]}"
        print_line(console, printable(f"  {miss.case_id}  {decision}"))
        if texts is not None:
            text = texts.get(miss.case_digest or "", "its text is not in that file")
            print_line(console, f"    {printable(text)}")


def _lines(*parts: str | None) -> str:
    return "\n".join(part for part in parts if part)
