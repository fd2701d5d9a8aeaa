"""What `triage best` does: it records a look, and prints the ranking and the test figures of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from rich.console import Console

from flows.cli.find_experiment import find_evaluations
from flows.cli.models.best_ranking import ModelRanking, Options, Ranked, candidates_of, rank
from flows.cli.results.gates_report import gate_table
from flows.cli.terminal import print_line
from flows.cli.waiting import load_what_waits
from flows.report.disclaimer import disclaimer
from flows.report.figures import ed_recall_figure, figure, why_not
from flows.report.gates import GateRow
from flows.report.names import listed_name, verdict
from flows.report.study import find_study, study_rows
from flows.report.table import ReportTable, print_lines, print_table
from flows.report.typed_rows import EvaluationRow, metrics_named, typed_rows
from tasks.landing import land_rows
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from warehouse.connect import quoted
from warehouse.health import bring_up_to_date

ARGMAX = "argmax"  # the rule of the leaderboard's accuracy


def print_best(console: Console, options: Options) -> None:
    """Rank, record the look, and print the one model's test figures. Raises BadInput."""
    load_what_waits()
    bring_up_to_date()
    study = find_study(options.study)
    if study is None:
        raise BadInput("The warehouse has no study yet; run `triage sweep demo` first.")

    candidates = candidates_of(study.study, options)
    ranking = rank(candidates, options.ranked_by)
    if not ranking.models:
        raise BadInput(_all_gone(study.study, ranking.absent_cells))

    _record(study.study, options, ranking.models)
    _print_ranking(console, study.study, options, ranking.models)
    for sentence in _left_out(ranking):
        print_line(console, sentence)

    _print_winner(console, ranking.models[0])


def _left_out(ranking: ModelRanking) -> Iterator[str]:
    """Which models are not in the ranking, and why: a sentence for each reason that holds."""
    if ranking.absent_cells:
        yield (
            f"Left out, since the models are no longer in {home()}: "
            f"{', '.join(ranking.absent_cells)}. Their sweep trains them again."
        )
    if ranking.other_cells:
        yield (
            "Left out, since their `valid` has other cases than that of the latest model: "
            f"{', '.join(ranking.other_cells)}. Run their sweep again to rank them beside it."
        )


def _all_gone(study: str, absent_cells: Sequence[str]) -> str:
    other_studies = [row.study for row in study_rows() if row.study != study]
    elsewhere = (
        f", or ask another study with --study: {', '.join(other_studies)}" if other_studies else ""
    )
    return (
        f"No such model of the study {study} is in {home()} any longer "
        f"({', '.join(absent_cells)}); run its sweep again{elsewhere}."
    )


def _record(study: str, options: Options, ranking: Sequence[Ranked]) -> None:
    """Land the look, before anything is shown."""
    now = datetime.now(UTC).replace(tzinfo=None)
    look_id = f"look-{study}-{now:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
    values = [{"training_id": model.row.training_id, "value": model.value} for model in ranking]
    winner = ranking[0]
    row = {
        "look_id": look_id,
        "looked_at": now,
        "study": study,
        "precision": options.precision,
        "max_megabytes": options.max_megabytes,
        "objective": options.ranked_by.name,
        "ranked": json.dumps(values),
        "candidates": len(ranking),
        "evaluation_id": winner.row.evaluation_id,
        "training_id": winner.row.training_id,
        "value": winner.value,
        "valid_digest": winner.valid_digest,
        "set_digest": winner.row.set_digest,
    }
    land_rows(look_id, "look", {"look": [row]})


def _print_ranking(
    console: Console, study: str, options: Options, ranking: Sequence[Ranked]
) -> None:
    first = ranking[0]
    name = options.ranked_by.name
    step = f"; one emergency moves it by {1 / first.ed:.3f}" if first.ed and "ED" in name else ""
    title = (
        f"{study}, {options.words}: ranked by {name} on `valid` "
        f"({first.cases} cases, {first.ed} of them emergencies{step})"
    )
    records = [
        {
            "experiment": listed_name(model.row),
            "own rule": model.row.primary_rule,
            "weights\nMB": f"{model.stored_bytes / 1e6:.1f}",
            "on\nvalid": figure(model.value),
        }
        for model in ranking
    ]
    print_lines(console, ReportTable.of(title, records))


@dataclass(frozen=True)
class _Look:
    look_id: str


def _print_winner(console: Console, winner: Ranked) -> None:
    row = winner.row
    looks = typed_rows(_Look, f"look WHERE set_digest = {quoted(row.set_digest)}")
    count = f"{len(looks)} looks were" if len(looks) > 1 else "one look was"
    title = (
        f"{row.cell_id} on its test set ({row.cases} cases), decided by its rule "
        f"{row.primary_rule}; this shows no other model's figures. "
        f"So far {count} recorded for this set"
    )
    figures = {
        f"accuracy by {row.primary_rule}": _by_own_rule(row, "accuracy"),
        "macro-F1": _by_own_rule(row, "macro_f1"),
        "ED recall": ed_recall_figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high),
        "over-triage": figure(row.over_triage, row.over_triage_low, row.over_triage_high),
        "gates": verdict(row),
    }
    print_table(console, ReportTable.of(title, [figures]))

    if row.primary_rule != ARGMAX:
        most_probable = figure(row.accuracy, row.accuracy_low, row.accuracy_high)
        print_line(
            console,
            (
                "By the most probable label (argmax), as in triage compare, its accuracy is "
                f"{most_probable}."
            ),
        )

    gates = typed_rows(
        GateRow, f"gate WHERE evaluation_id = {quoted(row.evaluation_id)} ORDER BY gate"
    )
    print_table(console, gate_table(gates))
    if winner.bundle.warning:
        print_line(console, winner.bundle.warning, style="bold")

    print_line(console, f"Ask it: triage predict {_name_to_ask(row)} -")
    print_line(console, disclaimer({row.set_digest}))


def _name_to_ask(row: EvaluationRow) -> str:
    """Its cell where that means this model alone, else its evaluation: another study may have
    trained the same cell.
    """
    choices = find_evaluations(row.cell_id, for_its_model=True)
    ids = {
        evaluation.evaluation_id
        for choice in choices
        for evaluation in (choice.evaluation, *choice.others)
        if evaluation.evaluation_set == row.evaluation_set
    }
    return row.cell_id if ids == {row.evaluation_id} else row.evaluation_id


def _by_own_rule(row: EvaluationRow, metric: str) -> str:
    """A figure of the decisions by the evaluation's primary rule: the leaderboard's accuracy is
    that of the most probable label.
    """
    stored_metric = metrics_named([metric]).get((row.evaluation_id, row.primary_rule, metric))
    if stored_metric is None or stored_metric.value is None:
        return why_not(stored_metric.note if stored_metric else None)
    return figure(stored_metric.value, stored_metric.low, stored_metric.high)
