"""Reads grid files and the list of known base models; every mistake is a sentence with file, line
and key.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.grids.grid_errors import sentence, shortened, where
from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask
from tasks.spec import EMBEDDED_ONLY, BaseModelSpec, Grid, RandomSource, Safety, Strict

GRIDS = Path(str(files("deployments"))) / "grids"
BASE_MODELS = Path(str(files("tasks.models"))) / "base_models.toml"

T = TypeVar("T", bound=Strict)
RawTable = dict[str, Any]  # a table of a TOML file before it is validated


class _ModelList(Strict):
    base_model: tuple[BaseModelSpec, ...]


class _Shared(Strict):
    safety: Safety


def grid_path(name: str) -> Path:
    """A grid by its short name (`demo`) or the path of a TOML file."""
    path = Path(name) if name.endswith(".toml") or "/" in name else GRIDS / f"{name}.toml"
    if not ask(Path.is_file, path):
        problem = f"There is no grid {shortened(name)!r}"
        if name and ask(Path.is_dir, Path(name)):
            inside = sorted(Path(name).glob("*.toml"))
            hint = f"; name the file inside it, e.g. {inside[0]}" if inside else ""
            problem = f"{name!r} is a folder where a grid is expected{hint}"

        built_in = ", ".join(sorted(path.stem for path in GRIDS.glob("*.toml")))
        raise BadInput(
            f"{problem}; the built-in grids are {built_in}, or give the path of a .toml file."
        )

    return path


def load_grid(name: str, overrides: list[str] | None = None) -> Grid:
    """Read a grid by name or path, apply `key=value` overrides, and validate it."""
    overrides = overrides or []
    path = grid_path(name)
    raw = _read_toml(path)

    # Before `[safety]` is handed to the recipes, so that its values can be changed, too.
    for item in overrides:
        _override(raw, item)

    _replace_the_other_key(raw, overrides)
    _leave_out_embedded_settings(raw, overrides)
    _inherit_safety(raw, path, overrides)

    grid = _validate(Grid, raw, path, overrides)
    base_models = known_models(grid)
    for name in grid.models:
        if name not in base_models:
            raise BadInput(
                f"{where(path, ['models'], overrides)}: models has the unknown base model {name!r}; "
                f"known are {', '.join(sorted(base_models))}."
            )

    if path.parent == GRIDS:  # no cases lie beside the built-in grids
        return grid

    # Relative sources are looked up in the grid's folder first, see `Columns.with_folder`.
    data = grid.data.with_folder(path.parent)
    sets = tuple(entry.with_folder(path.parent) for entry in grid.evaluation_sets)
    return grid.model_copy(update={"data": data, "evaluation_sets": sets})


def known_models(grid: Grid | None = None) -> dict[str, BaseModelSpec]:
    """Base models by name: the built-in ones and the grid's own, which win."""
    built_in = _validate(_ModelList, _read_toml(BASE_MODELS), BASE_MODELS, []).base_model
    if grid is None:
        return {model.name: model for model in built_in}

    models = [*built_in, *grid.base_models]
    if grid.allow_mirror:
        models = [model.model_copy(update={"allow_mirror": True}) for model in models]

    by_name = {model.name: model for model in models}
    if grid.weights == "random":
        for name, model in by_name.items():
            source = RandomSource(kind="random", shape=name)
            # Nobody's terms of use bind random weights of the true shape.
            by_name[name] = model.model_copy(update={"sources": (source,), "terms": None})

    return by_name


def _read_toml(path: Path) -> RawTable:
    try:
        # utf-8-sig: some editors begin a file with a byte order mark, which tomllib refuses.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


def _override(raw: RawTable, item: str) -> None:
    """Apply one `key=value`: `training.num_layers=8`, `recipe.iterations=20` (every recipe),
    `seeds=[1,2]`. A key with a dot in it may be quoted: `search."recipe.rank"=[4,8]`.
    """
    key, separator, text = item.partition("=")
    names = [part.strip('" ') for part in re.findall(r'"[^"]*"|[^.]+', key)]
    if not separator or not any(names):
        raise BadInput(
            f"--set {item!r} is not of the form key=value, e.g. --set training.num_layers=8."
        )

    value = _toml_value(text)
    *parents, last = names
    tables = [raw]
    for parent in parents:
        tables = [
            child for table in tables for child in _tables(table.setdefault(parent, {}), item)
        ]

    for table in tables:
        table[last] = value


def _replace_the_other_key(raw: RawTable, overrides: list[str]) -> None:
    """Let `--set precisions=...` replace the `bits` of the file, and the other way round."""
    keys = {item.partition("=")[0].strip() for item in overrides}
    if "precisions" in keys and "bits" not in keys:
        raw.pop("bits", None)
    if "bits" in keys and "precisions" not in keys:
        raw.pop("precisions", None)


def _leave_out_embedded_settings(raw: RawTable, overrides: list[str]) -> None:
    """Let `--set data.source=my_cases.csv` take a built-in grid to a user's own cases: what the
    file says about the embedded ones alone does not apply to them.
    """
    data = raw.get("data")
    keys = {item.partition("=")[0].strip() for item in overrides}
    if "data.source" in keys and isinstance(data, dict) and data["source"] != "embedded":
        for name in EMBEDDED_ONLY:
            if f"data.{name}" not in keys:
                data.pop(name, None)


def _toml_value(text: str) -> object:
    """The value of a TOML expression; any other text is a string, so that words need no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More keys come from a text of several lines, which is no single value.
    return parsed["value"] if len(parsed) == 1 else text


def _tables(value: Any, item: str) -> list[RawTable]:
    """A table, or each table of an array of tables."""
    tables = value if isinstance(value, list) else [value]
    if not all(isinstance(table, dict) for table in tables):
        raise BadInput(f"--set {item!r} goes below a key that holds a plain value.")
    return tables


def _inherit_safety(raw: RawTable, path: Path, overrides: list[str]) -> None:
    """Give each safety recipe the grid's `[safety]` cost matrix and class weights where it has
    none.

    The same matrix prices the decisions of every experiment, standard ones too, so that costs can
    be compared.
    """
    safety = raw.pop("safety", {})
    _validate(_Shared, {"safety": safety}, path, overrides)

    scoring = raw.setdefault("scoring", {})
    if safety.get("cost_matrix") and isinstance(scoring, dict):
        scoring.setdefault("cost_matrix", safety["cost_matrix"])

    recipes = raw.get("recipe")
    for recipe in recipes if isinstance(recipes, list) else []:
        if isinstance(recipe, dict) and recipe.get("kind") == "safety":
            recipe.update({key: value for key, value in safety.items() if key not in recipe})


def _validate(model: type[T], raw: RawTable, path: Path, overrides: list[str]) -> T:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(sentence(error, model, path, overrides)) from error
