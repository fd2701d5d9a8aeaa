"""The reference of every grid key, generated from the models in `tasks/spec`.

`python -m tasks.grids.grid_reference` writes it to `deployments/grids/README.md`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from tasks.grids.grid import GRIDS
from tasks.precisions import Precision
from tasks.spec import (
    BaseModelSpec,
    Data,
    EvaluationSet,
    FolderSource,
    Grid,
    HubSource,
    PackageSource,
    PromptChoice,
    RandomSource,
    Range,
    Recipe,
    Safety,
    Scoring,
    Search,
    TimeLimit,
    Training,
)

README = GRIDS / "README.md"
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Top level", Grid),
    ("`[training]`", Training),
    ("`[data]`", Data),
    ("`[scoring]`", Scoring),
    ("`[prompt]`", PromptChoice),
    ("`[safety]`", Safety),
    ("`[time_limit]`", TimeLimit),
    ("`[[recipe]]`", Recipe),
    ("`[[evaluation_set]]`", EvaluationSet),
    ("`[[precision]]`", Precision),
    ("`[search]`", Search),
    ("A range of `[search]`", Range),
    ("`[[base_model]]`", BaseModelSpec),
    ('`[[base_model.sources]]` with `kind = "hub"`', HubSource),
    ('`[[base_model.sources]]` with `kind = "package"`', PackageSource),
    ('`[[base_model.sources]]` with `kind = "folder"`', FolderSource),
    ('`[[base_model.sources]]` with `kind = "random"`', RandomSource),
)
Entry = dict[str, Any]  # a key in a JSON schema
LIMITS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)
INTRODUCTION = """\
# Grid files

A grid file describes a study in TOML: every model x precision x recipe x seed is one experiment.

| file | study |
|---|---|
| `demo.toml` | a first look on real weights, in minutes |
| `paper.toml` | the full study: 3 models x 2 precisions x 10 recipes = 60 experiments |
| `tuned.toml` | recipes that learn, about an hour an experiment on two cores |
| `study.toml` | [the study that this project publishes](../../warehouse/published/README.md), 18 trainings |
| `study_gemma.toml` | its tuned recipes on Gemma-3-270M, at a lower learning rate, 4 trainings |
| `ablation.toml` | the parts of the safety loss, alone and together, with three seeds |
| `smoke.toml` | every stage on tiny random models, in about a minute |

Run one by its name or its path (`triage sweep demo`, `triage sweep my_grid.toml`); with `--plan`,
see what it would do. `--set` changes any key for one run: `--set training.num_layers=8`,
`--set recipe.iterations=50` (all recipes). `triage init DIR` writes a grid to start from. A
misspelt key or a value out of bounds ends the command with the file, the line and the allowed
values.

`triage search my_grid.toml` looks for a recipe in the ranges of the grid's `[search]` table. It takes
the grid's first model, precision, recipe and seed, unless options name others, trains each proposal
under the settings of the grid and its own, and writes a grid file with the winner for both
precisions. No test case is scored, and no id depends on `[search]`.

The tables below list every key. They are generated from `tasks/spec`; after a change there, run
`python -m tasks.grids.grid_reference`."""


def reference() -> str:
    """The reference as Markdown: one table per section of a grid file."""
    sections = [section(title, model) for title, model in SECTIONS]
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def section(title: str, model: type[BaseModel]) -> str:
    """One section: its purpose, and a row per key."""
    heading = f"## {title}\n\n{inspect.getdoc(model)}"
    rows = ["| key | type | default | description |", "|---|---|---|---|", *key_rows(model)]

    return "\n\n".join([heading, "\n".join(rows)])


def key_rows(model: type[BaseModel]) -> Iterator[str]:
    """One row per key; keys that a section shares with another come last."""
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    entries = schema["properties"]

    for key in sorted(entries, key=lambda key: key not in model.__annotations__):
        entry = entries[key]
        default = "required" if key in required else default_text(entry)
        cells = (f"`{key}`", type_text(entry), default)
        yield f"| {' | '.join(cells)} | {entry.get('description', '')} |"


def default_text(entry: Entry) -> str:
    """The default of a key in TOML. A table has no default; its keys do."""
    default = entry.get("default")
    if default is None or default in ({}, []) or isinstance(default, dict):
        return ""
    return f"`{json.dumps(default)}`"


def type_text(entry: Entry) -> str:
    """Type and bounds of a key in words, e.g. `integer, at least 1 and at most 64`."""
    branches = entry.get("anyOf") or ([] if "discriminator" in entry else entry.get("oneOf"))
    if branches:
        return " or ".join(branch_text(part) for part in branches if part != {"type": "null"})
    if not entry:
        return "value"
    if "enum" in entry:
        return " or ".join(f"`{json.dumps(value)}`" for value in entry["enum"])
    if "const" in entry:
        return f"always `{json.dumps(entry['const'])}`"
    if entry.get("type") == "array":
        return list_text(entry["items"])
    if entry.get("type") == "object":
        return table_text(entry)
    if "$ref" in entry:
        return "table"

    return ", ".join([str(entry.get("type", "table")), *bounds(entry)])


def branch_text(entry: Entry) -> str:
    """One of several types: there a constant is one of the values, not the only one."""
    return f"`{json.dumps(entry['const'])}`" if "const" in entry else type_text(entry)


def list_text(items: Entry) -> str:
    text = type_text(items)
    if text == "table":
        return "tables"

    kind, comma, limits = text.partition(", ")
    plural = kind if kind.startswith("`") else f"{kind}s"
    return f"list of {plural}{comma}{limits}"


def table_text(entry: Entry) -> str:
    """A table such as `{ ED = 5, GP = 2, HOME = 1 }`: its keys, where they are fixed, and their
    type.
    """
    keys = entry.get("propertyNames", {}).get("enum", [])
    key_names = f" ({', '.join(keys)})" if keys else ""
    return f"table{key_names} of {type_text(entry['additionalProperties'])}"


def bounds(entry: Entry) -> Iterator[str]:
    """Bounds of a number, or pattern of a string, in words."""
    limits = [f"{word} {entry[key]:,}".removesuffix(".0") for key, word in LIMITS if key in entry]
    if limits:
        yield " and ".join(limits)
    if "pattern" in entry:
        yield f"matching `{entry['pattern']}`"


if __name__ == "__main__":
    README.write_text(reference(), encoding="utf-8")
