"""The model that a user names: an experiment of this home, or a folder that `triage export` wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flows.cli.find_experiment import EvaluationChoice, SeveralExperiments, find_evaluations
from flows.cli.models.unfinished import why_unfinished
from flows.cli.terminal import errors, print_line
from flows.cli.waiting import load_what_waits
from tasks.bundle.bundle import BundledModel, read_bundle
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask, expanded, home
from warehouse.health import bring_up_to_date


def find_model(name: str) -> BundledModel:
    """`name`: a folder with a bundle, or a cell, training or
    evaluation id, or the beginning of one.

    Raises BadInput, with the nearest names, where there is no such finished experiment.
    """
    folder = expanded(name)
    if _looks_like_a_folder(name, folder):
        return read_bundle(folder)  # which says what is missing, if anything is

    load_what_waits()
    bring_up_to_date()
    try:
        evaluations = find_evaluations(name, for_its_model=True)
    except SeveralExperiments:
        raise  # they are finished, whatever else begins so
    except BadInput as error:
        raise why_unfinished(name) or error from error

    test_choices = _on_test(evaluations) or _on_test(_of_same_training(evaluations[-1]))
    if not test_choices:
        raise BadInput(f"{name!r} was never judged on its test set; run its sweep again.")

    # Real weights before random ones, and the latest of them.
    real_choices = [
        choice for choice in test_choices if not choice.evaluation.random_weights
    ] or test_choices
    latest = real_choices[-1]
    model = bundle_of_evaluation(home(), latest.evaluation.evaluation_id)
    _say_which(latest)

    return model


def _on_test(choices: Iterable[EvaluationChoice]) -> list[EvaluationChoice]:
    return [choice for choice in choices if choice.evaluation.evaluation_set == "test"]


def _of_same_training(choice: EvaluationChoice) -> list[EvaluationChoice]:
    """Those of the model that was judged there: the id of an evaluation on a further set names that
    one alone.
    """
    return find_evaluations(choice.evaluation.training_id, for_its_model=True)


def _say_which(choice: EvaluationChoice) -> None:
    """Say on which evaluation the model's rule and gates rest, apart from what a program reads."""
    evaluation = choice.evaluation
    rests = (
        f"{evaluation.cell_id}: its evaluation on test, {evaluation.origin} "
        f"({evaluation.evaluation_id})."
    )
    print_line(errors, " ".join(filter(None, (rests, choice.other_evaluations_note))))


def _looks_like_a_folder(name: str, folder: Path) -> bool:
    return "/" in name or name in (".", "..") or ask(Path.is_dir, folder)
