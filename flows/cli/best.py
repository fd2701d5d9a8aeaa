"""`triage best`: models ranked by a figure on `valid`, and the test figures of the best one alone. The
look at these is recorded before anything is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import uuid4

import typer

from flows.cli.experiments import find_evaluations
from flows.cli.gates import gate_table
from flows.cli.terminal import (
    AsJson,
    console,
    errors,
    print_json,
    print_line,
    refresh_warehouse,
)
from flows.report.figures import disclaimer, figure, interval, listed_name
from flows.report.rows import (
    Row,
    by_common_rules,
    by_test_set,
    evaluation_ids,
    find_study,
    leaderboard_rows,
    rows_of,
    study_rows,
)
from flows.report.table import Table, print_table
from tasks.bundle.bundle import ModelGone
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.corpus.manifest import DatasetManifest
from tasks.runtime.children import forked_steps
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, StepWarning
from tasks.runtime.home import home
from warehouse.connect import quoted

if TYPE_CHECKING:
    from tasks.bundle.decide import RankedBy

ARGMAX = "argmax"  # the rule of the leaderboard's accuracy

Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this precision, e.g. 4bit")
]
Megabytes = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="MB", help="most bytes of stored weights, in 10^6"),
]
OfStudy = Annotated[
    str | None, typer.Option(metavar="NAME", help="only this study; without it the last sweep's")
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
    from tasks.bundle.decide import RankedBy  # SciPy comes with it

    refresh_warehouse()
    found = find_study(study)
    if found is None:
        raise BadInput("The warehouse has no study yet; run `triage sweep demo` first.")

    study = found.study
    ranked_by = RankedBy(by, over_triage)
    candidates = candidates_of(study, precision, max_megabytes)
    ranking, absent_cells, other_cells = rank(candidates, ranked_by)
    if not ranking:
        others = ", ".join(row.study for row in study_rows() if row.study != study)
        elsewhere = f", or ask another study with --study: {others}" if others else ""
        raise BadInput(
            f"No such model of the study {study} is in {home()} any longer "
            f"({', '.join(absent_cells)}); run its sweep again{elsewhere}."
        )

    _land_look(ranking, ranked_by, study, precision, max_megabytes)
    asked = "any precision" if precision is None else f"precision {precision}"
    if max_megabytes is not None:
        asked += f", at most {max_megabytes:g} MB of weights"
    if as_json:
        print_json(_as_json(study, ranked_by, ranking, absent_cells + other_cells))
        return
    _print_ranking(f"{study}, {asked}", ranked_by, ranking)
    if absent_cells:
        print_line(
            console,
            f"Left out, since the models are no longer in {home()}: "
            f"{', '.join(absent_cells)}. Their sweep trains them again.",
        )
    if other_cells:
        print_line(
            console,
            "Left out, since their `valid` has other cases than that of the latest model: "
            f"{', '.join(other_cells)}. Run their sweep again to rank them beside it.",
        )
    _print_winner(ranking[0], study)


def _land_look(
    ranking: Sequence[Row],
    by: RankedBy,
    study: str,
    precision: str | None,
    max_megabytes: float | None,
) -> None:
    """Record the look, before anything is shown."""
    from tasks.landing import land_rows  # pyarrow comes with it

    now = datetime.now(UTC).replace(tzinfo=None)
    look_id = f"look-{study}-{now:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
    values = [{"training_id": row.training_id, "value": row.value} for row in ranking]
    of_winner = ("evaluation_id", "training_id", "value", "valid_digest", "set_digest")
    look = {
        "look_id": look_id,
        "looked_at": now,
        "study": study,
        "precision": precision,
        "max_megabytes": max_megabytes,
        "objective": by.name,
        "ranked": json.dumps(values),
        "candidates": len(ranking),
        **{column: getattr(ranking[0], column) for column in of_winner},
    }
    land_rows(look_id, "look", {"look": [look]})


def candidates_of(study: str, precision: str | None, max_megabytes: float | None) -> list[Row]:
    """The trained models of a study that are wanted, on the test set that was judged last."""
    board = [row for row in leaderboard_rows(evaluation_ids(study)) if not row.is_baseline]
    # Random weights show that a path works, no more.
    board = [row for row in board if not row.random_weights] or board
    if not board:
        raise BadInput(f"The study {study} has no finished experiment; run its sweep again.")

    board = by_test_set(board)[0]
    precisions = sorted({row.precision for row in board if row.precision})
    if precision is not None and precision not in precisions:
        raise BadInput(
            f"The study {study} has no model of precision {precision!r}; it has "
            f"{', '.join(precisions)}."
        )

    board = [row for row in board if precision in (None, row.precision)]
    most_bytes = (max_megabytes or 1e9) * 1e6
    fitting_models = [row for row in board if (row.stored_bytes or 0) <= most_bytes]
    if not fitting_models:
        smallest = min(row.stored_bytes or 0 for row in board) / 1e6
        raise BadInput(
            f"No such model of the study {study} has weights of at most "
            f"{max_megabytes:g} MB; the smallest has {smallest:.1f} MB."
        )
    return fitting_models


def rank(candidates: Sequence[Row], by: RankedBy) -> tuple[list[Row], list[str], list[str]]:
    """The models of this home that have one `valid`, that of the latest of them; the best first, of
    equal ones the smaller. Then the cells whose models are not in this home, and those whose models
    have another `valid`, on which a figure means something else.

    A ranked row also has its `bundle`, and its figure on `valid`: `value`, from `valid_cases` of
    which `valid_ed` are emergencies.
    """
    from tasks.bundle.decide import data_folder, valid_cases

    present = []
    absent_cells = []
    for row in candidates:
        try:
            model = bundle_of_evaluation(home(), row.evaluation_id)
            data = data_folder(home(), model.bundle.judged_on.dataset_digest)
        except ModelGone:  # its results stay where its data set is forgotten
            absent_cells.append(row.cell_id)
            continue
        present.append((row, model, DatasetManifest.read(data).digest_of("valid")))

    # One without a time counts as the earliest.
    latest = max(present, key=lambda entry: entry[0].finished_at or datetime.min, default=None)
    ranking = []
    other_cells = []
    # What the models' processes import is imported once.
    with forked_steps("tasks.bundle.loaded_model"):
        for row, model, digest in present:
            if latest is None or digest != latest[2]:
                other_cells.append(row.cell_id)
                continue
            cases = valid_cases(home(), model, _say)
            figures = {
                "bundle": model.bundle,
                "value": by.value(model.bundle, cases),
                "valid_cases": len(cases),
                "valid_ed": sum(case.label == "ED" for case in cases),
                "valid_digest": digest,
            }
            ranking.append(Row(**vars(row), **figures))

    ranking.sort(key=lambda row: (-row.value, row.stored_bytes or 0, row.cell_id))
    return ranking, absent_cells, other_cells


def _as_json(
    study: str, by: RankedBy, ranking: Sequence[Row], left_out: Sequence[str]
) -> dict[str, object]:
    """The ranking on `valid`, and the test figures of the first model alone, by its own rule."""
    first = ranking[0]
    (by_own_rule,) = by_common_rules([first], first.primary_rule)
    ranked = ("cell_id", "training_id", "random_weights", "primary_rule", "stored_bytes", "value")
    return {
        "study": study,
        "ranked_by": by.name,
        "valid_cases": first.valid_cases,
        "ranking": [{column: getattr(row, column) for column in ranked} for row in ranking],
        "left_out": left_out,
        "best": {name: value for name, value in vars(by_own_rule).items() if name != "bundle"},
    }


def _say(event: Event) -> None:
    if isinstance(event, StepWarning):
        print_line(errors, event.message)


def _print_ranking(asked: str, by: RankedBy, ranking: Sequence[Row]) -> None:
    first = ranking[0]
    has_step = first.valid_ed and by.figure == "ed-recall"
    step = f"; one emergency moves it by {1 / first.valid_ed:.3f}" if has_step else ""
    title = (
        f"{asked}: ranked by {by.name} on `valid` "
        f"({first.valid_cases} cases, {first.valid_ed} of them emergencies{step})"
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


def _print_winner(row: Row, study: str) -> None:
    looks = len(rows_of(f"look WHERE set_digest = {quoted(row.set_digest)}"))
    count = f"{looks} looks were" if looks > 1 else "one look was"
    title = (
        f"{row.cell_id} on its test set ({row.cases} cases), and the baselines on it, all decided by "
        f"the model's rule, {row.primary_rule}; this shows no other trained model's figures. "
        f"So far {count} recorded for this set"
    )
    board = leaderboard_rows(evaluation_ids(study))
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
    if row.primary_rule != ARGMAX:
        print_line(
            console,
            "By the most probable label (argmax), as in triage compare, its accuracy is "
            f"{interval(row, 'accuracy')}.",
        )

    print_table(console, gate_table(row.evaluation_id))
    if row.bundle.warning:
        print_line(console, row.bundle.warning, style="bold")

    print_line(console, f"Ask it: triage predict {name_to_ask(row)} -")
    print_line(console, disclaimer({row.set_digest}))


def name_to_ask(row: Row) -> str:
    """Its cell where that means this model alone, else its evaluation: another study may have
    trained the same cell.
    """
    ids = {
        evaluation.evaluation_id
        for latest in find_evaluations(row.cell_id, for_its_model=True)
        for evaluation in (latest, *latest.others)
        if evaluation.evaluation_set == row.evaluation_set
    }
    return row.cell_id if ids == {row.evaluation_id} else row.evaluation_id
