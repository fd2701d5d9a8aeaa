"""Every ingredient of a result changes exactly the ids that it should: no stale result, and no needless training."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from tasks import identity
from tasks.identity import scores_from, training_from
from tasks.runtime.backend import CPU
from tasks.spec import (
    BaseModelSpec,
    Data,
    ExperimentSpec,
    Grid,
    RandomSource,
    Recipe,
    Scoring,
    Training,
    evaluation_id,
    experiments,
    grid,
)  # fmt: skip

COSTS = {
    "ED": {"ED": 1, "GP": 100, "HOME": 100},
    "GP": {"ED": 2, "GP": 1, "HOME": 10},
    "HOME": {"ED": 2, "GP": 3, "HOME": 1},
}
RECIPE = {
    "name": "safe", "kind": "safety", "learning_rate": 1e-4, "batch_size": 4, "rank": 8, "scale": 10.0, "dropout": 0.1,
    "iterations": 100, "target_ed_recall": 0.95, "cost_matrix": COSTS, "class_weights": {"ED": 5, "GP": 2, "HOME": 1},
}  # fmt: skip
GIVEN = {
    "variant": "v", "tokenizer": "t", "train": "a", "valid": "b", "prompt": "p", "backend": "cpu",
    "versions": {"mlx": "0.32.2", "mlx-lm": "0.32.2"}, "compute_dtype": "float32", "compute_path": None,
}  # fmt: skip
SETS = {"calibration": "c", "evaluation_set": "d"}


def model(name: str = "tiny") -> BaseModelSpec:
    return BaseModelSpec(name=name, licence="none", sources=(RandomSource(kind="random", shape="tiny-llama"),))


def experiment(recipe: dict | None = None, training: dict | None = None, scoring: dict | None = None, **changes):
    values = {"model": model(), "bits": 4, "seed": 42, "data": Data()} | changes
    return ExperimentSpec(
        recipe=Recipe(**(RECIPE | (recipe or {}))), training=Training(**(training or {})),
        scoring=Scoring(**(scoring or {})), **values,
    )  # fmt: skip


def ids(spec: ExperimentSpec, inputs: dict | None = None, sets: dict | None = None) -> dict[str, str]:
    given = GIVEN | (inputs or {})
    digests = given | SETS | (sets or {})
    judged = digests.get("name", "test")
    weights = SimpleNamespace(digest=given["variant"], tokenizer_digest=given["tokenizer"])
    dataset = SimpleNamespace(digest_of=lambda name: digests["evaluation_set" if name == judged else name])
    machine = replace(
        CPU, name=given["backend"], compute_dtype=given["compute_dtype"], compute_path=given["compute_path"],
        path_in_ids=given["compute_path"] is not None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "versions", lambda: given["versions"])
        patch.setattr(identity, "backend", lambda: machine)
        patch.setattr(identity, "load_prompt", lambda _: SimpleNamespace(digest=given["prompt"]))
        trained = training_from(spec, weights, dataset)
        scores = scores_from(spec, trained, dataset, judged)
    return {"cell": spec.cell_id, "training": trained, "scores": scores, "evaluation": evaluation_id(scores)}


def changed_ids(inputs: dict | None = None, sets: dict | None = None, **spec) -> set[str]:
    before = ids(experiment())
    after = ids(experiment(**spec), inputs, sets)
    return {name for name in before if before[name] != after[name]}


JUDGED = {"scores", "evaluation"}
RETRAINED = {"training", *JUDGED}
CELL = {"cell", *RETRAINED}
# By what changes exactly these ids: each ingredient of an experiment, or of what it is given.
INGREDIENTS = [
    (RETRAINED, "recipe", [
        {"learning_rate": 2e-4}, {"batch_size": 8}, {"rank": 4}, {"scale": 11.0}, {"dropout": 0.2}, {"iterations": 101},
        {"cost_weight": 2.0}, {"cost_matrix": COSTS | {"GP": {"ED": 3, "GP": 1, "HOME": 10}}},
        {"class_weights": {"ED": 4, "GP": 2, "HOME": 1}}, {"class_weights": None}, {"cost_matrix": None},
        {"lora_plus": 16}, {"label_weight": 2}, {"label_smoothing": 0.1}, {"sampling": "balanced"},
        {"select_by": "macro_f1"},
    ]),
    (RETRAINED, "training", [
        {"group_size": 32}, {"num_layers": 8}, {"target_modules": ("self_attn.q_proj",)}, {"weight_decay": 0.0},
        {"warmup_ratio": 0.2}, {"max_tokens": 512}, {"evaluate_every": 100},
    ]),
    (RETRAINED, "inputs", [
        {"variant": "v2"}, {"tokenizer": "t2"}, {"train": "a2"}, {"valid": "b2"}, {"prompt": "p2"}, {"backend": "metal"},
        {"compute_dtype": "bfloat16"}, {"compute_path": "packed"}, {"versions": {"mlx": "0.32.3", "mlx-lm": "0.32.2"}},
        {"versions": {"mlx": "0.32.2", "mlx-lm": "0.32.3"}},
    ]),
    (JUDGED, "scoring", [{"passes": 51}, {"mc_cases": 60}, {"review_entropy": 0.4}, {"cost_matrix": COSTS}]),
    (JUDGED, "recipe", [{"target_ed_recall": 0.9}, {"primary_rule": "argmax"}]),
    (JUDGED, "sets", [{"calibration": "c2"}, {"evaluation_set": "d2"}, {"name": "clinic"}]),
    (CELL, "bits", [8]),
    (CELL, "seed", [43]),
    (CELL, "model", [model("other")]),
    (CELL, "recipe", [{"name": "other"}]),
    (set(), "data", [Data(source="cases.csv", text_column="complaint")]),  # it matters through its digests alone
]  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "name", "value"),
    [(expected, name, value) for expected, name, values in INGREDIENTS for value in values],
)
def test_each_ingredient_changes_exactly_the_ids_that_it_should(expected, name, value):
    assert changed_ids(**{name: value}) == expected


def test_each_version_changes_what_follows_from_it_and_nothing_before(monkeypatch):
    for module, version, changes in (
        (grid, "SCORING_VERSION", {"evaluation"}),
        (identity, "SCORES_VERSION", JUDGED),
        (identity, "ENGINE_VERSION", RETRAINED),
    ):
        before = ids(experiment())
        monkeypatch.setattr(module, version, getattr(module, version) + 1)
        after = ids(experiment())
        assert {name for name in before if before[name] != after[name]} == changes, version


def test_ids_are_readable_and_end_in_twelve_hex_digits():
    ids_by_kind = ids(experiment())
    assert ids_by_kind["cell"] == "tiny-4bit-safe-s42"
    for kind, of, mark in (("training", "cell", "-"), ("evaluation", "training", "-e")):
        prefix, _, digest = ids_by_kind[kind].rpartition(mark)
        assert prefix == ids_by_kind[of] and len(digest) == 12 and int(digest, 16) >= 0


def test_ids_survive_a_round_trip_through_json_and_a_spec_never_changes_after_reading():
    spec = experiment()
    assert ids(ExperimentSpec.model_validate(json.loads(spec.model_dump_json()))) == ids(spec)
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 1


def test_cells_come_variant_by_variant():
    grid = Grid(name="g", models=("a", "b"), bits=(4, 8), seeds=(1, 2), recipe=[RECIPE])
    cells = list(experiments(grid, {name: model(name) for name in "ab"}))
    assert [c.cell_id for c in cells] == [
        f"{m}-{bits}bit-safe-s{seed}" for m in "ab" for bits in (4, 8) for seed in (1, 2)
    ]


def test_the_gated_rule_follows_from_the_kind_unless_it_is_named_and_pefts_alpha_from_scale_and_rank():
    assert Recipe(**RECIPE).peft_alpha == 80.0
    standard = {k: v for k, v in RECIPE.items() if k not in ("cost_matrix", "class_weights", "target_ed_recall")}
    assert Recipe(**(standard | {"kind": "standard"})).rule == "argmax"
    assert Recipe(**RECIPE).rule == "target_recall"
    assert Recipe(**(RECIPE | {"primary_rule": "min_cost"})).rule == "min_cost"
