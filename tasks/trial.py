"""Steps of a search: train a trial to its next rung and judge it there; land the trials.

A trial is a training like any other, with the training id of its full length: a rung is a pause at
a checkpoint and part of no id. So the best trials go on from where they paused, and a sweep with
the winner's grid, which is written here too, finds its training complete.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from tasks.caching import step
from tasks.corpus.reading.sources import is_hub
from tasks.identity import experiment_folder
from tasks.landing import land_rows
from tasks.progress import publisher
from tasks.runtime.children import run_child
from tasks.runtime.events import Note
from tasks.runtime.files import write_atomic
from tasks.runtime.home import expanded, home
from tasks.runtime.store import intact_manifest, temporary_folder
from tasks.scoring.arguments import ValidScoringJob
from tasks.search.space import Objective, Space
from tasks.search.trials import Reached, Trial, best_of, in_words
from tasks.spec import Columns, ExperimentSpec, canonical_json
from tasks.tuning.rows import TrainingManifest, cell_columns, train_experiment

WINNER = "best.toml"
SHIPPED = ("8bit", "4bit")  # what a winner at another precision is compared with
LONGEST_NAME = 60


@step("trial {number} to update {update}")
def train_to_rung(
    number: int,
    spec: ExperimentSpec,
    update: int,
    objective: Objective,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> Reached:
    """The trial at `update`, judged there. The training is that of `triage sweep`, which goes on
    from there; one that is further, as one of a sweep can be, is judged as it was at `update`."""
    start = time.perf_counter()
    folder = experiment_folder(spec, variant, data)
    emit = publisher(f"trial {number}")
    with contextlib.ExitStack() as cleanup:
        progress = _progress(folder)
        further = progress if progress["update"] > update else None
        if further and objective.over_triage is not None:
            emit(Note(f"{folder.name} is past update {update}, and is trained to it once more."))
            # In a folder that is not kept: the adapter of an earlier update is not stored.
            folder = cleanup.enter_context(temporary_folder(folder)) / folder.name
            progress = _progress(folder)
        if not progress["ended"] and progress["update"] < update:
            train_experiment(spec, folder, variant, data, home(), emit, update, at_most)
            progress = _progress(folder)

        on_valid = [
            point
            for point in progress["curve"]
            if point["split"] == "valid" and point["iteration"] <= update
        ]
        value = validation = min(point["loss"] for point in on_valid)
        if objective.metric == "macro-F1":
            value = max(point["macro_f1"] for point in on_valid)
        elif objective.over_triage is not None:
            job = ValidScoringJob(
                experiment=spec,
                variant=variant,
                data=data,
                home=home(),
                adapter=progress["best_adapter"],
                over_triage=objective.over_triage,
            ).model_dump(mode="json")
            log = home() / "logs" / f"valid-{spec.cell_id}"
            value = float(run_child("tasks.scoring.job:run_valid", job, log, emit)["value"])

    train_seconds = progress["train_seconds"]
    if further:  # an estimate, as if every update took as long
        train_seconds = further["train_seconds"] * update / further["update"]
    return Reached(update, value, validation, time.perf_counter() - start, train_seconds)


def _progress(folder: Path) -> dict[str, Any]:
    """How far the training in `folder` is, which need not exist yet: at its newest checkpoint, or at
    its end. Read without MLX.

    `best_adapter`: the file of its best adapter so far.
    """
    if (manifest := TrainingManifest.read_if_complete(folder)) is not None:
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return {
            "ended": True,
            "update": manifest.summary.last_iteration,
            "train_seconds": manifest.summary.train_seconds,
            "curve": training["curve"],
            "best_adapter": folder / "adapters.safetensors",
        }

    # The newest first, past one that is damaged.
    for checkpoint in sorted((folder / "checkpoint").glob("[0-9]*"), reverse=True):
        if intact_manifest(checkpoint) is not None:
            progress = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
            best_adapter = checkpoint / "best.safetensors"
            return progress | {"ended": False, "best_adapter": best_adapter}

    return {"ended": False, "update": 0}


@step("land {search_id}", retries=3, delay=2)
def land_trials(search_id: str, grid: str, cell: ExperimentSpec, trials: list[Trial]) -> str:
    """search_id, once the trials are in the warehouse's table `trial`."""
    best = best_of(trials)
    rows = [
        {
            "search_id": search_id,
            "number": trial.number,
            "training_id": trial.training_id,
            "grid": grid,
            **cell_columns(cell),
            "settings": canonical_json(dict(trial.values)),
            "objective": trial.objective.name,
            "higher_is_better": trial.objective.is_higher_better,
            # One that time ran out for pauses, too: the same command goes on with it.
            "state": "paused" if trial.state == "running" else trial.state,
            "is_best": best is not None and trial.number == best.number,
            "value": trial.value,
            "valid_loss": trial.rungs[-1].validation if trial.rungs else None,
            "updates": trial.update,
            "iterations": trial.iterations,
            "rungs": json.dumps([asdict(rung) for rung in trial.rungs]),
            "seconds": trial.seconds,
            "train_seconds": trial.rungs[-1].train_seconds if trial.rungs else None,
            "error": trial.error,
        }
        for trial in trials
    ]
    land_rows(search_id, "search", {"trial": rows})
    return search_id


def write_winner(space: Space, trial: Trial) -> Path:
    """Write the grid file of a trial beside the search's storage, for more than one precision.

    The searched cell keeps its training id, so a sweep goes on from the trial's last checkpoint, or
    finds the training complete.
    """
    grid = space.grid_with(trial.values)
    tables = grid.model_dump(
        mode="json",
        by_alias=True,
        exclude_unset=True,
        exclude_none=True,
        exclude={"search", "primary"},
    )
    for table, columns in (
        (tables.get("data", {}), grid.data),
        *zip(tables.get("evaluation_set", []), grid.evaluation_sets, strict=True),
    ):
        if "source" in table:
            table["source"] = _from_anywhere(table["source"], columns)

    searched = space.cell.precision.name
    tables["precisions"] = list(dict.fromkeys([searched, *SHIPPED]))
    tables["name"] = f"{grid.name[: LONGEST_NAME - 5]}-best"

    comment = (
        f"# The best recipe of a search over {len(space.settings)} settings of the grid "
        f"{space.grid.name}, on {space.model.name} {searched}:\n"
        f"# trial {trial.number}, {trial.objective.name} {trial.value:.4f} on valid after "
        f"{trial.update} of {trial.iterations} updates.\n"
        f"# {in_words(trial.values)}.\n"
        "# Other precisions were not searched; they are here to be compared.\n"
    )
    path = space.folder / WINNER
    write_atomic(path, f"{comment}{tomli_w.dumps(tables)}")
    return path


def _from_anywhere(source: str, columns: Columns) -> str:
    """A source that is the same file when it is read from another folder."""
    if source == "embedded" or is_hub(source, columns.folder):
        return source
    path = expanded(source)
    places = [folder / path for folder in (columns.folder, Path.cwd()) if folder is not None]
    present = next((place for place in places if place.exists()), path)
    return str(present.resolve())
