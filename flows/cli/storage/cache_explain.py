"""What `triage cache explain` prints: the ingredients in which two trainings of a cell differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.find_experiment import refuse_several
from flows.cli.terminal import print_line
from flows.report.figures import counted
from tasks.identity import INGREDIENTS
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

NOTHING = "not set"
DIGITS_OF_DIGEST = 12


@dataclass(frozen=True)
class StoredTraining:
    """A training of this machine. `ingredients`: what decides it, flat: `recipe.rank` -> 8.

    `made_at`: seconds since 1970.
    """

    training_id: str
    made_at: float
    ingredients: dict[str, Any]

    @property
    def cell(self) -> str:
        return str(self.ingredients["cell"])


@dataclass(frozen=True)
class ChangedIngredient:
    """An ingredient, and what it was in the earlier and is in the later training."""

    ingredient: str
    before: str
    after: str


def print_explanation(console: Console, experiment: str) -> None:
    """Print why an experiment was not taken from the cache; `experiment`: a cell or training id.

    Raises BadInput for one that was not trained here, or before ingredients were kept.
    """
    trainings = stored_trainings()
    training = find_training(trainings, experiment)

    earlier_training = nearest_earlier(trainings, training)
    if earlier_training is None:
        print_line(
            console, f"{training.training_id} is the first training of {training.cell} here."
        )
        return

    changes = list(differences(earlier_training, training))
    verb = "differs" if len(changes) == 1 else "differ"
    print_line(
        console,
        f"{training.training_id} was trained because {counted(len(changes), 'ingredient')} of its "
        f"id {verb} from those of {earlier_training.training_id}, the most similar earlier "
        f"training of {training.cell}.",
    )

    table = Table()
    for column in ("ingredient", "earlier", "now"):
        table.add_column(column, overflow="fold")
    for difference in changes:
        table.add_row(difference.ingredient, difference.before, difference.after)

    console.print(table)


def stored_trainings() -> list[StoredTraining]:
    """The trainings of this machine whose ingredients are kept, the oldest first."""
    files = (home() / "experiments").glob(f"*/{INGREDIENTS}")
    return sorted(map(_read, files), key=lambda training: training.made_at)


def find_training(trainings: list[StoredTraining], experiment: str) -> StoredTraining:
    """The last training of the cell or with the id `experiment`, else of the only cell that has ids
    which begin so.

    Raises BadInput, with the nearest name if there is none.
    """
    exact = [one for one in trainings if experiment in (one.cell, one.training_id)]
    matches = exact or [one for one in trainings if one.training_id.startswith(experiment)]
    refuse_several(experiment, sorted({one.cell for one in matches}))
    if matches:
        return matches[-1]

    names = {training.cell for training in trainings}
    names_of_folders = [path.name for path in (home() / "experiments").glob("*/")]
    if any(name.startswith(experiment) for name in names_of_folders):
        raise BadInput(
            f"{experiment} was trained before its ingredients were kept, so nothing can be said of "
            "it."
        )

    nearest = difflib.get_close_matches(experiment, names, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; triage status lists what there is."
    raise BadInput(f"No training {experiment!r} with known ingredients is on this machine{hint}")


def nearest_earlier(
    trainings: list[StoredTraining], training: StoredTraining
) -> StoredTraining | None:
    """The earlier training of the same cell with the fewest differences, the newest of equals."""
    earlier_trainings = [
        candidate
        for candidate in trainings
        if candidate.cell == training.cell and candidate.made_at < training.made_at
    ]
    # min takes the first of equals, so the newest stands first.
    return min(
        reversed(earlier_trainings),
        key=lambda candidate: len(list(differences(candidate, training))),
        default=None,
    )


def differences(
    earlier_training: StoredTraining, later_training: StoredTraining
) -> Iterator[ChangedIngredient]:
    """The ingredients in which two trainings differ, in alphabetical order."""
    for name in sorted({*earlier_training.ingredients, *later_training.ingredients}):
        old_value, new_value = (
            stored_training.ingredients.get(name)
            for stored_training in (earlier_training, later_training)
        )
        if old_value != new_value:
            yield ChangedIngredient(name, _text(old_value), _text(new_value))


def _read(file: Path) -> StoredTraining:
    stored = json.loads(file.read_text(encoding="utf-8"))
    ingredients = dict(_flat(stored))
    return StoredTraining(file.parent.name, file.stat().st_mtime, ingredients)


def _flat(ingredients: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in ingredients.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value)
    is_digest = len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
    return text[:DIGITS_OF_DIGEST] if is_digest else text
