"""What is wrong with a grid file, in one sentence: the file and line (or the --set), the key, and
what is allowed.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.spec import Grid

# Parts of pydantic's locations that name a branch of a union or a
# dict's key, not a key of the file.
_BRANCHES = {
    *("hub", "package", "folder", "random"),
    *("constrained-int", "literal['all']", "[key]"),
    *("settings", "range", "choices", "int", "float", "bool", "tuple[str, ...]"),
}
LONGEST_SHOWN = 100  # characters
_WORDS = (
    ("tuple should have at least 1 item after validation, not 0", "needs at least one entry"),
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


def sentence(
    error: ValidationError, model: type[BaseModel], path: Path, overrides: list[str]
) -> str:
    """The most telling of pydantic's complaints about a grid as one sentence for its author."""
    complaints = error.errors(include_url=False)
    # A misspelt key gives two complaints, that it is unknown and that the right one is missing: the
    # first helps more.
    unknown_keys = [complaint for complaint in complaints if complaint["type"] == "extra_forbidden"]
    first = (unknown_keys or complaints)[0]
    loc = [part for part in first["loc"] if part not in _BRANCHES]
    # A union gives a complaint for each of its branches.
    message = " or ".join(
        _message(complaint["msg"])
        for complaint in complaints
        if [part for part in complaint["loc"] if part not in _BRANCHES] == loc
    )
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    unknown = first["type"] == "extra_forbidden"
    place = where(path, loc, overrides, message, above=unknown)

    if unknown:
        allowed_keys = _allowed_keys(model, first["loc"])
        near = difflib.get_close_matches(str(loc[-1]), allowed_keys, n=1, cutoff=0.6)
        suggestion = f"did you mean {near[0]!r}? Allowed are" if near else "allowed are"
        return f"{place}: unknown key {key!r}; {suggestion} {', '.join(allowed_keys)}."
    if first["type"] == "missing":
        table = key.rpartition(".")[0]
        return f"{place}: {table or 'the grid'} has no {loc[-1]!r}; add it."
    if not key:
        return f"{place}: {message}."
    if isinstance(first["input"], (dict, list, tuple)) and first["input"]:
        return f"{place}: {key}: {message}."
    return (
        f"{place}: {key} = {json.dumps(first['input'], default=str)[:60]} is not allowed: "
        f"{message}."
    )


def reason(error: ValidationError) -> str:
    """Why a value is refused: pydantic's first complaint, as part of a sentence."""
    return _message(error.errors(include_url=False)[0]["msg"])


def _message(text: str) -> str:
    text = text.removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def _allowed_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the table at `loc` may hold."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in loc[:-1]:
        branches = node.get("discriminator", {}).get("mapping", {})
        node = {"$ref": branches[part]} if part in branches else _child_of(node, part)
        node = _resolved(node, schema["$defs"])

    # `[safety]` is read apart: its values go into the safety recipes.
    shared = {"safety"} if model is Grid and len(loc) == 1 else set()
    return sorted({*node.get("properties", {}), *shared})


def _child_of(node: dict[str, Any], part: int | str) -> dict[str, Any]:
    """The schema of what stands in a list or under a key; a branch of a union is the union itself."""
    if isinstance(part, int):
        return dict(node.get("items", node))
    if part in _BRANCHES and part not in node.get("properties", {}):
        return node
    child = node.get("properties", {}).get(part) or node.get("additionalProperties")
    return child if isinstance(child, dict) else {}


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference names, or the table among the alternatives."""
    while True:
        branches = node.get("anyOf") or node.get("oneOf") or []
        table = next((branch for branch in branches if "$ref" in branch), None)
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
        elif table is not None and "discriminator" not in node:
            node = table
        else:
            return node


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

    line = _line_of_duplicate(path, message) or _line_of(path, loc)
    return f"{path}, line {line}" if line else str(path)


def shortened(text: str) -> str:
    """What a user typed, cut off where it would fill the screen."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _line_of(path: Path, loc: list[int | str]) -> int | None:
    """Line of a key in a TOML file: best effort, since the parser keeps no positions."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    start = 0
    for table, index in zip(loc, [*loc[1:], 0], strict=False):
        header = rf"\s*\[\[?\s*([\w.-]+\.)?{re.escape(str(table))}\s*\]"
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


def _line_of_duplicate(path: Path, message: str) -> int | None:
    """Line on which a name stands for the second time."""
    match = re.match(r"(\w+): duplicate name ([^;,]+)", message)
    if match is None:
        return None

    key, name = match.groups()
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    pattern = rf'\s*(name\s*=\s*"{re.escape(name)}"|{key}\s*=)'
    matches = [number for number, text in enumerate(lines, 1) if re.match(pattern, text)]

    return matches[-1] if matches else None
