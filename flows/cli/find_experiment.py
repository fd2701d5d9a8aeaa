"""Finds the evaluations of the experiment that a user names on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from flows.report.typed_rows import typed_rows
from tasks.runtime.errors import BadInput


@dataclass(frozen=True)
class Evaluation:
    """Columns of `evaluation_summary`: an evaluation under its primary rule."""

    evaluation_id: str
    training_id: str
    cell_id: str
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

    @property
    def ids(self) -> tuple[str, str, str]:
        return self.cell_id, self.training_id, self.evaluation_id

    def begins_with(self, name: str) -> bool:
        """Whether the training or evaluation id begins so. A training id begins with its cell id."""
        return self.training_id.startswith(name) or self.evaluation_id.startswith(name)


def find_evaluations(experiment: str) -> list[Evaluation]:
    """The latest evaluation of an experiment on each of its sets, and of its run on random weights.

    `experiment`: a cell, training or evaluation id, or an unambiguous beginning of one. Raises
    BadInput for anything else.
    """
    evaluations = typed_rows(Evaluation, "evaluation_summary ORDER BY finished_at, created_at")
    exact = [row for row in evaluations if experiment in row.ids]
    matches = exact or [row for row in evaluations if row.begins_with(experiment)]

    cells = sorted({row.cell_id for row in matches})
    if len(cells) > 1:
        raise BadInput(
            f"{experiment!r} is the beginning of {len(cells)} experiments: {', '.join(cells)}; "
            "give one whole."
        )
    if not cells:
        raise BadInput(_unknown(experiment, {row.cell_id for row in evaluations}))
    return _latest(matches)


def _latest(evaluations: list[Evaluation]) -> list[Evaluation]:
    """The last evaluation on each set and kind of weights, in the given order."""
    last = {(row.evaluation_set, row.random_weights): row for row in evaluations}
    return [row for row in evaluations if row in last.values()]


def _unknown(experiment: str, cells: set[str]) -> str:
    sentence = f"The warehouse holds no finished experiment {experiment!r}"
    if not cells:
        return f"{sentence}, and no other yet; run `triage sweep demo` first."
    names = ", ".join(_by_similarity(experiment, cells))
    return f"{sentence}; it has, the most similar name first: {names}."


def _by_similarity(name: str, candidates: set[str]) -> list[str]:
    def similarity(candidate: str) -> float:
        return SequenceMatcher(None, name.lower(), candidate.lower()).ratio()

    return sorted(sorted(candidates), key=similarity, reverse=True)
