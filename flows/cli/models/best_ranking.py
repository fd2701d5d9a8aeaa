"""The models that `triage best` asks for, ranked by a figure on `valid`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.cli.terminal import errors, print_line
from flows.report.leaderboard import by_test_set
from flows.report.study import evaluation_ids
from flows.report.typed_rows import EvaluationRow, leaderboard_rows
from tasks.bundle.bundle import Bundle, BundledModel, ModelGone
from tasks.bundle.from_evaluation import bundle_of_evaluation
from tasks.bundle.valid_scores import Figure, RankedBy, data_folder, emergencies, valid_cases
from tasks.corpus.manifest import DatasetManifest
from tasks.runtime.errors import BadInput
from tasks.runtime.events import Event, StepWarning
from tasks.runtime.home import home
from tasks.runtime.processes import forked_steps


@dataclass(frozen=True)
class Options:
    """The options of `triage best`: which models, and what they are ranked by on `valid`."""

    precision: str | None
    max_megabytes: float | None
    study: str | None
    by: Figure
    over_triage: float

    @property
    def ranked_by(self) -> RankedBy:
        return RankedBy(self.by, self.over_triage)

    @property
    def words(self) -> str:
        """What was asked for beside the study, in words."""
        precision = "any precision" if self.precision is None else f"precision {self.precision}"
        if self.max_megabytes is None:
            return precision
        return f"{precision}, at most {self.max_megabytes:g} MB of weights"


@dataclass(frozen=True)
class Ranked:
    """A model with its figure on `valid`, from `cases` of which `ed` are emergencies."""

    row: EvaluationRow
    stored_bytes: int
    bundle: Bundle
    value: float
    cases: int
    ed: int
    valid_digest: str

    @property
    def order(self) -> tuple[float, int, str]:
        """The best first; of equal ones the smaller."""
        return -self.value, self.stored_bytes, self.row.cell_id


@dataclass(frozen=True)
class ModelRanking:
    """`models`: on one `valid`, the best first. `absent_cells`: whose models are not in this home;
    `other_cells`: whose models have another `valid`, on which a figure means something else.
    """

    models: list[Ranked]
    absent_cells: list[str]
    other_cells: list[str]


@dataclass(frozen=True)
class _PresentModel:
    """A model that is in this home, with its data set."""

    row: EvaluationRow
    stored_bytes: int
    bundled: BundledModel
    valid_digest: str

    @classmethod
    def of(cls, row: EvaluationRow, stored_bytes: int) -> _PresentModel:
        """Raises ModelGone where the model or its data set is not in this home."""
        bundled = bundle_of_evaluation(home(), row.evaluation_id)
        data = data_folder(home(), bundled.bundle.judged_on.dataset_digest)
        return cls(row, stored_bytes, bundled, DatasetManifest.read(data).digest_of("valid"))

    def ranked(self, by: RankedBy) -> Ranked:
        """Score it on `valid`, if it was not before."""
        bundle = self.bundled.bundle
        scored = valid_cases(home(), self.bundled, _say)
        return Ranked(
            self.row,
            self.stored_bytes,
            bundle,
            by.value(bundle, scored.cases),
            len(scored.cases),
            emergencies(scored.cases),
            scored.digest,
        )


def candidates_of(study: str, options: Options) -> list[tuple[EvaluationRow, int]]:
    """The trained models of a study that are wanted, on the test set that was judged last, with the
    bytes of their weights.
    """
    board = [
        row for row in leaderboard_rows(evaluation_ids(study)) if row.recipe_kind != "baseline"
    ]
    # Random weights show that a path works, no more.
    board = [row for row in board if not row.random_weights] or board
    if not board:
        raise BadInput(f"The study {study} has no finished experiment; run its sweep again.")

    board = by_test_set(board)[0]

    precisions = sorted({row.precision for row in board if row.precision})
    if options.precision is not None and options.precision not in precisions:
        raise BadInput(
            f"The study {study} has no model of precision {options.precision!r}; it has "
            f"{', '.join(precisions)}."
        )

    of_precision = [row for row in board if options.precision in (None, row.precision)]
    sized_models = [(row, row.stored_bytes or 0) for row in of_precision]

    fitting_models = [
        (row, size) for row, size in sized_models if size <= (options.max_megabytes or 1e9) * 1e6
    ]
    if not fitting_models:
        smallest = min(size for _, size in sized_models) / 1e6
        raise BadInput(
            f"No such model of the study {study} has weights of at most "
            f"{options.max_megabytes:g} MB; the smallest has {smallest:.1f} MB."
        )

    return fitting_models


def _time(row: EvaluationRow) -> datetime:
    """When a model was finished; one without a time counts as the earliest."""
    return row.finished_at or datetime.min


def rank(candidates: Sequence[tuple[EvaluationRow, int]], by: RankedBy) -> ModelRanking:
    """The models of this home that have one `valid`, that of the latest of them; the best first."""
    present_models = []
    absent_cells = []
    for row, stored in candidates:
        try:
            present_models.append(_PresentModel.of(row, stored))
        except ModelGone:  # its results stay where its data set is forgotten
            absent_cells.append(row.cell_id)

    latest = max(present_models, key=lambda model: _time(model.row), default=None)
    models = []
    other_cells = []
    with forked_steps(
        "tasks.bundle.loaded_model"
    ):  # what the models' processes import is imported once
        for model in present_models:
            if latest is not None and model.valid_digest == latest.valid_digest:
                models.append(model.ranked(by))
            else:
                other_cells.append(model.row.cell_id)

    return ModelRanking(sorted(models, key=lambda model: model.order), absent_cells, other_cells)


def _say(event: Event) -> None:
    if isinstance(event, StepWarning):
        print_line(errors, event.message)
