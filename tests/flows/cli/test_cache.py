"""`triage cache explain`: which ingredient made an experiment train again."""

from __future__ import annotations

import io
import json
import os
import re

import pytest
from rich.console import Console

from flows.cli.storage.cache_explain import print_explanation
from flows.selection import select
from tasks.identity import INGREDIENTS, TrainingInputs, training_id, training_ingredients
from tasks.runtime.errors import BadInput
from tasks.runtime.home import home

INPUTS = {
    "variant": "a" * 64, "tokenizer": "t", "train": "b" * 64, "valid": "v", "prompt": "p",
    "versions": {"mlx": "1", "mlx-lm": "2"}, "backend": "cpu", "compute_dtype": "float32",
}  # fmt: skip


def trained(hour: int, overrides: list[str] | None = None, **inputs) -> str:
    """A training of the first cell of the smoke grid, as its step records it; its id."""
    spec = select("smoke", overrides).cells[0]
    training_inputs = TrainingInputs(**(INPUTS | inputs))
    id = training_id(spec, training_inputs)
    file = home() / "experiments" / id / INGREDIENTS
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(training_ingredients(spec, training_inputs)))
    os.utime(file, (hour * 3600, hour * 3600))

    return id


def explanation(experiment: str) -> str:
    out = io.StringIO()
    print_explanation(Console(file=out, width=200), experiment)
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_the_ingredients_that_changed_since_the_most_similar_earlier_training_are_named():
    cell = select("smoke").cells[0].cell_id
    first = trained(1)
    assert f"{first} is the first training of {cell} here." in explanation(cell)

    trained(2, ["recipe.scale=3"])
    third = trained(3, ["recipe.rank=2"], train="c" * 64, versions={"mlx": "1", "mlx-lm": "3"})
    text = explanation(cell)
    assert f"{third} was trained because 3 ingredients" in text.replace("\n", " ")
    assert f"those of {first}" in text.replace("\n", " "), "the second one differs in more"
    rank = str(select("smoke").cells[0].recipe.rank)
    assert rows(text) == [
        ["recipe.rank", rank, "2"],
        ["train", "b" * 12, "c" * 12],
        ["versions.mlx-lm", "2", "3"],
    ]
    assert "is the first training" in explanation(first)


def test_one_ingredient_differs():
    trained(1)
    trained(2, ["recipe.rank=2"])
    text = explanation(select("smoke").cells[0].cell_id)
    assert "was trained because 1 ingredient of its id differs from those of" in text


def test_a_cell_is_not_taken_for_another_one_that_begins_so():
    trained(1, ["seeds=[4]"])
    asked = trained(2, ["seeds=[4]", "recipe.rank=2"])
    trained(3, ["seeds=[42]"])
    other = trained(4, ["seeds=[42]", "recipe.rank=2"])
    cell = select("smoke", ["seeds=[4]"]).cells[0].cell_id
    assert explanation(cell).startswith(f"{asked} was trained because")
    assert explanation(f"{cell}2").startswith(f"{other} was trained because")
    assert explanation(asked).startswith(f"{asked} was trained because")
    assert explanation(f"{cell}2-").startswith(f"{other} was trained because"), "the only cell that begins so"

    beginning = cell.removesuffix("-s4")
    sentence = f"'{beginning}' is the beginning of 2 experiments: {cell}, {cell}2; give one whole."
    with pytest.raises(BadInput, match=re.escape(sentence)):
        explanation(beginning)


def test_a_setting_that_one_of_them_did_not_have_is_not_set_there():
    trained(1)
    trained(2, compute_path="packed")
    assert rows(explanation(select("smoke").cells[0].cell_id)) == [["compute_path", "not set", "packed"]]


def test_an_experiment_that_was_not_trained_here_is_a_sentence_with_the_nearest_name():
    with pytest.raises(BadInput, match="triage status lists"):
        explanation("tiny-llama-4bit-baseline-s42")
    trained(1)
    with pytest.raises(BadInput, match="did you mean tiny-llama-4bit-baseline-s42"):
        explanation("tiny-lama-4bit-baseline-s42")
