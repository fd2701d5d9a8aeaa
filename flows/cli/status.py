"""`triage status`: the experiments of this home and of the warehouse, with their results."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import rich.live
import typer
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flows.cli.terminal import console, load_what_waits, print_line
from flows.report.figures import RANDOM, clock, counted, figure, random_mark, verdict
from flows.report.typed_rows import Row, rows_as
from tasks.models.manifest import has_random_weights
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import is_locked
from tasks.runtime.store import intact_manifest
from tasks.tuning.rows import Reported
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date, refuse_unusable
from warehouse.query import query_rows

DIGEST = re.compile("-[0-9a-f]{12}$")  # behind the cell in a training id
NONE = "-"
COLUMNS = ("experiment", "state", "ED recall on test", "gates")
NARROW = ("experiment, state", "ED recall on test", "gates")
OTHER_COLUMNS = 34  # characters that these need beside the names, where the terminal is narrow
NOTHING = "Nothing has run yet. Next: triage sweep demo"
WATCH_SECONDS = 2.0
LINES_BELOW = 2  # rows left out, prompt
MOST_LINES = 4  # of a row, so that leaving out one for each four leaves out no row too many

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

Everything = Annotated[
    bool,
    typer.Option("--all", help="list failed runs of earlier settings and trials of searches, too"),
]
Watch = Annotated[bool, typer.Option("--watch", help="go on showing it, until Ctrl-C")]
AsJson = Annotated[
    bool, typer.Option("--json", help="print a JSON array, an object per experiment")
]


def status(show_all: Everything = False, watch: Watch = False, as_json: AsJson = False) -> None:
    """Show what is trained, scored and landed, with the result on the test set."""
    if watch:
        watch_status(console, show_all, as_json)
    elif as_json:
        print_json(show_all)
    else:
        print_status(console, show_all)


class LandedExperiment(Row):
    """A row of `experiment` with its latest result on the test set, None for a failed run."""

    @property
    def state(self) -> str:
        """The status; "training only" where its evaluation is not in the warehouse."""
        is_scored = self.ed_prevalence is not None
        return "training only" if self.status == "completed" and not is_scored else self.status

    @property
    def gates(self) -> str | None:
        """The verdict of the gates in words, None without a result."""
        return None if self.verdict is None else verdict(self).replace("\n", " ")

    @property
    def recall(self) -> str:
        """ED recall with its interval, and of how many emergencies."""
        value = figure(self.ed_recall, self.ed_recall_low, self.ed_recall_high, digits=2)
        emergencies = round((self.cases or 0) * (self.ed_prevalence or 0))
        return f"{value} of {emergencies} ED"


@dataclass(frozen=True)
class Line:
    """One line of the table. `training`: how far its training is in this home, None where it is in
    the warehouse alone; `reported`: how far it is while it runs. `mark` follows the name where the
    weights are random. `is_trial`: of a search, and nothing else is known of it.
    """

    name: str
    mark: str = ""
    training: str | None = None
    is_scored: bool = False
    landed: LandedExperiment | None = None
    reported: Reported | None = None
    is_trial: bool = False

    @property
    def superseded(self) -> bool:
        return self.landed is not None and self.landed.superseded

    @property
    def cell_id(self) -> str:
        """The name without what tells trainings of one cell apart."""
        return DIGEST.sub("", self.name)

    @property
    def state(self) -> str:
        """How far it is, in words, e.g. `1200 of 3000, loss 0.412, 22 min left`; what has landed is
        trained and scored.
        """
        if report := self.reported:
            parts = [f"{report.iteration} of {report.iterations}", f"loss {report.loss:.3f}"]
            if report.validation is not None:
                parts.append(f"validation {report.validation:.3f}")
            return ", ".join([*parts, f"{clock(report.seconds_left)} left"])

        if self.landed is not None:
            is_further = self.training not in (None, "done")
            return f"{self.landed.state}, then {self.training}" if is_further else self.landed.state
        if self.is_scored:
            return "scored, not landed"
        return "trained, not scored" if self.training == "done" else str(self.training)

    def cells(self, name: str, is_narrow: bool) -> tuple[str, ...]:
        """The row of the table, in which it is listed as `name`; on a narrow terminal the state is
        below the name, which stays whole.
        """
        recall = gates = NONE
        if self.landed is not None and self.landed.gates is not None:
            recall, gates = self.landed.recall, self.landed.gates
        if is_narrow:
            return f"{name}\n  {self.state}{self.mark}", recall.replace("] of", "]\nof"), gates
        return f"{name}{self.mark}", self.state, recall, gates

    def as_json(self) -> dict[str, Any]:
        """The line's values, null where there is none; `running` holds a running training's report."""
        experiment = self.landed
        return {
            "experiment": self.name,
            "random_weights": bool(self.mark),
            "training": self.training,
            "running": self.reported and self.reported.model_dump(mode="json"),
            "evaluation": "done" if self.is_scored else None,
            "warehouse": experiment and experiment.state,
            "ed_recall": experiment and experiment.ed_recall,
            "ed_recall_low": experiment and experiment.ed_recall_low,
            "ed_recall_high": experiment and experiment.ed_recall_high,
            "test_cases": experiment and experiment.cases,
            "gates": experiment and experiment.gates,
            "superseded": self.superseded,
            "searched": self.is_trial,
        }


def status_lines() -> list[Line]:
    """The experiments of this home by name, then those that are in the warehouse alone."""
    refuse_unusable()
    load_what_waits()
    experiments: dict[str, LandedExperiment] = {}
    trials: set[str] = set()
    if warehouse_path().exists():
        bring_up_to_date()
        experiments = {row.training_id: row for row in rows_as(LandedExperiment, f"({LANDED})")}
        trials = {str(row[0]) for row in query_rows("SELECT training_id FROM trial").rows}

    lines = [
        _local_line(path, experiments.pop(path.name, None), trials)
        for path in sorted((home() / "experiments").glob("*/"))
    ]
    return lines + [
        Line(row.training_id, random_mark(row), landed=row) for row in experiments.values()
    ]


def _local_line(folder: Path, experiment: LandedExperiment | None, trials: set[str]) -> Line:
    if intact_manifest(folder):
        training = "done"
    elif is_locked(folder):
        training = "running"
    else:
        has_checkpoint = any((folder / "checkpoint").glob("[0-9]*"))
        training = "resumable" if has_checkpoint else "not finished"

    mark = RANDOM if experiment is None and _has_random_weights(folder) else ""
    if experiment is not None:
        mark = random_mark(experiment)

    is_scored = any(intact_manifest(scores) for scores in (folder / "scores").glob("*-e*"))
    is_trial = experiment is None and not is_scored and folder.name in trials
    reported = Reported.of_running(folder)
    return Line(folder.name, mark, training, is_scored, experiment, reported, is_trial)


def _has_random_weights(folder: Path) -> bool:
    """Whether a training that has not landed has random weights; False if its variant is gone."""
    try:
        args = json.loads((folder / "spec.json").read_text(encoding="utf-8"))["args"]
    except (OSError, ValueError, KeyError):
        return False
    return has_random_weights(Path(args["variant"]))


def print_status(console: Console, show_all: bool = False) -> None:
    """Print a line per experiment; random weights are marked.

    `show_all`: failed runs of earlier settings and trials of searches, too, which are left out
    otherwise.
    """
    lines = status_lines()
    if not lines:
        print_line(console, NOTHING)
        return

    console.print(status_table(_listed(lines, show_all), console.width))
    hidden = sum(line.superseded for line in lines)
    if hidden and not show_all:
        runs = counted(hidden, "failed run")
        print_line(console, f"{runs} of earlier settings not listed: triage status --all")

    trials = sum(line.is_trial for line in lines)
    if trials and not show_all:
        count = counted(trials, "trial")
        print_line(console, f'{count} of searches not listed: triage sql "FROM trial"')


def print_json(show_all: bool = False) -> None:
    """Print the lines as a JSON array on standard output."""
    print(json.dumps([line.as_json() for line in _listed(status_lines(), show_all)], indent=2))


def _listed(lines: Sequence[Line], show_all: bool) -> list[Line]:
    """The lines without failed runs of earlier settings and trials, unless `show_all`."""
    return [line for line in lines if show_all or not (line.superseded or line.is_trial)]


def status_table(lines: Sequence[Line], width: int) -> Table:
    """The lines as a table for a terminal of `width` characters, which breaks no name."""
    # The cell of each line, which commands take; the training id where a cell is listed twice.
    cells = Counter(line.cell_id for line in lines)
    names = [line.cell_id if cells[line.cell_id] == 1 else line.name for line in lines]

    unbounded = Console(width=10_000)  # on which a table is as wide as it wants
    table = _table(lines, names, is_narrow=False)
    if Measurement.get(unbounded, unbounded.options, table).maximum <= width:
        return table

    fits = max(map(len, names), default=0) + OTHER_COLUMNS <= width
    return _table(lines, names, is_narrow=True, whole_names=fits)


def _table(
    lines: Sequence[Line], names: Sequence[str], is_narrow: bool, whole_names: bool = False
) -> Table:
    table = Table(title=f"Experiments in {home() / 'experiments'}", title_justify="left")
    for place, column in enumerate(NARROW if is_narrow else COLUMNS):
        table.add_column(column, overflow="fold", no_wrap=whole_names and place == 0)
    for line, name in zip(lines, names, strict=True):
        table.add_row(*line.cells(name, is_narrow))
    return table


def watch_status(console: Console, show_all: bool, as_json: bool) -> None:
    """Draw the table of `triage status` every WATCH_SECONDS until Ctrl-C.

    Raises BadInput without a terminal and with --json.
    """
    if as_json or not console.is_terminal:
        raise BadInput(
            "--watch draws a table on a terminal; in a script call triage status --json again and "
            "again."
        )

    with contextlib.suppress(KeyboardInterrupt), rich.live.Live(console=console) as display:
        while True:
            display.update(watched_table(status_lines(), console, show_all), refresh=True)
            time.sleep(WATCH_SECONDS)


def watched_table(
    lines: Sequence[Line], console: Console, show_all: bool = False
) -> RenderableType:
    """The table of the experiments that the terminal has lines for, those that run before others."""
    if not lines:
        return NOTHING

    listed = _listed(lines, show_all)
    by_importance = sorted(range(len(listed)), key=lambda place: listed[place].reported is None)
    room = console.height - LINES_BELOW
    count = len(listed)
    while True:
        visible_lines = [listed[place] for place in sorted(by_importance[:count])]
        table = status_table(visible_lines, console.width)
        excess = len(console.render_lines(table)) - room
        if excess <= 0 or count <= 1:
            break
        count -= max(excess // MOST_LINES, 1)

    hidden = len(listed) - count
    return Group(table, Text(f"and {hidden} more: triage status", "dim")) if hidden else table
