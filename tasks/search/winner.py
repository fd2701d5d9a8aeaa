"""The grid file that a search writes: its best recipe, for more than one precision, ready to sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from tasks.corpus.reading.sources import is_hub
from tasks.precisions import Precision
from tasks.runtime.files import write_atomic
from tasks.runtime.home import expanded
from tasks.search.space import Space
from tasks.search.trial import Trial
from tasks.spec import Columns

FILE = "best.toml"
BOTH = [4, 8]
SHIPPED = ("8bit", "4bit")  # what a winner at another precision is compared with
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

    return {**tables, "name": f"{grid.name[: LONGEST_NAME - 5]}-best", **_compared(space)}


def _compared(space: Space) -> dict[str, Any]:
    """The searched precision and those that it is compared with, under the grid's own key."""
    if space.grid.bits is not None:
        return {"bits": BOTH}
    (searched,) = space.grid.compared
    return {"precisions": list(dict.fromkeys([searched.name, *SHIPPED]))}


def _comment(space: Space, trial: Trial) -> list[str]:
    (searched,) = space.grid.compared
    twin_phrases = {"4bit": "8-bit twin was", "8bit": "4-bit twin was"}
    twin_phrase = twin_phrases.get(searched.name, "other precisions were")
    return [
        f"The best recipe of a search over {len(space.settings)} settings of the grid"
        f" {space.grid.name}, on {space.model.name} {_words(searched)}:",
        f"trial {trial.number}, {trial.objective.name} {trial.value:.4f} on valid after"
        f" {trial.update} of {trial.iterations} updates.",
        f"{trial.settings}.",
        (
            f"The {twin_phrase} not searched; {'it is' if 'twin' in twin_phrase else 'they are'} "
            "here to be compared."
        ),
    ]


def _words(precision: Precision) -> str:
    return f"{precision.bits} bit" if precision.name == f"{precision.bits}bit" else precision.name


def _from_anywhere(source: str, columns: Columns) -> str:
    """A source that is the same file when it is read from another folder."""
    if source == "embedded" or is_hub(source, columns.folder):
        return source
    path = expanded(source)
    places = [folder / path for folder in (columns.folder, Path.cwd()) if folder is not None]
    present = next((place for place in places if place.exists()), path)
    return str(present.resolve())
