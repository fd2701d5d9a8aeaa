"""`triage gates`: the safety gates of an experiment, its subgroups, and the emergencies that it missed;
without a name the gates of every experiment of a study.
"""

from __future__ import annotations

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
from flows.report.figures import disclaimer, figure, metric_cell, percent, random_mark, verdict
from flows.report.models import gate_rows, gate_table, gates_of
from flows.report.rows import (
    Row,
    at_prevalence,
    check_prevalence,
    rows_of,
    studied,
    study_note,
)
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
    typer.Argument(help="name of an experiment, or an id, or the beginning of one; none: all"),
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
    study = None
    if experiment is not None:
        # The latest evaluation on each of its sets.
        evaluations = find_evaluations(experiment)
    elif check:
        raise BadInput("--check needs an experiment; triage gates lists them.")
    else:
        study = next(iter(studied()), None)
        evaluations = [row for row in study.board if not row.is_baseline] if study else []

    if as_json:
        print_json(
            [
                {
                    "experiment": row.cell_id,
                    "evaluation_id": row.evaluation_id,
                    "evaluation_set": row.evaluation_set,
                    "random_weights": row.random_weights,
                    "rule": row.primary_rule,
                    "verdict": verdict(row),
                    "gates": [vars(gate) for gate in gate_rows([row.evaluation_id])],
                }
                for row in evaluations
            ]
        )
    elif experiment is not None:
        _print_experiment(evaluations, show_text, prevalence)
    elif not evaluations:
        print_line(console, "No experiment has finished yet. Next: triage sweep demo")
    else:
        _print_all(evaluations)
        command = "triage compare STUDY --gates shows those of one"
        if study and study.name and (note := study_note(study.name, command)):
            print_line(console, note)

    if check and any(row.verdict != "passes_gates" for row in evaluations):
        raise typer.Exit(1)


def _print_all(evaluations: list[Row]) -> None:
    """A line for each experiment: its verdict, and the state of each gate."""
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


def _print_experiment(evaluations: list[Row], file: Path | None, prevalence: float | None) -> None:
    from flows.report.cases import synthetic_texts, texts_by_digest

    # Of cases by their digest: from the user's file, else those of synthetic cases.
    texts: dict[str, str] = (
        texts_by_digest(file)
        if file is not None
        else synthetic_texts({row.set_digest for row in evaluations})
    )
    missing = "its text is not in that file" if file is not None else None
    for row in evaluations:
        name = f"{row.cell_id}{random_mark(row)} on {row.evaluation_set}"
        basis = f"{origin_of(row)}, rule {row.primary_rule}"
        print_line(console, f"{name}: {verdict(row)} ({basis})", style="bold")
        print_table(console, gate_table(row.evaluation_id))
        restated = [(f"this set's prevalence of {percent(row.ed_prevalence)} ED", row)]
        if prevalence is not None:
            restated.append((percent(prevalence), at_prevalence(row, prevalence)))
        for place, by in restated:
            figures = f"precision {figure(by.ed_precision)}, F2 {figure(by.ed_f2)}"
            print_line(console, f"At {place}: {figures}.")
        subgroups = [
            {
                "subgroup": f"{one.field} {one.subgroup}",
                "ED cases": str(one.n),
                "ED recall": metric_cell(one),
                "interval by": one.method,
            }
            for one in rows_of(
                f"subgroup_metric WHERE evaluation_id = {quoted(row.evaluation_id)} "
                "AND metric = 'ed_recall' ORDER BY field, subgroup"
            )
        ]
        if subgroups:
            print_table(console, Table("ED recall by subgroup", subgroups, "subgroup_gaps"))
        else:
            print_line(console, NO_SUBGROUPS)
        _print_misses(row, texts, missing)
        if note := note_on_others(row):
            print_line(console, note)
    print_line(console, disclaimer({row.set_digest for row in evaluations}))


def _print_misses(evaluation: Row, texts: dict[str, str], missing: str | None) -> None:
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
        reason = notes[0].note.removeprefix("not available: ") if notes else "no decision"
        count = f"not available for {len(emergencies)} ED cases: {reason}"
    print_line(console, f"Missed emergencies: {count}")

    for miss in misses:
        decision = f"decided {miss.decision}, p(ED) {miss.p_ed:.3f}{FLAGS[miss.review]}"
        print_line(console, printable(f"  {miss.case_id}  {decision}"))
        if text := texts.get(miss.case_digest or "", missing):
            print_line(console, f"    {printable(text)}")
