"""What a `[search]` table may not hold: keys that cannot be searched, and values that their
settings refuse.
"""

from __future__ import annotations

import difflib

from pydantic import ValidationError

from tasks.grids.grid_errors import reason, shortened
from tasks.runtime.errors import BadInput
from tasks.search.objective import SearchObjective
from tasks.search.space import SECTIONS, Space, Value, value_in
from tasks.spec import OVERRIDES, Range, canonical_json

# Settings that a search leaves as they are, and why. The first ones change no training.
NO_PART_OF_TRAINING = {
    "recipe.name": "it decides no training",
    "recipe.target_ed_recall": "it decides no training, but how an adapter is judged",
    "recipe.primary_rule": "it decides no training, but how an adapter is judged",
    "training.memory": "it never changes results",
    "training.report_every": "it decides no training",
}
LEFT_ALONE = NO_PART_OF_TRAINING | {
    "recipe.kind": "it decides what the search aims at",
    "recipe.iterations": "trials of different lengths cannot be compared before their end",
    "recipe.evaluate_every": "it decides at which updates trials can pause",
    "recipe.select_by": "it decides what the search of a standard recipe aims at",
    "recipe.prompt": "the keys of [prompt] are searched one by one, e.g. prompt.version",
    "recipe.seeds": "all trials have one seed, the grid's first or that of --seed",
    "training.group_size": "it decides the quantised weights, which all trials share",
    "training.evaluate_every": "it decides at which updates trials can pause",
    "training.patience": "it would compare trials of different lengths",
    "training.optimizer": "there is only one",
    "training.mask_prompt": "it is always true",
}
# Settings that change what the validation value measures, so that it compares no two trials.
CHANGE_THE_VALUE = ("prompt.answers", "recipe.label_weight", "recipe.label_smoothing")
OF_SAFETY = ("recipe.cost_weight", "recipe.cost_matrix", "recipe.class_weights")


def check_space(space: Space) -> None:
    """Raise BadInput for a key that is no setting or cannot be searched, and for a value that its
    setting refuses.
    """
    for key in space.settings:
        _refuse_key(space, key)
    for key, value in space.samples():
        _refuse_value(space, key, value)


def _refuse_key(space: Space, key: str) -> None:
    if reason := _why_not(space, key):
        raise BadInput(f"{space.place(key)}: {key} cannot be searched{reason}.")
    allowed_keys = _allowed_keys(space)
    if key not in allowed_keys:
        near = difflib.get_close_matches(key, allowed_keys, n=1, cutoff=0.5)
        suggestion = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed_keys)}."
        raise BadInput(f"{space.place(key)}: {shortened(key)!r} is no setting; {suggestion}")


def _why_not(space: Space, key: str) -> str | None:
    """Why a setting cannot be searched, as the end of a sentence; None where it can be."""
    recipe = space.recipe
    if key in LEFT_ALONE:
        return f": {LEFT_ALONE[key]}"
    if key in OF_SAFETY and recipe.kind == "standard":
        return f" for a standard recipe, which does not use it; {recipe.name} is one"

    aims_at_value = SearchObjective.of(recipe, space.search).metric == "validation value"
    if key in CHANGE_THE_VALUE and aims_at_value:
        return (
            " for a standard recipe, whose validation values it makes incomparable; leave it out, "
            'give the recipe select_by = "macro_f1", or search a safety recipe'
        )
    if key.startswith(("data.", "scoring.")):
        return ": all trials learn from the same cases and are compared on the same ones"
    if own_setting := _of_the_recipe(space, key):
        return (
            f", since the recipe {recipe.name} sets {own_setting} itself; take it out of the recipe"
        )

    name = key.partition(".")[2]
    if key.startswith("training.") and f"recipe.{name}" in space.settings:
        return f" beside recipe.{name}, which replaces it; leave one of them out"

    return None


def _refuse_value(space: Space, key: str, value: Value) -> None:
    try:
        grid = space.grid_with({key: value})
    except ValidationError as error:
        raise BadInput(
            f"{space.place(key)}: {key} cannot be {canonical_json(value)}: {reason(error)}."
        ) from error

    read = value_in(grid, key)
    if isinstance(value, bool | str) and isinstance(read, int | float):
        raise BadInput(
            f"{space.place(key)}: {key} cannot be {canonical_json(value)}: it takes numbers."
        )

    is_real = isinstance(value, float) and isinstance(space.settings[key], Range)
    if is_real and isinstance(read, int):
        raise BadInput(
            f"{space.place(key)}: {key} takes whole numbers; write the ends of its range without "
            "a point, e.g. { low = 4, high = 32 }."
        )


def _of_the_recipe(space: Space, key: str) -> str | None:
    """The setting by which the recipe replaces this one of the grid, if it does."""
    section, _, name = key.partition(".")
    own_setting = {"training": name, "prompt": "prompt"}.get(section)
    replaced = own_setting is not None and getattr(space.recipe, own_setting, None) is not None
    return own_setting if replaced and own_setting in (*OVERRIDES, "prompt") else None


def _allowed_keys(space: Space) -> list[str]:
    sections = {name: getattr(space.grid, name) for name in SECTIONS[1:]}
    keys = (
        f"{section}.{name}"
        for section, spec in {"recipe": space.recipe, **sections}.items()
        for name in type(spec).model_fields
    )
    return [key for key in keys if key not in LEFT_ALONE]
