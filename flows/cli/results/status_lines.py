"""The experiments that `triage status` lists: those of this home and those of the warehouse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.cli.waiting import load_what_waits
from flows.report.figures import clock, figure
from flows.report.names import RANDOM, random_mark, verdict
from flows.report.typed_rows import typed_rows
from tasks.models.manifest import has_random_weights
from tasks.runtime.home import home
from tasks.runtime.locks import is_locked
from tasks.runtime.store import intact_manifest
from tasks.tuning.reported import Reported
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date, refuse_unusable

DIGEST = re.compile("-[0-9a-f]{12}$")  # behind the cell in a training id
NONE = "-"
TRAINING_ONLY = "training only"

# A failed run is superseded by a later run of its cell under other settings, finished or not.
LANDED = """
    SELECT experiment.*, board.* EXCLUDE (training_id, random_weights),
        status <> 'completed' AND EXISTS (
            FROM experiment AS other JOIN landed AS later ON later.id = other.training_id
            WHERE other.cell_id = experiment.cell_id AND later.loaded_at > landed.loaded_at
        ) AS superseded
    FROM (SELECT training_id, cell_id, status, random_weights FROM experiment) AS experiment
    LEFT JOIN landed ON landed.id = experiment.training_id
    LEFT JOIN (
        SELECT
            training_id, random_weights, verdict, ed_prevalence, cases,
            ed_recall, ed_recall_low, ed_recall_high
        FROM evaluation_summary
        WHERE evaluation_set = 'test'
        QUALIFY row_number() OVER (PARTITION BY training_id ORDER BY created_at DESC) = 1
    ) AS board ON board.training_id = experiment.training_id
"""


@dataclass(frozen=True)
class LandedExperiment:
    """A row of `experiment` with its latest result on the test set, None for a failed run."""

    training_id: str
    status: str
    random_weights: bool | None
    superseded: bool
    ed_recall: float | None
    ed_recall_low: float | None
    ed_recall_high: float | None
    verdict: str | None
    ed_prevalence: float | None
    cases: int | None

    @property
    def state(self) -> str:
        """The status; "training only" where its evaluation is not in the warehouse."""
        is_scored = self.ed_prevalence is not None
        return TRAINING_ONLY if self.status == "completed" and not is_scored else self.status


@dataclass(frozen=True)
class SearchedTraining:
    """The training of a row of `trial`."""

    training_id: str


@dataclass(frozen=True)
class Line:
    """One line of the table. `reported`: how far its training is, while it runs.

    `mark` follows the name where the weights are random.
    """

    name: str
    mark: str = ""
    training: str = NONE
    evaluation: str = NONE
    landed: LandedExperiment | None = None
    reported: Reported | None = None
    searched: bool = False  # a trial of a search, of which nothing else is known

    @property
    def superseded(self) -> bool:
        return self.landed is not None and self.landed.superseded

    @property
    def cell_id(self) -> str:
        """The name without what tells trainings of one cell apart."""
        return DIGEST.sub("", self.name)

    @property
    def state(self) -> str:
        """How far it is, in words; what has landed is trained and scored."""
        if self.reported is not None:
            return _progress(self.reported)
        if self.landed is None:
            return _unlanded(self.training, self.evaluation)
        if self.training in (NONE, "done"):
            return self.landed.state
        return f"{self.landed.state}, then {self.training}"

    def cells(self, name: str) -> tuple[str, ...]:
        """The row of the table; `name`: as which it is listed."""
        return f"{name}{self.mark}", self.state, *_result(self.landed)

    def narrow_cells(self, name: str) -> tuple[str, ...]:
        """The row where the terminal is narrow: the state is below the name, which stays whole."""
        recall, gates = _result(self.landed)
        return f"{name}\n  {self.state}{self.mark}", recall.replace("] of", "]\nof"), gates

    def as_json(self) -> dict[str, Any]:
        """The line's values, null where there is none; `running` holds a running training's report."""
        experiment = self.landed
        return {
            "experiment": self.name,
            "random_weights": bool(self.mark),
            "training": None if self.training == NONE else self.training,
            "running": self.reported and self.reported.model_dump(mode="json"),
            "evaluation": None if self.evaluation == NONE else self.evaluation,
            "warehouse": experiment and experiment.state,
            "ed_recall": experiment and experiment.ed_recall,
            "ed_recall_low": experiment and experiment.ed_recall_low,
            "ed_recall_high": experiment and experiment.ed_recall_high,
            "test_cases": experiment and experiment.cases,
            "gates": _gates(experiment),
            "superseded": self.superseded,
            "searched": self.searched,
        }


def status_lines() -> list[Line]:
    """The experiments of this machine and of the warehouse, after loading what waits."""
    refuse_unusable()
    load_what_waits()
    return list(_lines(home() / "experiments"))


def _progress(reported: Reported) -> str:
    """E.g. `1200 of 3000, loss 0.412, 22 min left`."""
    parts = [f"{reported.iteration} of {reported.iterations}", f"loss {reported.loss:.3f}"]
    if reported.validation is not None:
        parts.append(f"validation {reported.validation:.3f}")
    return ", ".join([*parts, f"{clock(reported.seconds_left)} left"])


def _lines(folder: Path) -> Iterator[Line]:
    """The experiments on this machine by name, then those that are in the warehouse alone."""
    experiments = _landed_experiments()
    trials = _trials()
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for path in folders:
        line = _local_line(path, experiments.pop(path.name, None))
        is_only_trial = line.landed is None and line.evaluation == NONE and path.name in trials
        yield replace(line, searched=is_only_trial)

    for experiment in experiments.values():
        yield Line(experiment.training_id, random_mark(experiment), landed=experiment)


def _landed_experiments() -> dict[str, LandedExperiment]:
    if not warehouse_path().exists():
        return {}
    bring_up_to_date()
    return {row.training_id: row for row in typed_rows(LandedExperiment, f"({LANDED})")}


def _trials() -> set[str]:
    """The trainings of landed searches."""
    if not warehouse_path().exists():
        return set()
    return {row.training_id for row in typed_rows(SearchedTraining, "trial")}


def _local_line(folder: Path, experiment: LandedExperiment | None) -> Line:
    scored = any(intact_manifest(scores) for scores in (folder / "scores").glob("*-e*"))
    evaluation = "done" if scored else NONE
    return Line(
        folder.name,
        _mark(folder, experiment),
        _training_state(folder),
        evaluation,
        experiment,
        Reported.of_running(folder),
    )


def _mark(folder: Path, experiment: LandedExperiment | None) -> str:
    if experiment is not None:
        return random_mark(experiment)
    return RANDOM if _on_random_weights(folder) else ""


def _training_state(folder: Path) -> str:
    if intact_manifest(folder):
        return "done"
    if is_locked(folder):
        return "running"
    has_checkpoint = any((folder / "checkpoint").glob("[0-9]*"))
    return "resumable" if has_checkpoint else "not finished"


def _unlanded(training: str, evaluation: str) -> str:
    if evaluation != NONE:
        return "scored, not landed"
    return "trained, not scored" if training == "done" else training


def _result(experiment: LandedExperiment | None) -> tuple[str, str]:
    """ED recall with its interval and of how many emergencies, and the verdict of the gates."""
    gates = _gates(experiment)
    if experiment is None or gates is None:
        return NONE, NONE
    recall = figure(
        experiment.ed_recall, experiment.ed_recall_low, experiment.ed_recall_high, digits=2
    )
    emergencies = round((experiment.cases or 0) * (experiment.ed_prevalence or 0))
    return f"{recall} of {emergencies} ED", gates


def _gates(experiment: LandedExperiment | None) -> str | None:
    """The verdict of the gates in words, None without a result."""
    if experiment is None or experiment.verdict is None:
        return None
    return verdict(experiment).replace("\n", " ")


def _on_random_weights(folder: Path) -> bool:
    """Whether a training that has not landed has random weights; False if its variant is gone."""
    try:
        args = json.loads((folder / "spec.json").read_text(encoding="utf-8"))["args"]
    except (OSError, ValueError, KeyError):
        return False
    return has_random_weights(Path(args["variant"]))
