"""What `triage status` prints: experiments here and in the warehouse, with their results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.cli.terminal import print_line
from flows.cli.waiting import load_what_waits
from flows.report.figures import figure
from flows.report.names import RANDOM, random_mark, verdict
from flows.report.typed_rows import typed_rows
from tasks.runtime.store import complete, home
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date, refuse_unusable

COLUMNS = ("experiment", "training", "evaluation", "warehouse", "ED recall on test", "gates")
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
            training_id, random_weights, verdict, ed_prevalence,
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
    """One line of the table."""

    name: str
    training: str = NONE
    evaluation: str = NONE
    landed: LandedExperiment | None = None
    searched: bool = False  # a trial of a search, of which nothing else is known

    @property
    def superseded(self) -> bool:
        return self.landed is not None and self.landed.superseded

    def cells(self) -> tuple[str, ...]:
        if self.landed is None:
            return self.name, self.training, self.evaluation, NONE, NONE, NONE
        recall, gates = _result(self.landed)
        return self.name, self.training, self.evaluation, self.landed.state, recall, gates


def print_status(console: Console, everything: bool = False) -> None:
    """Print a line per experiment; random weights are marked.

    `everything`: failed runs of earlier settings and trials of searches, too, which are left out
    otherwise.
    """
    refuse_unusable()
    load_what_waits()
    folder = home() / "experiments"
    lines = list(_lines(folder))
    if not lines:
        print_line(console, "Nothing has run yet. Next: triage sweep demo")
        return

    table = Table(title=f"Experiments in {folder}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines:
        if everything or not (line.superseded or line.searched):
            table.add_row(*line.cells())
    console.print(table)

    hidden = sum(line.superseded for line in lines)
    if hidden and not everything:
        runs = "1 failed run" if hidden == 1 else f"{hidden} failed runs"
        print_line(console, f"{runs} of earlier settings not listed: triage status --all")
    trials = sum(line.searched for line in lines)
    if trials and not everything:
        count = "1 trial" if trials == 1 else f"{trials} trials"
        print_line(console, f'{count} of searches not listed: triage sql "FROM trial"')


def _lines(folder: Path) -> Iterator[Line]:
    """The experiments on this machine by name, then those that are in the warehouse alone."""
    landed = _landed_experiments()
    trials = _trials()
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for path in folders:
        line = _local_line(path, landed.pop(path.name, None))
        is_only_trial = line.landed is None and line.evaluation == NONE and path.name in trials
        yield replace(line, searched=is_only_trial)
    for experiment in landed.values():
        yield Line(f"{experiment.training_id}{random_mark(experiment)}", landed=experiment)


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


def _local_line(folder: Path, landed: LandedExperiment | None) -> Line:
    scored = any(complete(scores) for scores in (folder / "scores").glob("*-e*"))
    evaluation = "done" if scored else NONE
    return Line(
        f"{folder.name}{_mark(folder, landed)}", _training_state(folder), evaluation, landed
    )


def _mark(folder: Path, landed: LandedExperiment | None) -> str:
    if landed is not None:
        return random_mark(landed)
    return RANDOM if _on_random_weights(folder) else ""


def _training_state(folder: Path) -> str:
    if complete(folder):
        return "done"
    has_checkpoint = any((folder / "checkpoint").glob("[0-9]*"))
    return "resumable" if has_checkpoint else "not finished"


def _result(landed: LandedExperiment) -> tuple[str, str]:
    """ED recall with its interval, and the verdict of the gates."""
    if landed.verdict is None:
        return NONE, NONE
    recall = figure(landed.ed_recall, landed.ed_recall_low, landed.ed_recall_high, digits=2)
    return recall, verdict(landed).replace("\n", " ")


def _on_random_weights(folder: Path) -> bool:
    """Whether a training that has not landed has random weights; False if its variant is gone."""
    try:
        args = json.loads((folder / "spec.json").read_text(encoding="utf-8"))["args"]
    except (OSError, ValueError, KeyError):
        return False
    from tasks.models.convert import has_random_weights  # NumPy comes with it

    return has_random_weights(Path(args["variant"]))
