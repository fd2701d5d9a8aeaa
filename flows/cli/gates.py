"""`triage gates`: the safety gates of an experiment, its subgroups, and the emergencies that it missed;
without a name the gates of every experiment of the last study.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.experiments import find_evaluations, note_on_others, origin_of
from flows.cli.terminal import (
    AsJson,
    Prevalence,
    console,
    print_json,
    print_line,
    printable,
    refresh_warehouse,
)
from flows.report.figures import (
    counted,
    disclaimer,
    figure,
    percent,
    random_mark,
    verdict,
    why_not,
)
from flows.report.models import GATES, gate_record, gate_rows, gates_of
from flows.report.rows import Row, at_prevalence, check_prevalence, is_number, rows_of, studied
from flows.report.table import Table, print_table
from tasks.runtime.errors import BadInput
from warehouse.connect import quoted

NO_SUBGROUPS = (
    "ED recall by subgroup: not available, no judged emergency names one (set `subgroup_columns` "
    "to read them from your cases; this makes a new dataset and retrains its models)."
)
FLAGS = {None: "", True: ", flagged for review", False: ", not flagged"}
MOST_MODELS = 60  # lines on a terminal

Experiment = Annotated[
    str | None,
    typer.Argument(help="a cell, training or evaluation id, or the beginning of one; none: all"),
]
ShowText = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="print the texts of missed cases, read from this file"),
]
Check = Annotated[
    bool, typer.Option("--check", help="end with 1 unless every gate passes, on each of its sets")
]


def gates(
    experiment: Experiment = None,
    show_text: ShowText = None,
    prevalence: Prevalence = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Show an experiment's safety gates, and the emergencies that it missed."""
    check_prevalence(prevalence)
    refresh_warehouse()
    if experiment is None:
        if check:
            raise BadInput("--check needs an experiment; triage gates lists them.")
        evaluations = [row for one in studied()[:1] for row in one.board if not row.is_baseline]
    else:
        # The latest evaluation on each of its sets.
        evaluations = find_evaluations(experiment)

    if as_json:
        print_json([_as_json(row) for row in evaluations])
    elif experiment is None:
        _print_all(evaluations)
    else:
        texts = _texts(evaluations, show_text)
        for evaluation in evaluations:
            _print_evaluation(evaluation, texts, prevalence, bool(show_text))
            if note := note_on_others(evaluation):
                print_line(console, note)
        print_line(console, disclaimer({row.set_digest for row in evaluations}))

    if check and any(row.verdict != "passes_gates" for row in evaluations):
        raise typer.Exit(1)


def _as_json(row: Row) -> dict[str, object]:
    return {
        "experiment": row.cell_id,
        "evaluation_id": row.evaluation_id,
        "evaluation_set": row.evaluation_set,
        "random_weights": row.random_weights,
        "rule": row.primary_rule,
        "verdict": verdict(row),
        "gates": [vars(gate) for gate in gate_rows([row.evaluation_id])],
    }


def _print_all(evaluations: Sequence[Row]) -> None:
    """A line for each experiment: its verdict, and the state of each gate."""
    if not evaluations:
        print_line(console, "No experiment has finished yet. Next: triage sweep demo")
        return
    states = {
        (row.evaluation_id, row.gate): row.state
        for row in gate_rows([row.evaluation_id for row in evaluations])
    }
    records = [
        {
            "experiment": f"{row.cell_id}{random_mark(row)}",
            "gates": gates_of(row),
            "ED recall": states.get((row.evaluation_id, "ed_recall"), "n/a"),
            "ED F2": states.get((row.evaluation_id, "ed_f2"), "n/a"),
        }
        for row in evaluations
    ]
    title = "Gates on the test set, each by its own rule (ED false negatives are 1 - ED recall)"
    print_table(console, Table(title, records, "distance_to_gates"), MOST_MODELS)
    print_line(console, f"For one of them: triage gates {evaluations[0].cell_id}")


def _texts(evaluations: Sequence[Row], file: Path | None) -> dict[str, str] | None:
    """Texts of cases by digest: from the user's file, else those of synthetic cases; None without."""
    from flows.report.cases import synthetic_texts, texts_by_digest

    if file is not None:
        return texts_by_digest(file)
    return synthetic_texts({row.set_digest for row in evaluations}) or None


def _print_evaluation(
    evaluation: Row, texts: dict[str, str] | None, prevalence: float | None, from_file: bool
) -> None:
    name = f"{evaluation.cell_id}{random_mark(evaluation)} on {evaluation.evaluation_set}"
    basis = f"{origin_of(evaluation)}, rule {evaluation.primary_rule}"
    print_line(console, f"{name}: {verdict(evaluation)} ({basis})", style="bold")
    print_table(console, gate_table(evaluation.evaluation_id))

    sentences = (
        f"At this set's prevalence of {percent(evaluation.ed_prevalence)} ED: "
        f"precision {figure(evaluation.ed_precision)}, F2 {figure(evaluation.ed_f2)}."
    )
    if prevalence is not None:
        restated = at_prevalence(evaluation, prevalence)
        sentences += (
            f" At {percent(prevalence)}: precision {figure(restated.ed_precision)}, F2 "
            f"{figure(restated.ed_f2)} (same recall, same false alarms)."
        )
    print_line(console, sentences)
    _print_subgroups(evaluation.evaluation_id)
    _print_misses(evaluation, texts, from_file)


def gate_table(evaluation_id: str) -> Table:
    """The gates of an evaluation with counts, bound and method, and notes on them."""
    rows = gate_rows([evaluation_id])
    table = Table("Gates", [gate_record(row) for row in rows])
    notes = [
        f"{GATES[row.gate]} = {row.note}" for row in rows if row.note and row.value is not None
    ]
    return table.noted(*notes)


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
                figure(row.value, row.low, row.high) if is_number(row.value) else why_not(row.note)
            ),
            "interval by": row.method,
        }
        for row in rows
    ]
    print_table(console, Table("ED recall by subgroup", records, "subgroup_gaps"))


def _print_misses(evaluation: Row, texts: dict[str, str] | None, from_file: bool) -> None:
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
                f"{dropout.cases} cases; the others have none"
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
        text = None if texts is None else texts.get(miss.case_digest or "")
        if text is not None or from_file:
            print_line(console, f"    {printable(text or 'its text is not in that file')}")
