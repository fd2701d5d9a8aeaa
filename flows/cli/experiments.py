"""The experiment that a user names on the command line: its evaluations, and its model."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from flows.cli.terminal import errors, print_line, printable, refresh_warehouse
from flows.report.rows import EARLIER, Row, grouped, rows_of
from tasks.bundle.bundle import BundledModel, read_bundle
from tasks.bundle.from_evaluation import WeightsGone, bundle_of_evaluation
from tasks.precisions import UNPACKED
from tasks.runtime.children import run_step
from tasks.runtime.errors import BadInput, TriageError
from tasks.runtime.events import Event, Note, StepWarning
from tasks.runtime.home import ask, expanded, home
from tasks.spec import KEPT, ExperimentSpec
from warehouse.connect import quoted


def origin_of(evaluation: Row) -> str:
    """Its cases, its studies and its date, in words: what tells it from others on a set."""
    studies = ", ".join(evaluation.studies or [EARLIER])
    judged_at = f"judged {evaluation.created_at:%Y-%m-%d %H:%M}"
    return f"{evaluation.cases} cases, study {studies}, {judged_at}"


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

    `experiment`: a cell, training or evaluation id, or an unambiguous prefix of one. Raises BadInput
    for another name, and lists what there is: without baselines if `for_its_model`, since they have
    no model.
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
        rows = [row for row in rows if not row.is_baseline]
        # The model of a baseline is refused elsewhere.
        matches = [row for row in matches if not row.is_baseline] or matches

    cells = sorted({row.cell_id for row in matches})
    if len(cells) > 1:
        raise BadInput(
            f"{experiment!r} is the beginning of {len(cells)} experiments: {', '.join(cells)}; "
            "give one whole."
        )
    if not cells:
        raise BadInput(_why_absent(experiment, sorted({row.cell_id for row in rows})))

    latest_rows = []
    for group in grouped(matches, lambda row: (row.evaluation_set, row.random_weights)).values():
        # A result of a sweep that was killed may be of no study yet.
        *others, latest = sorted(group, key=lambda row: row.studies not in (None, [EARLIER]))
        latest.others = others[::-1]
        latest_rows.append(latest)
    return sorted(latest_rows, key=matches.index)


def _why_absent(experiment: str, cells: Sequence[str]) -> str:
    """Why no finished experiment has this name, and which have another."""
    sealed = rows_of(
        "sealed_evaluation JOIN evaluation USING (evaluation_id) "
        f"WHERE starts_with(evaluation_id, {quoted(experiment)}) OR starts_with(training_id, {quoted(experiment)})"
    )
    for row in sealed:
        return f"{experiment} is of the study {row.study}, which is sealed; `triage compare {row.study}` says how far it is."
    unfinished = rows_of(
        f"experiment WHERE starts_with(training_id, {quoted(experiment)}) AND status <> 'completed'"
    )
    for row in unfinished:
        reason = " ".join(str(row.error or "no reason is known").split()).rstrip(".")
        return f"{row.cell_id} has {row.status} and holds no model ({reason}); run its sweep again."
    for path in (home() / "experiments").glob("*/"):
        if path.name.startswith(experiment):
            return f"{path.name} is not finished yet; run its sweep to the end."

    sentence = f"The warehouse holds no finished experiment {experiment!r}"
    if not cells:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."
    names = get_close_matches(experiment, cells, len(cells), cutoff=0)
    return f"{sentence}; it has, closest name first: {', '.join(names)}."


def find_model(name: str, precision: str | None = None) -> BundledModel:
    """`name`: a folder with a bundle, or a cell, training or evaluation id, or the beginning of one.
    `precision`: that to which its adapter was moved, of an experiment. The rule of a moved adapter
    is the one chosen again, never the one that it had.

    Raises BadInput, with the nearest names, where there is no such finished experiment, and for a
    folder with a `precision`.
    """
    folder = expanded(name)
    if "/" in name or name in (".", "..") or ask(Path.is_dir, folder):
        model = read_bundle(folder)  # which says what is missing, if anything is
        if precision is not None:
            raise BadInput(
                f"{name} is an export already, without the cases that choose a threshold again; "
                "name the experiment itself."
            )
        if model.bundle.origin:
            print_line(errors, model.bundle.origin)
        return model

    refresh_warehouse()
    choices = find_evaluations(name, for_its_model=True)
    on_test = [row for row in choices if row.evaluation_set == "test"]
    if not on_test:
        # The id of an evaluation on a further set names that one alone: its model has others.
        of_model = find_evaluations(choices[-1].training_id, for_its_model=True)
        on_test = [row for row in of_model if row.evaluation_set == "test"]
    if not on_test:
        raise BadInput(f"{name!r} was never judged on its test set; run its sweep again.")

    # Real weights before random ones, and the latest of them.
    evaluation = sorted(on_test, key=lambda row: not row.random_weights)[-1]
    if evaluation.moved_rules == KEPT or (precision and not evaluation.is_baseline):
        evaluation = _chosen_at(precision, evaluation)
    try:
        model = bundle_of_evaluation(home(), evaluation.evaluation_id)
    except WeightsGone as gone:
        if gone.spec is None:
            raise
        _make_weights(gone.spec)
        try:
            model = bundle_of_evaluation(home(), evaluation.evaluation_id)
        except WeightsGone as others:
            raise BadInput(
                f"The weights of {gone.spec.title} that were made are not those that were judged: "
                "their source or MLX has changed; run its sweep again."
            ) from others

    # On which evaluation the model's rule and gates rest, apart from what a program reads.
    rests = f"{evaluation.cell_id}: its evaluation on test, {origin_of(evaluation)}"
    origin = model.bundle.origin
    sentences = (f"{rests} ({evaluation.evaluation_id}).", origin, note_on_others(evaluation))
    print_line(errors, " ".join(filter(None, sentences)))
    return model


def _chosen_at(precision: str | None, evaluation: Row) -> Row:
    """The latest evaluation of the same adapter on the same cases at a precision, else at its own, by
    a rule that was chosen there. Raises BadInput where there is none.
    """

    def key(row: Row) -> str:
        return "bf16" if row.precision.startswith(UNPACKED) else str(row.precision)

    precision = precision or key(evaluation)
    source = evaluation.source_training_id or evaluation.training_id
    rows = rows_of(
        "evaluation_summary WHERE evaluation_set = 'test' AND moved_rules IS DISTINCT FROM 'kept' "
        f"AND coalesce(source_training_id, training_id) = {quoted(source)} "
        f"AND set_digest = {quoted(evaluation.set_digest)} ORDER BY created_at, evaluation_id"
    )
    by_precision = {key(row): row for row in rows}
    if precision not in by_precision and evaluation.recipe_kind == "with_linear":
        raise BadInput(
            f"{evaluation.cell_id} decides together with the linear baseline at its own precision "
            "alone; leave out --precision, or name the experiment without it."
        )
    if precision not in by_precision:
        raise BadInput(
            f"The rule of {evaluation.cell_id} was chosen at {', '.join(by_precision)}, and not at "
            f"{precision}, where its threshold means something else; run its sweep with "
            f'scoring.move_adapters = ["{precision}"], which chooses it again, or says why it cannot.'
        )
    row = by_precision[precision]
    row.others = []
    return row


def _make_weights(spec: ExperimentSpec) -> None:
    """Make the weights of an experiment that another machine has trained. Raises BadInput where they
    cannot be had.
    """
    from tasks.models.convert import QuantizeJob
    from tasks.models.sources.fetch import fetch_base

    def say(event: Event) -> None:
        if isinstance(event, Note | StepWarning):
            print_line(errors, printable(event.message))

    print_line(errors, f"The weights of {spec.title} are not in {home()} and are made now.")
    try:
        source = fetch_base(spec.model, home(), lambda line: say(Note(line)))
        group_size = spec.training.group_size
        job = QuantizeJob(
            source=source, root=home(), precision=spec.precision, group_size=group_size
        )
        log = home() / "logs" / f"quantize-{source.name}"
        run_step(
            "tasks.models.convert:run_quantize", job.model_dump(mode="json"), log, on_event=say
        )
    except TriageError as error:
        raise BadInput(f"The weights of {spec.title} cannot be made here: {error}") from error
