"""Reads grid files and the list of known base models; every mistake is a sentence with file, line or
--set, key, and what is allowed.
"""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from tasks.runtime.errors import BadInput
from tasks.runtime.home import ask
from tasks.spec import (
    EMBEDDED_ONLY,
    FAMILIAR,
    LABELS,
    BaseModelSpec,
    Grid,
    RandomSource,
    Safety,
    SetName,
    Strict,
)

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
        built_in = ", ".join(sorted(path.stem for path in GRIDS.glob("*.toml")))
        raise BadInput(
            f"There is no grid {shortened(name)!r}; the built-in grids are {built_in}, or give the "
            "path of a .toml file."
        )
    return path


def load_grid(name: str, overrides: list[str] | None = None) -> Grid:
    """Read a grid by name or path, apply `key=value` overrides, and validate it."""
    overrides = overrides or []
    path = grid_path(name)
    raw = _read_toml(path)

    # A further seed joins the study. What was claimed before its first result stays as it is.
    keys = {item: item.partition("=")[0].strip() for item in overrides}
    of_seeds = [item for item, key in keys.items() if key in ("seeds", "recipe.seeds")]
    primary = raw.get("primary")
    claim = None
    names_seeds = isinstance(primary, dict) and "seeds" in primary
    if of_seeds and names_seeds and not any(key.startswith("primary") for key in keys.values()):
        claim = load_grid(name, [item for item in overrides if item not in of_seeds]).primary
        del raw["primary"]

    # Before `[safety]` is handed to the recipes, so that its values can be changed, too.
    for item in overrides:
        _override(raw, item)

    _leave_out_what_overrides_replace(raw, overrides)
    _inherit_safety(raw, path, overrides)

    grid = _validate(Grid, raw, path, overrides)
    if claim is not None:
        grid = grid.model_copy(update={"primary": claim})
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
    if not grid.any_weights:
        models = [model.model_copy(update={"any_weights": False}) for model in models]

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

    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    # Words need no quotes. More keys come from a text of several lines, which is no single value.
    value = parsed["value"] if len(parsed) == 1 else text

    *parents, last = names
    tables: list[Any] = [raw]
    for parent in parents:
        children = [table.setdefault(parent, {}) for table in tables]
        # An array of tables stands for each of them.
        tables = [
            table for child in children for table in (child if isinstance(child, list) else [child])
        ]
        if not all(isinstance(table, dict) for table in tables):
            raise BadInput(f"--set {item!r} goes below a key that holds a plain value.")
    for table in tables:
        table[last] = value


def _leave_out_what_overrides_replace(raw: RawTable, overrides: list[str]) -> None:
    """Let `--set precisions=...` replace the `bits` of the file, and the other way round, and
    `--set primary=false` its claim; and let `--set data.source=my_cases.csv` take a built-in grid to
    a user's own cases: what the file says about the embedded ones alone does not apply to them.
    """
    keys = {item.partition("=")[0].strip() for item in overrides}
    if "precisions" in keys and "bits" not in keys:
        raw.pop("bits", None)
    if "bits" in keys and "precisions" not in keys:
        raw.pop("precisions", None)
    if raw.get("primary") is False:  # TOML has no null
        del raw["primary"]

    data = raw.get("data")
    if "data.source" in keys and isinstance(data, dict) and data["source"] != "embedded":
        for name in EMBEDDED_ONLY:
            if f"data.{name}" not in keys:
                data.pop(name, None)
        sets = raw.get("evaluation_set")
        if isinstance(sets, list) and "evaluation_set" not in keys:
            familiar = {"name": FAMILIAR, "source": "embedded"}.items()
            raw["evaluation_set"] = [
                entry
                for entry in sets
                if not (isinstance(entry, dict) and familiar <= entry.items())
            ]


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
        raise BadInput(sentence(error, path, overrides)) from error


# Parts of pydantic's locations that name a branch of a union or a dict's key, not a key of the file.
_BRANCHES = {
    *("hub", "package", "folder", "random"),
    *("constrained-int", "literal['all']", "[key]"),
    *("settings", "range", "choices", "int", "float", "bool", "tuple[str, ...]"),
    *("function-after[_each_once(), tuple[str, ...]]",),
}
LONGEST_SHOWN = 100  # characters
_WORDS = (
    ("tuple should have at least 1 item after validation, not 0", "needs at least one entry"),
    ("tuple should have at (least|most) 2 items.*", "needs two entries"),
    (
        "dictionary should have at least 3 items.*",
        f"there is an entry missing; it needs one for each of {', '.join(LABELS)}",
    ),
    (
        "dictionary should have at least 4 items.*",
        f"there is a share missing; it needs one for each of {', '.join(get_args(SetName))}",
    ),
    (r"input should be a valid tuple", "input should be a list"),
    (r"input should be a valid dictionary.*", "input should be a table"),
    (r", unable to parse string as an? \w+", ""),
    (r", unable to interpret input", ""),
    (r"input should be a valid boolean", "input should be true or false"),
    (r"input tag .* expected tags: (.*)", r"kind should be one of \1"),
    (
        r"unable to extract tag using discriminator 'kind'",
        "kind is missing; it says where the weights are",
    ),
)


def sentence(error: ValidationError, path: Path, overrides: list[str]) -> str:
    """The most telling of pydantic's complaints about a grid as one sentence for its author."""
    complaints = error.errors(include_url=False)
    # A misspelt key can give two complaints, of which that it is unknown helps more.
    unknown_keys = [complaint for complaint in complaints if complaint["type"] == "unknown_key"]
    first = (unknown_keys or complaints)[0]
    loc = [part for part in first["loc"] if part not in _BRANCHES]
    # A union gives a complaint for each of its branches.
    messages = [
        _message(complaint["msg"])
        for complaint in complaints
        if [part for part in complaint["loc"] if part not in _BRANCHES] == loc
    ]
    duplicates = [message for message in messages if message.startswith("duplicate name")]
    message = " or ".join(duplicates or messages)
    if "settings" in first["loc"] and first["type"] == "tuple_type":
        message += ", e.g. [1, 2], or a range, e.g. { low = 1, high = 8 }"
    if unknown_keys:
        loc.append(first["ctx"]["key"])
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    place = where(path, loc, overrides, message, above=bool(unknown_keys))

    if unknown_keys:
        return f"{place}: unknown key {key!r}; {first['ctx']['suggestion']}."
    if first["type"] == "missing":
        table = key.rpartition(".")[0]
        return f"{place}: {table or 'the grid'} has no {loc[-1]!r}; add it."
    if not key:
        return f"{place}: {message}."
    if isinstance(first["input"], (dict, list, tuple)) and first["input"]:
        return f"{place}: {key}: {message}."
    shown_value = json.dumps(first["input"], default=str)[:60]
    return f"{place}: {key} = {shown_value} is not allowed: {message}."


def reason(error: ValidationError) -> str:
    """Why a value is refused: pydantic's first complaint, as part of a sentence."""
    return _message(error.errors(include_url=False)[0]["msg"])


def _message(text: str) -> str:
    text = text.removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def where(
    path: Path, loc: list[int | str], overrides: list[str], message: str = "", above: bool = False
) -> str:
    """The file and line of a key, or the --set that put it, a table around it or (`above`) a key
    below it there.
    """
    parts = [part for part in loc if isinstance(part, str)] or [message.partition(":")[0]]
    names = [name for part in parts for name in part.split(".")]
    # The last one that sets a key wins.
    for item in reversed(overrides):
        key = item.partition("=")[0].replace('"', "").strip().split(".")
        if names[: len(key)] == key or (above and key[: len(names)] == names):
            return f"--set {shortened(item)}"

    line = _line_of_duplicate(path, names, message) or _line_of(path, loc or [*names])
    return f"{path}, line {line}" if line else str(path)


def shortened(text: str) -> str:
    """What a user typed, cut off where it would fill the screen."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _line_of(path: Path, loc: list[int | str]) -> int | None:
    """Line of a key in a TOML file: best effort, since the parser keeps no positions."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    start = 0
    tables: list[str] = []
    for table, index in zip(loc, [*loc[1:], 0], strict=False):
        if isinstance(table, int):
            continue
        tables.append(table)
        header = rf"\s*\[\[?\s*{re.escape('.'.join(tables))}\s*\]"
        headers = [i for i, text in enumerate(lines) if i >= start and re.match(header, text)]
        if headers:
            start = headers[index if isinstance(index, int) and index < len(headers) else 0]

    for name in (part for part in reversed(loc) if isinstance(part, str)):
        for i in range(start, len(lines)):
            if re.match(rf"\s*(\"?){re.escape(name)}\1\s*=", lines[i]):
                return i + 1
            if i > start and lines[i].lstrip().startswith("["):
                break

    return start + 1 if start else None


def _line_of_duplicate(path: Path, names: list[str], message: str) -> int | None:
    """Line on which the name of a table stands for the second time."""
    match = re.match("duplicate name ([^;]+);", message)
    if match is None or len(names) > 1:
        return None

    name = rf"""\s*name\s*=\s*["']{re.escape(match[1])}["']"""
    table = ""
    found = None
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([\w.-]+)", text):
            table = header[1]
        elif table == names[0] and re.match(name, text):
            found = number

    return found
