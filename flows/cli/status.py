"""`triage status`: the experiments of this home and of the warehouse, with their results."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import rich.live
import rich.table
import typer
from rich.console import Console

from flows.cli.terminal import AsJson, console, load_what_waits, print_json, print_line
from flows.report.figures import RANDOM, clock, counted, figure, verdict
from flows.report.rows import Row, rows_of
from tasks.models.manifest import has_random_weights
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home
from tasks.runtime.locks import is_locked
from tasks.runtime.store import intact_manifest
from tasks.tuning.rows import Reported
from warehouse.connect import warehouse_path
from warehouse.health import bring_up_to_date, refuse_unusable

DIGEST = re.compile("-[0-9a-f]{12}$")  # behind the cell in a training id
NOTHING = "Nothing has run yet. Next: triage sweep demo"
WATCH_SECONDS = 2.0

Line = dict[str, Any]  # about an experiment: its object in --json, null where there is none

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


def status(show_all: Everything = False, watch: Watch = False, as_json: AsJson = False) -> None:
    """Show what is trained, scored and landed, with the result on the test set."""
    if watch:
        watch_status(console, show_all, as_json)
    elif as_json:
        print_json(listed(status_lines(), show_all))
    else:
        print_status(console, show_all)


def status_lines() -> list[Line]:
    """The experiments of this home by name, then those that are in the warehouse alone."""
    refuse_unusable()
    load_what_waits()
    experiments: dict[str, Row] = {}
    trials: set[str] = set()
    if warehouse_path().exists():
        bring_up_to_date()
        experiments = {row.training_id: row for row in rows_of(f"({LANDED})")}
        trials = {row.training_id for row in rows_of("trial")}

    folders = sorted((home() / "experiments").glob("*/"))
    lines = [_line(path.name, experiments.pop(path.name, None), path, trials) for path in folders]
    return lines + [_line(name, row) for name, row in experiments.items()]


def _line(
    name: str, landed: Row | None, folder: Path | None = None, trials: Collection[str] = ()
) -> Line:
    """`landed`: its row of the warehouse with its latest result on the test set; `folder`: where it
    is in this home.
    """
    training = reported = None
    is_scored = False
    values = {} if landed is None else vars(landed)
    is_random = bool(values.get("random_weights"))
    if folder is not None:
        training = _training(folder)
        reported = Reported.of_running(folder)
        is_scored = any(intact_manifest(scores) for scores in (folder / "scores").glob("*-e*"))
        is_random = is_random or (landed is None and _has_random_weights(folder))

    state = values.get("status")
    prevalence = values.get("ed_prevalence")
    cases = values.get("cases")
    return {
        "experiment": name,
        "random_weights": is_random,
        "training": training,
        "running": reported and reported.model_dump(mode="json"),
        "evaluation": "done" if is_scored else None,
        "warehouse": "training only" if state == "completed" and prevalence is None else state,
        "ed_recall": values.get("ed_recall"),
        "ed_recall_low": values.get("ed_recall_low"),
        "ed_recall_high": values.get("ed_recall_high"),
        "test_cases": cases,
        "emergencies": None if cases is None else round(cases * (prevalence or 0)),
        "gates": values.get("verdict") and verdict(landed),
        "superseded": bool(values.get("superseded")),
        "searched": landed is None and not is_scored and name in trials,
    }


def _training(folder: Path) -> str:
    """How far a training is in this home."""
    if intact_manifest(folder):
        return "done"
    if is_locked(folder):
        return "running"
    return "resumable" if any((folder / "checkpoint").glob("[0-9]*")) else "not finished"


def _has_random_weights(folder: Path) -> bool:
    """Whether a training that has not landed has random weights; False if its variant is gone."""
    try:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        return has_random_weights(Path(spec["args"]["variant"]))
    except (OSError, ValueError, KeyError):
        return False


def listed(lines: list[Line], show_all: bool) -> list[Line]:
    """The lines without failed runs of earlier settings and trials, unless `show_all`."""
    return [line for line in lines if show_all or not (line["superseded"] or line["searched"])]


def print_status(console: Console, show_all: bool = False) -> None:
    """Print a line per experiment; random weights are marked.

    `show_all`: failed runs of earlier settings and trials of searches, too, which are left out
    otherwise.
    """
    lines = status_lines()
    if not lines:
        print_line(console, NOTHING)
        return

    print_line(console, f"Experiments in {home() / 'experiments'}")
    console.print(status_table(listed(lines, show_all)))
    if show_all:
        return
    if hidden := sum(line["superseded"] for line in lines):
        runs = counted(hidden, "failed run")
        print_line(console, f"{runs} of earlier settings not listed: triage status --all")
    if trials := sum(line["searched"] for line in lines):
        count = counted(trials, "trial")
        print_line(console, f'{count} of searches not listed: triage sql "FROM trial"')


def status_table(lines: list[Line]) -> rich.table.Table:
    """The lines as a table, which breaks no name: a command takes it."""
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("experiment", "state", "ED recall on test", "gates"):
        table.add_column(column, overflow="fold", no_wrap=column == "experiment")

    # The cell of each line; the training id where a cell is listed twice.
    cells = [DIGEST.sub("", line["experiment"]) for line in lines]
    for line, cell in zip(lines, cells, strict=True):
        recall = "-"
        if line["gates"]:
            numbers = (line["ed_recall"], line["ed_recall_low"], line["ed_recall_high"])
            recall = f"{figure(*numbers, digits=2)} of {line['emergencies']} ED"
        table.add_row(
            cell if cells.count(cell) == 1 else line["experiment"],
            f"{_state(line)}{RANDOM if line['random_weights'] else ''}",
            recall,
            line["gates"] or "-",
        )
    return table


def _state(line: Line) -> str:
    """How far it is, in words, e.g. `1200 of 3000, loss 0.412, 22 min left`; what has landed is
    trained and scored.
    """
    training = line["training"]
    if report := line["running"]:
        parts = [f"{report['iteration']} of {report['iterations']}", f"loss {report['loss']:.3f}"]
        if report["validation"] is not None:
            parts.append(f"validation {report['validation']:.3f}")
        return ", ".join([*parts, f"{clock(report['seconds_left'])} left"])

    if state := line["warehouse"]:
        return state if training in (None, "done") else f"{state}, then {training}"
    if line["evaluation"]:
        return "scored, not landed"
    return "trained, not scored" if training == "done" else str(training)


def watch_status(console: Console, show_all: bool, as_json: bool) -> None:
    """Draw the table of `triage status` every WATCH_SECONDS until Ctrl-C, what runs first.

    Raises BadInput without a terminal and with --json.
    """
    if as_json or not console.is_terminal:
        raise BadInput(
            "--watch draws a table on a terminal; in a script call triage status --json again and "
            "again."
        )

    with contextlib.suppress(KeyboardInterrupt), rich.live.Live(console=console) as display:
        while True:
            lines = sorted(listed(status_lines(), show_all), key=lambda line: not line["running"])
            display.update(status_table(lines) if lines else NOTHING, refresh=True)
            time.sleep(WATCH_SECONDS)
