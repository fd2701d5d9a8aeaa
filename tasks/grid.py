"""Reads grid files and the list of known base models; every mistake is a sentence with file, line and key."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.grid_errors import sentence, where
from tasks.runtime.errors import BadInput
from tasks.spec import BaseModelSpec, Grid, RandomSource, Safety, Strict

GRIDS = Path(str(files("deployments"))) / "grids"
BASE_MODELS = Path(str(files("tasks.models"))) / "base_models.toml"

T = TypeVar("T", bound=Strict)


class _ModelList(Strict):
    base_model: tuple[BaseModelSpec, ...]


class _Shared(Strict):
    safety: Safety


def grid_path(name: str) -> Path:
    """A grid by its short name (`demo`) or the path of a TOML file."""
    path = Path(name) if name.endswith(".toml") or "/" in name else GRIDS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in GRIDS.glob("*.toml")))
        raise BadInput(
            f"There is no grid {name!r}; the built-in grids are {known}, or give the path of a .toml file."
        )
    return path


def load_grid(name: str, overrides: list[str] | None = None) -> Grid:
    """Read a grid by name or path, apply `key=value` overrides, and validate it."""
    path = grid_path(name)
    raw = _read_toml(path)
    for item in overrides or []:
        _override(raw, item)
    _inherit_safety(raw, path, overrides or [])
    grid = _validate(Grid, raw, path, overrides or [])
    known = known_models(grid)
    for name in grid.models:
        if name not in known:
            place = where(path, ["models"], overrides or [])
            raise BadInput(
                f"{place}: models has the unknown base model {name!r}; known are {', '.join(sorted(known))}."
            )
    return _beside(grid, path.parent)


def _beside(grid: Grid, folder: Path) -> Grid:
    """The grid with relative sources that are looked up in `folder` first; see `Columns.beside`."""
    if folder == GRIDS:  # no cases lie beside the built-in grids
        return grid

    sets = tuple(entry.beside(folder) for entry in grid.evaluation_sets)
    return grid.model_copy(update={"data": grid.data.beside(folder), "evaluation_sets": sets})


def known_models(grid: Grid | None = None) -> dict[str, BaseModelSpec]:
    """Base models by name: the built-in ones and the grid's own, which win."""
    listed = _validate(_ModelList, _read_toml(BASE_MODELS), BASE_MODELS, [])
    known = {m.name: m for m in listed.base_model + (grid.base_models if grid else ())}
    if grid and grid.allow_mirror:
        known = {
            name: model.model_copy(update={"allow_mirror": True}) for name, model in known.items()
        }
    if grid and grid.weights == "random":
        return {name: _random(model) for name, model in known.items()}
    return known


def _random(model: BaseModelSpec) -> BaseModelSpec:
    """The model with random weights of its true shape; nobody's terms of use bind those."""
    source = RandomSource(kind="random", shape=model.name)
    return model.model_copy(update={"sources": (source,), "terms": None})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


def _override(raw: dict[str, Any], item: str) -> None:
    """Apply one `key=value`: `training.num_layers=8`, `recipe.iterations=20` (every recipe), `seeds=[1,2]`."""
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise BadInput(
            f"--set {item!r} is not of the form key=value, e.g. --set training.num_layers=8."
        )
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if len(parsed) == 1 else text
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    targets = [raw]
    for parent in parents:
        targets = [
            child for target in targets for child in _children(target.setdefault(parent, {}), item)
        ]
    for target in targets:
        target[last] = value


def _children(value: Any, item: str) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(child, dict) for child in found):
        raise BadInput(f"--set {item!r} goes below a key that holds a plain value.")
    return found


def _inherit_safety(raw: dict[str, Any], path: Path, overrides: list[str]) -> None:
    """Give each safety recipe the grid's `[safety]` cost matrix and class weights where it has none of its own.

    The same matrix prices the decisions of every experiment, standard ones too, so that costs can be compared.
    """
    shared = {"safety": raw.pop("safety", {})}
    _validate(_Shared, shared, path, overrides)
    costs, recipes, scoring = (
        shared["safety"].get("cost_matrix"),
        raw.get("recipe"),
        raw.setdefault("scoring", {}),
    )
    if costs and isinstance(scoring, dict):
        scoring.setdefault("cost_matrix", costs)
    for recipe in recipes if isinstance(recipes, list) else []:
        if isinstance(recipe, dict) and recipe.get("kind") == "safety":
            recipe.update(
                {key: value for key, value in shared["safety"].items() if key not in recipe}
            )


def _validate(model: type[T], raw: dict[str, Any], path: Path, overrides: list[str]) -> T:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(sentence(error, model, path, overrides)) from error
