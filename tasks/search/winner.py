"""The grid file that a search writes: its best recipe, for both precisions, ready to sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from tasks.corpus.reading.sources import is_hub
from tasks.runtime.store import write_atomic
from tasks.search.space import Space
from tasks.search.trial import Trial
from tasks.spec import Columns

FILE = "best.toml"
BOTH = [4, 8]
LONGEST_NAME = 60


def write_winner(folder: Path, space: Space, trial: Trial) -> Path:
    """Write the grid file of a trial beside the search's storage.

    The searched cell keeps its training id, so a sweep goes on from the trial's last checkpoint, or
    finds the training complete.
    """
    path = folder / FILE
    comment = "".join(f"# {line}\n" for line in _comment(space, trial))
    write_atomic(path, f"{comment}{tomli_w.dumps(winner_grid(space, trial))}")
    return path


def winner_grid(space: Space, trial: Trial) -> dict[str, Any]:
    """The tables of the grid file."""
    grid = space.grid_with(trial.values)
    tables = grid.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude={"search"}
    )
    for table, columns in (
        (tables.get("data", {}), grid.data),
        *zip(tables.get("evaluation_set", []), grid.evaluation_sets, strict=True),
    ):
        if "source" in table:
            table["source"] = _from_anywhere(table["source"], columns)
    return {**tables, "name": f"{grid.name[: LONGEST_NAME - 5]}-best", "bits": BOTH}


def _comment(space: Space, trial: Trial) -> list[str]:
    other = "8-bit" if space.grid.bits == (4,) else "4-bit"
    return [
        f"The best recipe of a search over {len(space.settings)} settings of the grid"
        f" {space.grid.name}, on {space.model.name} {space.grid.bits[0]} bit:",
        f"trial {trial.number}, {trial.objective.name} {trial.value:.4f} on valid after"
        f" {trial.update} of {trial.iterations} updates.",
        f"{trial.settings}.",
        f"The {other} twin was not searched; it is here to be compared.",
    ]


def _from_anywhere(source: str, columns: Columns) -> str:
    """A source that is the same file when it is read from another folder."""
    if source == "embedded" or is_hub(source, columns.folder):
        return source
    places = [folder / source for folder in (columns.folder, Path.cwd()) if folder is not None]
    return str(next((place for place in places if place.exists()), Path(source)).resolve())
