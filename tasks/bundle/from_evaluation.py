"""The bundle of an experiment in this home, from what its evaluation has landed.

Nothing is computed again: thresholds, scaling, cut-offs and gates are those of the landing folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from tasks.bundle.bundle import (
    Bundle,
    BundledModel,
    ConformalCutoffs,
    Gate,
    JudgedOn,
    ModelGone,
    Review,
    Row,
    Rule,
    Scaling,
    Versions,
    landed_rows,
)
from tasks.corpus.case import SETS
from tasks.corpus.manifest import embedded_digests
from tasks.corpus.prompts import load_prompt
from tasks.models.manifest import VariantManifest
from tasks.precisions import BUILT_IN
from tasks.runtime.errors import BadInput
from tasks.runtime.files import file_digest
from tasks.runtime.store import Manifest, intact_manifest, verify
from tasks.spec import ExperimentSpec, training_of

ADAPTER = "adapters.safetensors"


class WeightsGone(ModelGone):
    """The adapter is here, and the weights are not, as after a sweep on the machines of a pool.

    `spec`: the experiment at the precision that was judged; None where no built-in one has its name.
    """

    def __init__(self, sentence: str, spec: ExperimentSpec | None) -> None:
        super().__init__(sentence)
        self.spec = spec


def bundle_of_evaluation(home: Path, evaluation_id: str) -> BundledModel:
    """The model that an evaluation on the test set has judged; its paths lead into `home`.

    Raises ModelGone where adapter or results are of another home, WeightsGone where the weights
    alone are not here, and BadInput for a baseline, which has neither.
    """
    landing = home / "landing" / evaluation_id
    if intact_manifest(landing, deep=True) is None:
        raise ModelGone(
            f"The results {evaluation_id} did not land in {home}, so the model is elsewhere; "
            "set TRIAGE_HOME to the home that trained it."
        )

    (evaluation,) = landed_rows(landing, "evaluation")
    landed_training = home / "landing" / evaluation["training_id"]
    verify(landed_training)
    (experiment,) = landed_rows(landed_training, "experiment")
    name = experiment["cell_id"]
    if experiment["recipe_kind"] == "baseline":
        raise BadInput(
            f"{name} is a baseline, without an adapter of its own; name a trained experiment."
        )

    # Of a moved adapter, and of a model together with `linear`, the training that it is from.
    training_id = experiment["source_training_id"] or experiment["training_id"]
    if experiment["recipe_kind"] == "with_linear":
        training_id = training_of(experiment["source_scores_id"])
    training = home / "experiments" / training_id
    if intact_manifest(training, deep=True) is None:
        raise ModelGone(
            f"The adapter of {name} is not in {training}; run its sweep again to train it, "
            "or set TRIAGE_HOME to the home that holds it."
        )

    stored = json.loads((training / "training.json").read_text(encoding="utf-8"))
    spec = ExperimentSpec.model_validate(stored["spec"])
    for weights in sorted((home / "models").glob("*/")):
        manifest = Manifest.read_if_complete(weights)
        if manifest is not None and manifest.digest == experiment["weights_digest"]:
            bundle = _bundle(home, landing, evaluation, experiment, spec, training, weights)
            return BundledModel(bundle=bundle, folder=home)

    # An adapter that was moved is judged on another precision than that on which it was trained.
    precisions = BUILT_IN | {spec.precision.name: spec.precision}
    precision = precisions.get(experiment["precision"])
    raise WeightsGone(
        f"The weights with which {name} was judged are not in {home / 'models'}; run its sweep again.",
        spec.model_copy(update={"precision": precision}) if precision else None,
    )


def _bundle(
    home: Path,
    landing: Path,
    evaluation: Row,
    experiment: Row,
    spec: ExperimentSpec,
    training: Path,
    weights: Path,
) -> Bundle:
    variant = VariantManifest.read(weights)
    prompt = load_prompt(spec.prompt)
    (conformal,) = landed_rows(landing, "conformal")
    rules = {row["rule"]: row for row in landed_rows(landing, "decision_rule")}
    rule = rules[evaluation["primary_rule"]]
    costs = evaluation["cost_matrix"]

    def scaling_of(row: Row) -> Scaling | None:
        if row["temperature"] is None:
            return None
        biases = (row["bias_ed"], row["bias_gp"], row["bias_home"])
        return Scaling(temperature=row["temperature"], biases=biases)

    # The rule and the target by which this evaluation judged the training: a later sweep may have
    # others, and trains nothing again. A standard recipe has no target of its own.
    judged_by = {"primary_rule": evaluation["primary_rule"]}
    if spec.recipe.kind == "safety":
        judged_by["target_ed_recall"] = rules["target_recall"]["target"]

    test_digest = evaluation["set_digest"]
    calibration_digest = rules["argmax"]["calibration_digest"]
    dataset_digest = _judged_dataset(
        home, experiment["dataset_digest"], {"test": test_digest, "calibration": calibration_digest}
    )
    landed_data = home / "landing" / f"dataset-{dataset_digest}"
    is_synthetic = test_digest in embedded_digests(home) or (
        _set_digests(landed_data).get("test") == test_digest
        and landed_rows(landed_data, "dataset")[0]["is_embedded"]
    )
    of_evaluation = ("evaluation_id", "scores_id", "scoring_version", "cases", "has_groups")
    of_experiment = ("backend", "compute_dtype", "compute_path")
    versions = {
        name: experiment[f"{name}_version"] for name in ("triage", "engine", "mlx", "mlx_lm")
    }
    return Bundle(
        model_id=experiment["training_id"],
        cell_id=experiment["cell_id"],
        base_model=spec.model.name,
        licence=variant.licence,
        terms=variant.terms.at if variant.terms else None,
        precision=variant.precision_name,
        bits=variant.bits,
        recipe=spec.recipe.model_copy(update=judged_by),
        training=spec.training,
        seed=spec.seed,
        trained_at=spec.precision.name if experiment["source_training_id"] else None,
        with_linear=experiment["recipe_kind"] == "with_linear",
        prompt=spec.prompt,
        prompt_digest=prompt.digest,
        words=prompt.words,
        chat=variant.has_chat_template,
        rule=Rule(
            name=evaluation["primary_rule"],
            threshold=rule["threshold"],
            costs=json.loads(costs) if costs else None,
            offsets=scaling_of(rule) if evaluation["primary_rule"] == "argmax" else None,
            note=rule["note"],
        ),
        scaling=scaling_of(rules["min_cost"]),
        conformal=ConformalCutoffs(
            miss_rate=conformal["miss_rate"],
            cutoffs=(
                conformal["threshold_ed"],
                conformal["threshold_gp"],
                conformal["threshold_home"],
            ),
            note=conformal["note"],
        ),
        gates=tuple(map(Gate.model_validate, landed_rows(landing, "gate"))),
        verdict=evaluation["verdict"],
        review=Review(
            available=spec.recipe.dropout > 0, entropy_limit=evaluation["review_entropy"]
        ),
        judged_on=JudgedOn(
            **{name: evaluation[name] for name in of_evaluation},
            dataset_digest=dataset_digest,
            test_digest=test_digest,
            calibration_digest=calibration_digest,
            synthetic=is_synthetic,
        ),
        versions=Versions(**versions, **{name: experiment[name] for name in of_experiment}),
        random_weights=bool(experiment["random_weights"]),
        weights=str(weights),
        weights_digest=variant.digest,
        adapter=str(training / ADAPTER),
        adapter_digest=file_digest(training / ADAPTER),
    )


def _judged_dataset(home: Path, of_training: str, sets: dict[str, str]) -> str:
    """The digest of the data set with these sets, else of the training's own: a training names the
    last one that it was judged on.
    """
    own_digests = _set_digests(home / "landing" / f"dataset-{of_training}")
    wanted = own_digests | sets
    if own_digests and own_digests != wanted:
        for folder in sorted((home / "landing").glob("dataset-*")):
            digests = _set_digests(folder)
            if all(digests.get(name) == wanted[name] for name in SETS):
                return folder.name.removeprefix("dataset-")
    return of_training


def _set_digests(dataset: Path) -> dict[str, str]:
    """The digest of each set of a landed data set; empty where it has not landed."""
    if not (dataset / "dataset_set.parquet").is_file():
        return {}
    return {row["name"]: row["set_digest"] for row in landed_rows(dataset, "dataset_set")}
