"""`triage best`: models ranked by a figure on `valid`, and the test figures of the best one alone. The
look at these is recorded before anything is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import typer

from flows.cli.terminal import (
    AsJson,
    console,
    errors,
    print_json,
    print_line,
    refresh_warehouse,
)
from flows.report.answer import against_linear
from flows.report.figures import disclaimer, figure, interval, listed_name
from flows.report.models import gate_table
from flows.report.rows import (
    CHEAP_BASELINES,
    Row,
    by_common_rules,
    by_test_set,
    claims_of,
    evaluation_ids,
    find_study,
    leaderboard_rows,
    rows_of,
    study_note,
)
from flows.report.table import Table, print_table
from tasks.bundle.bundle import ModelGone
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.corpus.manifest import DatasetManifest
from tasks.runtime.children import forked_steps
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, StepWarning
from tasks.runtime.home import home
from tasks.spec import KEPT
from warehouse.connect import quoted

OF_WINNER = ("evaluation_id", "training_id", "value", "valid_digest", "set_digest")

Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this precision, e.g. 4bit")
]
Megabytes = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="MB", help="most bytes of stored weights, in 10^6"),
]
OfStudy = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="only this study; without it, as triage compare does"),
]
By = Annotated[
    Literal["ed-recall", "macro-f1"],
    typer.Option("--by", help="rank by ED recall at a fixed over-triage, or by macro-F1"),
]
OverTriage = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="over-triage at which the ED recall is taken")
]


def best(
    precision: Precision = None,
    max_megabytes: Megabytes = None,
    study: OfStudy = None,
    by: By = "ed-recall",
    over_triage: OverTriage = 0.3,
    as_json: AsJson = False,
) -> None:
    """Rank models on `valid`, and show the test figures of the best one alone."""
    from tasks.landing import land_look  # pyarrow comes with it

    refresh_warehouse()
    found = find_study(study)
    if found is None:
        raise BadInput("The warehouse has no study yet; run `triage sweep demo` first.")
    name = found.study
    claims_of(name)
    board = leaderboard_rows(evaluation_ids(name))
    ranking, left_out = rank(candidates(board, name, precision, max_megabytes), by, over_triage)
    chosen = {(row.source_training_id, row.precision) for row in board if row.moved_rules != KEPT}
    left_out |= {
        row.cell_id: "its rule was not chosen at its precision"
        for row in board
        if row.moved_rules == KEPT and (row.source_training_id, row.precision) not in chosen
    }
    reasons = "; ".join(f"{cell} ({reason})" for cell, reason in left_out.items())
    if not ranking:
        raise BadInput(
            f"No such model of the study {name} can be asked: {reasons}. Run its sweep again, or "
            "ask another study with --study."
        )

    first = ranking[0]
    objective = "macro-F1 by each recipe's own rule"
    if by == "ed-recall":
        objective = f"ED recall at over-triage {over_triage:g}"
    # Before anything is shown.
    values = [{"training_id": row.training_id, "value": row.value} for row in ranking]
    land_look(
        name,
        precision=precision,
        max_megabytes=max_megabytes,
        objective=objective,
        ranked=json.dumps(values),
        candidates=len(ranking),
        **{column: getattr(first, column) for column in OF_WINNER},
    )

    of_linear = [
        row
        for row in board
        if row.recipe == CHEAP_BASELINES[-1] and row.set_digest == first.set_digest
    ]
    beside = against_linear(first, of_linear[0]) if of_linear else None
    if as_json:
        (by_own_rule,) = by_common_rules([first], first.primary_rule)
        columns = (
            "cell_id",
            "training_id",
            "random_weights",
            "primary_rule",
            "stored_bytes",
            "value",
        )
        print_json(
            {
                "study": name,
                "ranked_by": objective,
                "valid_cases": first.valid_cases,
                "ranking": [{key: getattr(row, key) for key in columns} for row in ranking],
                "left_out": list(left_out),
                "against_linear": beside,
                "best": {key: value for key, value in vars(by_own_rule).items() if key != "bundle"},
            }
        )
        return

    if beside:
        print_line(console, beside, style="bold")
    title = (
        f"{name}: ranked by {objective} on `valid` "
        f"({first.valid_cases} cases, {first.valid_ed} of them emergencies)"
    )
    records = [
        {
            "experiment": listed_name(row),
            "own rule": row.primary_rule,
            "weights\nMB": f"{(row.stored_bytes or 0) / 1e6:.1f}",
            "on\nvalid": figure(row.value),
        }
        for row in ranking
    ]
    print_table(console, Table(title, records))
    if left_out:
        print_line(console, f"Left out: {reasons}. Run their sweep again to rank them, too.")
    _print_winner(first, board)
    if note := study_note(name, "triage best --study STUDY asks one"):
        print_line(console, note)


def candidates(
    board: Sequence[Row], study: str, precision: str | None, max_megabytes: float | None
) -> list[Row]:
    """The trained models of a study's `board` that are wanted, on the test set that was judged last;
    moved adapters by the rule that was chosen again.
    """
    trained = [row for row in board if not row.is_baseline and row.moved_rules != KEPT]
    # Random weights show that a path works, no more.
    trained = [row for row in trained if not row.random_weights] or trained
    if not trained:
        raise BadInput(f"The study {study} has no finished experiment; run its sweep again.")

    models = by_test_set(trained)[0]
    fitting = [
        row
        for row in models
        if precision in (None, row.precision)
        and (row.stored_bytes or 0) <= (max_megabytes or 1e9) * 1e6
    ]
    if not fitting:
        precisions = ", ".join(sorted({row.precision for row in models}))
        smallest = min(row.stored_bytes or 0 for row in models) / 1e6
        raise BadInput(
            f"The study {study} has no such model; its precisions are {precisions}, and the "
            f"smallest model has {smallest:.1f} MB of weights."
        )
    return fitting


def rank(
    candidates: Sequence[Row], by: Literal["ed-recall", "macro-f1"], over_triage: float
) -> tuple[list[Row], dict[str, str]]:
    """The models of this home that have one `valid`, that of the latest of them; the best first, of
    equal ones the smaller. Then why other cells are left out: models that are not in this home, and
    models with another `valid`, on which a figure means something else.

    A ranked row also has its `bundle`, and its figure on `valid`: `value`, from `valid_cases` of
    which `valid_ed` are emergencies.
    """
    from tasks.bundle.decide import data_folder, figure_on_valid, valid_cases  # SciPy comes with it

    present = []
    left_out = {}
    for row in candidates:
        try:
            model = bundle_of_evaluation(home(), row.evaluation_id)
            data = data_folder(home(), model.bundle.judged_on.dataset_digest)
        except ModelGone:  # its results stay where its data set is forgotten
            left_out[row.cell_id] = f"its model is no longer in {home()}"
            continue
        present.append((row, model, DatasetManifest.read(data).digest_of("valid")))

    # One without a time counts as the earliest.
    latest = max(present, key=lambda entry: entry[0].finished_at or datetime.min, default=None)
    ranking = []
    # What the models' processes import is imported once.
    with forked_steps("tasks.bundle.loaded_model"):
        for row, model, digest in present:
            if latest is None or digest != latest[2]:
                left_out[row.cell_id] = "its `valid` has other cases than that of the latest model"
                continue
            cases = valid_cases(home(), model, _say)
            figures = {
                "bundle": model.bundle,
                "value": figure_on_valid(model.bundle, cases, by, over_triage),
                "valid_cases": len(cases),
                "valid_ed": sum(case.label == "ED" for case in cases),
                "valid_digest": digest,
            }
            ranking.append(Row(**vars(row), **figures))

    ranking.sort(key=lambda row: (-row.value, row.stored_bytes or 0, row.cell_id))
    return ranking, left_out


def _say(event: Event) -> None:
    if isinstance(event, StepWarning):
        print_line(errors, event.message)


def _print_winner(row: Row, board: Sequence[Row]) -> None:
    looks = len(rows_of(f"look WHERE set_digest = {quoted(row.set_digest)}"))
    title = (
        f"{row.cell_id} on its test set ({row.cases} cases), and the baselines on it, all decided by "
        f"the model's rule, {row.primary_rule}; this shows no other trained model's figures. "
        f"Looks recorded for this set so far: {looks}"
    )
    of_baselines = [
        other
        for other in board
        if other.is_baseline
        and other.set_digest == row.set_digest
        and (other.base_model, other.precision) in (("none", None), (row.base_model, row.precision))
    ]
    records = [
        {
            "experiment": listed_name(shown),
            f"accuracy by {row.primary_rule}": interval(shown, "accuracy"),
            "macro-F1": interval(shown, "macro_f1"),
            "ED recall": interval(shown, "ed_recall"),
            "over-triage": interval(shown, "over_triage"),
        }
        for shown in by_common_rules([row, *of_baselines], row.primary_rule)
    ]
    print_table(console, Table(title, records))
    print_table(console, gate_table(row.evaluation_id))
    if row.bundle.origin:
        print_line(console, row.bundle.origin)
    if row.bundle.warning:
        print_line(console, row.bundle.warning, style="bold")
    # Not its cell, which another study may have trained too.
    print_line(console, f"Ask it: triage predict {row.evaluation_id} -")
    print_line(console, disclaimer({row.set_digest}))
