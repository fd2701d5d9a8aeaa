"""Ids of studies of before: a setting that came later adds nothing to them while it stands at its default."""

import json
from types import SimpleNamespace
from typing import Annotated

import pytest
from pydantic import Field

from tasks import baselines, identity
from tasks.baselines import fidelity_id
from tasks.experiment import moved_training
from tasks.grids.grid import known_models
from tasks.landing import grid_digest
from tasks.runtime.backend import CPU
from tasks.scoring.baselines import baseline_scores_id, zero_shot_id
from tasks.spec import OMITTED_AT_DEFAULT, OVERRIDES, Grid, PromptChoice, Recipe, evaluation_id, experiments
from tasks.tuning import rows
from tests.test_spec import RECIPE, experiment, model

VERSIONS = {"mlx": "0.32.2", "mlx-lm": "0.32.2"}
WEIGHTS = SimpleNamespace(digest="w", tokenizer_digest="t", base_model="tiny", bits=4, precision_name="4bit")
DATASET = SimpleNamespace(digest_of=lambda name: f"digest of {name}")


@pytest.fixture(autouse=True)
def _fixed_versions(monkeypatch):
    for module in (identity, rows, baselines):
        monkeypatch.setattr(module, "versions", lambda: VERSIONS)
    for module in (identity, rows):
        monkeypatch.setattr(module, "backend", lambda: CPU)


def ids(grid: Grid, monkeypatch) -> dict[str, str]:
    """Every id of a grid's first experiment and of what stands beside it, by kind."""
    spec = next(experiments(grid, {"tiny": model()}))
    training = identity.training_from(spec, WEIGHTS, DATASET)
    untuned = zero_shot_id(WEIGHTS, identity.load_prompt(grid.prompt).digest, VERSIONS, CPU)
    scores = identity.scores_from(spec, training, DATASET)

    return {
        "training": training,
        "settings": rows.settings_digest(spec, DATASET),
        "scores": scores,
        "set": identity.scores_from(spec, training, DATASET, "clinic"),
        "evaluation": evaluation_id(scores),
        "zero_shot": untuned,
        "zero_shot_scores": baseline_scores_id(untuned, grid.scoring, DATASET, grid.training.max_tokens),
        "moved": moved_training(spec, training, scores, spec.precision, WEIGHTS)[1],
        "fidelity": fidelity_id(WEIGHTS, WEIGHTS, DATASET, grid),
    }


BEFORE = {
    "training": "57468d64bbeb",
    "settings": "4cd686c4d2e6",
    "scores": "e3ae0e85ddb8a",
    "set": "e92a4a3b32bcd",
    "evaluation": "efb2180dc7903",
    "zero_shot": "eaea85dfbb7c",
    "zero_shot_scores": "e2f7923a28de0",
    "moved": "03980385452f",
    "fidelity": "3b9f534acad0",
}
"""Computed before any setting was marked with OMITTED_AT_DEFAULT; that of the evaluation, at scoring version 7.

Until then an evaluation had the id of its scores: folders of before are those of these scores.
"""


def digests(grid: Grid, monkeypatch) -> dict[str, str]:
    return {kind: id.rpartition("-")[2] for kind, id in ids(grid, monkeypatch).items()}


def study(**changes) -> Grid:
    return Grid(**({"name": "g", "models": ("tiny",), "bits": (4,), "recipe": [RECIPE]} | changes))


def test_studies_of_before_keep_every_id_and_how_long_a_step_may_take_decides_none(monkeypatch):
    assert digests(study(), monkeypatch) == BEFORE
    assert digests(study(time_limit={"factor": 2, "floor_seconds": 5}), monkeypatch) == BEFORE
    assert digests(study(data={"near_copies": "drop"}), monkeypatch) == BEFORE, (
        "what is dropped changes the sets' digests"
    )


def test_whether_other_weights_may_be_taken_is_in_no_id_digest_or_file():
    grids = [study(any_weights=value, base_model=[model()]) for value in (False, True)]
    specs = [next(experiments(grid, known_models(grid))) for grid in grids]
    assert [spec.model.any_weights for spec in specs] == [False, True]
    assert specs[0].model_dump() == specs[1].model_dump() and grid_digest(grids[0]) == grid_digest(grids[1])


class YoungerRecipe(Recipe):
    ratio: Annotated[float, OMITTED_AT_DEFAULT] = Field(default=1.0)
    names: Annotated[tuple[str, ...] | None, OMITTED_AT_DEFAULT] = Field(default=None)


@pytest.mark.parametrize("named", [{}, {"ratio": 1}, {"names": None}], ids=json.dumps)
def test_a_marked_setting_at_its_default_adds_nothing_even_where_it_is_named(named, monkeypatch):
    grid = study().model_copy(update={"recipes": (YoungerRecipe(**RECIPE, **named),)})
    assert digests(grid, monkeypatch) == BEFORE
    assert set(grid.recipes[0].model_dump()) == set(Recipe(**RECIPE).model_dump())


@pytest.mark.parametrize("named", [{"ratio": 2}, {"names": ("a",)}], ids=json.dumps)
def test_a_marked_setting_that_is_changed_trains_again_and_survives_json(named):
    younger = YoungerRecipe(**RECIPE, **named)
    spec = experiment().model_copy(update={"recipe": younger})
    assert identity.training_from(spec, WEIGHTS, DATASET) != identity.training_from(experiment(), WEIGHTS, DATASET)
    assert YoungerRecipe.model_validate_json(younger.model_dump_json()) == younger


OVERRIDDEN = {
    "num_layers": 8, "target_modules": ["self_attn.q_proj"], "decay": "cosine", "warmup_ratio": 0.2,
    "max_gradient_norm": 1.0, "evaluate_every": 100,
}  # fmt: skip


def test_a_recipe_with_settings_of_its_own_has_the_ids_of_a_grid_that_says_the_same():
    answers = {"ED": "Emergency", "GP": "Doctor", "HOME": "Home"}
    prompt = PromptChoice(version=2, answers=answers)
    of_recipe = study(recipe=[RECIPE | OVERRIDDEN | {"prompt": prompt}])
    of_grid = study(training=OVERRIDDEN, prompt=prompt)
    (own_value,), (reference,) = (list(experiments(grid, {"tiny": model()})) for grid in (of_recipe, of_grid))
    assert own_value == reference and own_value.model_dump() == reference.model_dump()
    assert set(OVERRIDDEN) == set(OVERRIDES)
    assert of_recipe.prompts == of_grid.prompts == [prompt]


@pytest.mark.parametrize(
    "prompt", [{"version": 2}, {"answers": {"ED": "now", "GP": "soon", "HOME": "never"}}], ids=["version", "answers"]
)
def test_a_prompt_enters_the_ids_of_trainings_untuned_models_and_fidelities_where_it_is_named(prompt, monkeypatch):
    outcome = ids(study(prompt=prompt), monkeypatch)
    before = ids(study(), monkeypatch)
    assert not any(outcome[kind] == before[kind] for kind in BEFORE)
    same = {"version": 1, "answers": {label: label for label in ("ED", "GP", "HOME")}}
    assert digests(study(prompt=same), monkeypatch) == BEFORE
