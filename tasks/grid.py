"""Reads grid files and the list of known base models; every mistake is a sentence with file, line and key."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.runtime.errors import BadInput
from tasks.spec import BaseModelSpec, Grid, Strict

GRIDS = Path(str(files("deployments"))) / "grids"
BASE_MODELS = Path(str(files("tasks.models"))) / "base_models.toml"

T = TypeVar("T", bound=Strict)


class _ModelList(Strict):
    base_model: tuple[BaseModelSpec, ...]


def grid_path(name: str) -> Path:
    """A grid by its short name (`demo`) or the path of a TOML file."""
    path = Path(name) if name.endswith(".toml") or "/" in name else GRIDS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in GRIDS.glob("*.toml")))
        raise BadInput(f"There is no grid {name!r}; the built-in grids are {known}, or give the path of a .toml file.")
    return path


def load_grid(name: str, overrides: list[str] | None = None) -> Grid:
    """Read a grid by name or path, apply `key=value` overrides, and validate it."""
    path = grid_path(name)
    raw = _read_toml(path)
    for item in overrides or []:
        _override(raw, item)
    _inherit_safety(raw)
    return _validate(Grid, raw, path)


def known_models(grid: Grid | None = None) -> dict[str, BaseModelSpec]:
    """Base models by name: the built-in ones and the grid's own, which win. The grid's models must all be known."""
    listed = _validate(_ModelList, _read_toml(BASE_MODELS), BASE_MODELS)
    models = {m.name: m for m in listed.base_model + (grid.base_models if grid else ())}
    missing = [name for name in (grid.models if grid else ()) if name not in models]
    if missing:
        raise BadInput(f"Unknown base model {missing[0]!r}; known are {', '.join(sorted(models))}.")
    return models


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


def _override(raw: dict[str, Any], item: str) -> None:
    """Apply one `key=value`: `training.num_layers=8`, `recipe.iterations=20` (every recipe), `seeds=[1,2]`."""
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise BadInput(f"--set {item!r} is not of the form key=value, e.g. --set training.num_layers=8.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    targets = [raw]
    for parent in parents:
        targets = [child for target in targets for child in _children(target.setdefault(parent, {}), item)]
    for target in targets:
        target[last] = value


def _children(value: Any, item: str) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(child, dict) for child in found):
        raise BadInput(f"--set {item!r} goes below a key that holds a plain value.")
    return found


def _inherit_safety(raw: dict[str, Any]) -> None:
    """Give each safety recipe the grid's `[safety]` cost matrix and class weights where it has none of its own.

    The same matrix prices the decisions of every experiment, standard ones too, so that costs can be compared.
    """
    shared = raw.pop("safety", {})
    if isinstance(shared, dict) and "cost_matrix" in shared and isinstance(raw.setdefault("scoring", {}), dict):
        raw["scoring"].setdefault("cost_matrix", shared["cost_matrix"])
    recipes = raw.get("recipe", [])
    for recipe in recipes if isinstance(recipes, list) else []:
        if isinstance(recipe, dict) and recipe.get("kind") == "safety" and isinstance(shared, dict):
            for key, value in shared.items():
                recipe.setdefault(key, value)


def _validate(model: type[T], raw: dict[str, Any], path: Path) -> T:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(_sentence(error, model, raw, path)) from error


def _sentence(error: ValidationError, model: type[Strict], raw: dict[str, Any], path: Path) -> str:
    first = error.errors()[0]
    loc = [part for part in first["loc"] if part not in ("hub", "package", "folder", "random")]
    line = _line_of(path, loc)
    where = f"{path}{f', line {line}' if line else ''}"
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; allowed are {', '.join(_allowed(model, loc))}."
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not key:
        return f"{where}: {message}."
    return f"{where}: {key} = {_shown(first['input'])} is not allowed: {message}."


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(model: type[Strict], loc: list[Any]) -> list[str]:
    """Names of the keys that the table at `loc` may hold."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in loc[:-1]:
        node = node.get("items", node) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return sorted(node.get("properties", {})) or ["the keys of the built-in grids"]


def _line_of(path: Path, loc: list[Any]) -> int | None:
    """Line of a key in a TOML file: best effort, since the parser keeps no positions."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = 0
    for table, index in zip(loc, [*loc[1:], 0], strict=False):
        if not isinstance(table, str):
            continue
        headers = [i for i, text in enumerate(lines) if re.match(rf"\s*\[\[?\s*{re.escape(table)}\s*\]", text)]
        if headers:
            start = headers[index if isinstance(index, int) and index < len(headers) else 0]
    names = [part for part in loc if isinstance(part, str)]
    for i in range(start, len(lines)):
        if names and re.match(rf"\s*{re.escape(names[-1])}\s*=", lines[i]):
            return i + 1
    return start + 1 if start else None
