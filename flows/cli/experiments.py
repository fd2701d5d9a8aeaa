"""The experiment that a user names on the command line: its evaluations, and its model."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from flows.cli.terminal import errors, print_line, printable, refresh_warehouse
from flows.report.rows import EARLIER, Row, grouped, rows_of
from tasks.bundle.bundle import BundledModel, read_bundle
from tasks.bundle.from_evaluation import WeightsGone, bundle_of_evaluation
from tasks.runtime.children import is_interrupted
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.events import Event, Note, ProgressReport, SourceReport, StepWarning
from tasks.runtime.home import ask, expanded, home
from warehouse.connect import quoted
from warehouse.query import query_rows


class SeveralExperiments(BadInput):
    """A name is the beginning of more than one finished experiment."""


def origin_of(evaluation: Row) -> str:
    """Its cases, its studies and its date, in words: what tells it from others on a set."""
    studies = evaluation.studies or [EARLIER]
    study_names = f"stud{'y' if len(studies) == 1 else 'ies'} {', '.join(studies)}"
    judged_at = f"judged {evaluation.created_at:%Y-%m-%d %H:%M}"
    return f"{evaluation.cases} cases, {study_names}, {judged_at}"


def note_on_others(evaluation: Row) -> str | None:
    """The sentence that names the others on its set; None where there is none."""
    if not evaluation.others:
        return None
    others = "; ".join(f"{other.evaluation_id} ({origin_of(other)})" for other in evaluation.others)
    return f"Not used on {evaluation.evaluation_set}; to use one, give its id: {others}."


def find_evaluations(experiment: str, for_its_model: bool = False) -> list[Row]:
    """The latest evaluation of an experiment on each of its sets, and of its run on random weights;
    one that belongs to no study only if there is no other. Its `others` are those on the same set,
    those of a study first.

    `experiment`: a cell, training or evaluation id, or an unambiguous prefix of one. Raises
    SeveralExperiments for an ambiguous prefix, and otherwise BadInput, which lists what there is:
    without baselines if `for_its_model`, since they have no model.
    """
    rows = rows_of("evaluation_summary ORDER BY finished_at, created_at")
    # A training id begins with its cell id.
    matches = [
        row for row in rows if experiment in (row.cell_id, row.training_id, row.evaluation_id)
    ] or [
        row
        for row in rows
        if row.training_id.startswith(experiment) or row.evaluation_id.startswith(experiment)
    ]
    if for_its_model:
        rows = [row for row in rows if row.recipe_kind != "baseline"]
        # The model of a baseline is refused elsewhere.
        matches = [row for row in matches if row.recipe_kind != "baseline"] or matches

    cells = sorted({row.cell_id for row in matches})
    if len(cells) > 1:
        raise SeveralExperiments(
            f"{experiment!r} is the beginning of {len(cells)} experiments: {', '.join(cells)}; "
            "give one whole."
        )
    if not cells:
        raise _unknown(experiment, sorted({row.cell_id for row in rows}))

    # One on each set and kind of weights, in the order of the last ones.
    groups = grouped(matches, lambda row: (row.evaluation_set, row.random_weights))
    latest_rows = []
    for group in groups.values():
        # A result of a sweep that was killed may be of no study yet.
        *others, latest = sorted(group, key=lambda row: row.studies not in (None, [EARLIER]))
        latest.others = others[::-1]
        latest_rows.append(latest)
    return sorted(latest_rows, key=matches.index)


def _unknown(experiment: str, cells: Sequence[str]) -> BadInput:
    sentence = f"The warehouse holds no finished experiment {experiment!r}"
    if not cells:
        return BadInput(f"{sentence}, and no other yet; run `triage sweep demo` first.")

    def similarity(name: str) -> float:
        return SequenceMatcher(None, experiment.lower(), name.lower()).ratio()

    names = ", ".join(sorted(cells, key=similarity, reverse=True))
    return BadInput(f"{sentence}; it has, closest name first: {names}.")


def find_model(name: str) -> BundledModel:
    """`name`: a folder with a bundle, or a cell, training or
    evaluation id, or the beginning of one.

    Raises BadInput, with the nearest names, where there is no such finished experiment.
    """
    folder = expanded(name)
    if "/" in name or name in (".", "..") or ask(Path.is_dir, folder):
        return read_bundle(folder)  # which says what is missing, if anything is

    refresh_warehouse()
    try:
        choices = find_evaluations(name, for_its_model=True)
    except SeveralExperiments:
        raise  # they are finished, whatever else begins so
    except BadInput as error:
        raise _why_unfinished(name) or error from error

    on_test = [row for row in choices if row.evaluation_set == "test"]
    if not on_test:
        # The id of an evaluation on a further set names that one alone: its model has others.
        of_model = find_evaluations(choices[-1].training_id, for_its_model=True)
        on_test = [row for row in of_model if row.evaluation_set == "test"]
    if not on_test:
        raise BadInput(f"{name!r} was never judged on its test set; run its sweep again.")

    # Real weights before random ones, and the latest of them.
    real = [row for row in on_test if not row.random_weights]
    evaluation = (real or on_test)[-1]
    try:
        model = bundle_of_evaluation(home(), evaluation.evaluation_id)
    except WeightsGone as gone:
        make_weights(gone)
        try:
            model = bundle_of_evaluation(home(), evaluation.evaluation_id)
        except WeightsGone as others:
            raise BadInput(
                f"The weights that are made here for {evaluation.cell_id} are not those that were "
                "judged: their source or MLX has changed; run its sweep again."
            ) from others

    # On which evaluation the model's rule and gates rest, apart from what a program reads.
    rests = f"{evaluation.cell_id}: its evaluation on test, {origin_of(evaluation)}"
    sentences = (f"{rests} ({evaluation.evaluation_id}).", note_on_others(evaluation))
    print_line(errors, " ".join(sentence for sentence in sentences if sentence))
    return model


def make_weights(gone: WeightsGone) -> None:
    """Make weights that are not in this home, by the steps of a sweep, which says how far they are
    on standard error. Raises BadInput where they cannot be had.
    """
    if gone.spec is None:
        raise gone

    from deployments.server import used
    from flows.cli.sweep import EarlyExit  # before Prefect, whose log it quietens

    early_exit = EarlyExit(errors)
    line = f"The weights of {gone.spec.title} are not in {home()} and are made now."
    print_line(errors, f"{line} Starting Prefect ...")
    with early_exit.interruptible():
        early_exit.start_server()  # which ends with this process: Prefect still sends it what was logged
        from flows.sweep import make_variant
        from tasks.progress import listening

        with used(early_exit.server), errors.status("") as status:

            def show(title: str, event: Event) -> None:
                match event:
                    case ProgressReport():
                        status.update(f"{title}  {event.what}  ({event.done} of {event.of})")
                    case SourceReport():
                        print_line(errors, f"weights  {event.model}: {event.source}")
                    case Note() | StepWarning():
                        print_line(errors, printable(event.message))

            with listening(show):
                state = make_variant(gone.spec, return_state=True)

        if is_interrupted():
            raise KeyboardInterrupt

    error = None if state.is_completed() else state.result(raise_on_failure=False)
    if isinstance(error, TriageError):
        raise BadInput(f"The weights of {gone.spec.title} cannot be made here: {error}") from error
    if isinstance(error, Exception):
        raise error


def _why_unfinished(experiment: str) -> BadInput | None:
    """The sentence for an experiment that failed or was interrupted, named by the beginning
    of its id; None for any other.
    """
    failed_runs = query_rows(
        "SELECT cell_id, status, error FROM experiment "
        f"WHERE starts_with(training_id, {quoted(experiment)}) AND status <> 'completed'"
    ).rows
    if failed_runs:
        cell_id, status, error = failed_runs[-1]
        reason = " ".join(str(error or "no reason is known").split()).rstrip(".")
        return BadInput(
            f"{cell_id} has {status} and holds no model ({reason}); run its sweep again."
        )

    for path in sorted((home() / "experiments").glob("*/")):
        if path.name.startswith(experiment):
            return BadInput(f"{path.name} is not finished yet; run its sweep to the end.")
    return None
