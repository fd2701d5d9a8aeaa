"""Finds the evaluations of the experiment that a user names on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher

from flows.report.study import EARLIER
from flows.report.typed_rows import typed_rows
from tasks.runtime.errors import BadInput


class SeveralExperiments(BadInput):
    """A name is the beginning of more than one finished experiment."""


@dataclass(frozen=True)
class EvaluationSummary:
    """Columns of `evaluation_summary`: an evaluation under its primary rule."""

    evaluation_id: str
    training_id: str
    cell_id: str
    recipe_kind: str
    evaluation_set: str
    set_digest: str
    random_weights: bool | None
    cases: int
    primary_rule: str
    verdict: str
    ed_prevalence: float
    ed_recall: float | None
    ed_precision: float | None
    ed_f2: float | None
    studies: list[str] | None
    created_at: datetime

    @property
    def is_of_a_study(self) -> bool:
        """Whether a sweep names it: a result of one that was killed may be of no study yet."""
        return self.studies is not None and self.studies != [EARLIER]

    @property
    def origin(self) -> str:
        """Its cases, its studies and its date, in words: what tells it from others on a set."""
        studies = self.studies or [EARLIER]
        study_names = f"stud{'y' if len(studies) == 1 else 'ies'} {', '.join(studies)}"
        return f"{self.cases} cases, {study_names}, judged {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def ids(self) -> tuple[str, str, str]:
        return self.cell_id, self.training_id, self.evaluation_id

    def begins_with(self, name: str) -> bool:
        """Whether the training or evaluation id begins so. A training id begins with its cell id."""
        return self.training_id.startswith(name) or self.evaluation_id.startswith(name)


@dataclass(frozen=True)
class EvaluationChoice:
    """The evaluation that is taken of those on one set; the others, those of a study first."""

    evaluation: EvaluationSummary
    others: tuple[EvaluationSummary, ...]

    @property
    def other_evaluations_note(self) -> str | None:
        """The sentence that names the others; None where there is none."""
        if not self.others:
            return None
        alternatives = "; ".join(f"{other.evaluation_id} ({other.origin})" for other in self.others)
        evaluation_set = self.evaluation.evaluation_set
        return f"Not used on {evaluation_set}; to use one, give its id: {alternatives}."


def find_evaluations(experiment: str, for_its_model: bool = False) -> list[EvaluationChoice]:
    """The latest evaluation of an experiment on each of its sets, and of its run on random weights;
    one that belongs to no study only if there is no other.

    `experiment`: a cell, training or evaluation id, or an unambiguous prefix of one. Raises
    SeveralExperiments for an ambiguous prefix, and otherwise BadInput, which lists what there is:
    without baselines if `for_its_model`, since they have no model.
    """
    evaluations = typed_rows(
        EvaluationSummary, "evaluation_summary ORDER BY finished_at, created_at"
    )
    exact = [row for row in evaluations if experiment in row.ids]
    matches = exact or [row for row in evaluations if row.begins_with(experiment)]
    if for_its_model:
        matches = _of_models(matches) or matches  # the model of a baseline is refused elsewhere
        evaluations = _of_models(evaluations)

    cells = sorted({row.cell_id for row in matches})
    refuse_several(experiment, cells)
    if not cells:
        raise BadInput(_unknown(experiment, {row.cell_id for row in evaluations}))

    return _latest(matches)


def refuse_several(experiment: str, cells: Sequence[str]) -> None:
    """Raise SeveralExperiments where a name is the beginning of more than one cell."""
    if len(cells) > 1:
        raise SeveralExperiments(
            f"{experiment!r} is the beginning of {len(cells)} experiments: {', '.join(cells)}; "
            "give one whole."
        )


def _of_models(evaluations: Sequence[EvaluationSummary]) -> list[EvaluationSummary]:
    """Those of trained models, without the baselines."""
    return [row for row in evaluations if row.recipe_kind != "baseline"]


def _latest(evaluations: list[EvaluationSummary]) -> list[EvaluationChoice]:
    """One on each set and kind of weights, in the order of the last ones."""
    groups: dict[tuple[str, bool | None], list[EvaluationSummary]] = {}
    for row in evaluations:
        groups.setdefault((row.evaluation_set, row.random_weights), []).append(row)
    latest = [_of_group(group) for group in groups.values()]
    return sorted(latest, key=lambda choice: evaluations.index(choice.evaluation))


def _of_group(evaluations: Sequence[EvaluationSummary]) -> EvaluationChoice:
    """`evaluations`: the latest last."""
    *other_evaluations, evaluation = sorted(evaluations, key=lambda row: row.is_of_a_study)
    return EvaluationChoice(evaluation, tuple(reversed(other_evaluations)))


def _unknown(experiment: str, cells: set[str]) -> str:
    sentence = f"The warehouse holds no finished experiment {experiment!r}"
    if not cells:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."
    names = ", ".join(_by_similarity(experiment, cells))
    return f"{sentence}; it has, closest name first: {names}."


def _by_similarity(name: str, candidates: set[str]) -> list[str]:
    def similarity(candidate: str) -> float:
        return SequenceMatcher(None, name.lower(), candidate.lower()).ratio()

    # Sorted twice, as a set has no order: names of equal similarity stand in alphabetical order.
    return sorted(sorted(candidates), key=similarity, reverse=True)
