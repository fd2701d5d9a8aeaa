"""Steps: what adapters are judged beside. The baselines of a dataset, and the untuned model of a
variant, landed as experiments of kind `baseline`; and what quantisation alone changes, per base
model, against the most exact weights available.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.caching import as_cached, run_job, step
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.judging.evaluation_rows import Evaluation, judged_rows
from tasks.judging.point_metrics import Rows
from tasks.judging.scores_folder import read_scores
from tasks.landing import is_landed, land_rows, whole_row
from tasks.models.manifest import VariantManifest, base_folder
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.backend import backend, versions
from tasks.runtime.home import home
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import FidelityJob, UntunedScoringJob
from tasks.scoring.baselines import (
    OF_A_DATASET,
    ZERO_SHOT,
    baseline_scores_id,
    dataset_baseline_id,
    dataset_baseline_rows,
    zero_shot_id,
)
from tasks.spec import SCORES_VERSION, BaseModelSpec, Grid, Scoring, evaluation_id, short_digest
from tasks.tuning.rows import weights_columns


@step("baselines", delay=2)
def baselines(scoring: Scoring, data: Path, vital_signs: bool = False) -> list[str]:
    """evaluation_ids of always_gp, always_ed and linear on a dataset's test set and on the grid's
    further sets. `vital_signs`: whether linear reads them in words.

    Each is computed and landed once.
    """
    dataset = DatasetManifest.read(data)
    ids: list[str] = []
    was_there = True
    for name in OF_A_DATASET:
        training = dataset_baseline_id(name, dataset, vital_signs)
        scores = {
            set_name: baseline_scores_id(training, scoring, dataset, judged=set_name)
            for set_name in dataset.evaluation_sets
        }
        ids += map(evaluation_id, scores.values())
        unlanded = _unlanded(training, scores)
        if unlanded:
            was_there = False
            columns = {"cell_id": name, "base_model": "none", "recipe": name}
            landing = dataset_baseline_rows(name, unlanded, scoring, data, dataset, vital_signs)
            for set_name, rows in landing.items():
                _land(training, columns, dataset, unlanded[set_name], rows)

    return as_cached(ids, ", ".join(ids)) if was_there else ids


@step("zero-shot {model.name} {precision.name}")
def zero_shot(
    model: BaseModelSpec,
    precision: Precision,
    grid: Grid,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> list[str]:
    """evaluation_ids of the untuned variant on test and on the grid's further evaluation sets.

    It is scored in a child process, through the frozen prefix that its recipes share.
    """
    dataset = DatasetManifest.read(data)
    weights = VariantManifest.read(variant)
    training = zero_shot_id(weights, load_prompt(grid.prompt).digest, versions(), backend())
    ids = {
        set_name: baseline_scores_id(
            training, grid.scoring, dataset, grid.training.max_tokens, set_name
        )
        for set_name in dataset.evaluation_sets
    }

    folders = {
        set_name: home() / "baselines" / id for set_name, id in _unlanded(training, ids).items()
    }
    if any(intact_manifest(scores, deep=True) is None for scores in folders.values()):
        job = UntunedScoringJob(
            scoring=grid.scoring,
            training=grid.training,
            prompt=grid.prompt,
            variant=variant,
            data=data,
            home=home(),
            scores=home() / "baselines" / ids["test"],
            sets={name: scores for name, scores in folders.items() if name != "test"},
        )
        # A log of its own for other sets: `forget` reads in it what was made of which data set.
        log = f"{ids['test']}-{short_digest(ids)}"
        emit = publisher(f"zero-shot {model.name} {precision.name}")
        run_job("tasks.scoring.job:run_untuned", job, log, emit, at_most)

    recipe = f"{ZERO_SHOT} {grid.prompt.title}".strip()
    columns = {
        "cell_id": f"{model.name}-{weights.precision_name}-{recipe}",
        "base_model": model.name,
        "bits": weights.bits,
        "precision": weights.precision_name,
        "recipe": recipe,
        "group_size": weights.group_size,
        **weights_columns(weights),
        "compute_path": backend().compute_path,
        "backend": backend().name,
        "compute_dtype": backend().compute_dtype,
        "mlx_version": versions()["mlx"],
        "mlx_lm_version": versions()["mlx-lm"],
    }
    for set_name, scores in folders.items():
        id = ids[set_name]
        evaluation = Evaluation(id, set_name, dataset.sets[set_name], grid.scoring)
        _land(training, columns, dataset, id, judged_rows(evaluation, read_scores(scores)))

    evaluation_ids = [evaluation_id(id) for id in ids.values()]
    return evaluation_ids if folders else as_cached(evaluation_ids, ", ".join(evaluation_ids))


def _unlanded(training: str, scores: dict[str, str]) -> dict[str, str]:
    """Ids of the scores whose evaluation has not landed, by set; all of them where the experiment
    has not.
    """
    if not is_landed(training):
        return scores
    return {set_name: id for set_name, id in scores.items() if not is_landed(evaluation_id(id))}


def _land(
    training: str,
    columns: dict[str, Any],
    dataset: DatasetManifest,
    scores: str,
    rows: dict[str, Rows],
) -> None:
    """Land an evaluation of a baseline, after its experiment if that has not landed yet: killed in
    between, an evaluation would be left without its experiment.
    """
    if not is_landed(training):
        row = {
            "training_id": training,
            "recipe_kind": "baseline",
            "seed": 0,
            "status": "completed",
            "finished_at": rows["evaluation"][0]["created_at"],
            "dataset_digest": dataset.dataset_digest,
            **columns,
        }
        land_rows(training, "training", {"experiment": [whole_row("experiment", row)]})
    land_rows(evaluation_id(scores), "evaluation", rows)


@step("fidelity {model.name}")
def fidelity(
    model: BaseModelSpec,
    source: Path,
    grid: Grid,
    variants: list[Path],
    data: Path,
    at_most: float | None = None,
) -> list[str]:
    """fidelity_ids of a base model's variants on a sample of the test cases; each is measured and
    landed once. The reference is not compared with itself.
    """
    dataset = DatasetManifest.read(data)
    reference_folder = base_folder(source, home())
    reference = VariantManifest.read(reference_folder)
    folders = [folder for folder in variants if folder != reference_folder]
    weights = {folder: VariantManifest.read(folder) for folder in folders}
    ids = {
        folder: fidelity_id(variant, reference, dataset, grid)
        for folder, variant in weights.items()
    }

    unlanded = {folder: id for folder, id in ids.items() if not is_landed(id)}
    if not unlanded:
        return as_cached(list(ids.values()), ", ".join(ids.values()))

    job = FidelityJob(
        reference=reference_folder,
        variants={weights[folder].precision_name: folder for folder in unlanded},
        cases=grid.scoring.fidelity_cases,
        training=grid.training,
        prompt=grid.prompt,
        data=data,
        home=home(),
    )
    # A log of these measurements alone: another sweep may measure the same model in other ways.
    name = f"fidelity-{model.name}-{short_digest({'ids': list(unlanded.values())})}"
    emit = publisher(f"fidelity {model.name}")
    measurement = run_job("tasks.scoring.job:run_fidelity", job, name, emit, at_most)

    for folder, id in unlanded.items():
        variant = weights[folder]
        shared = {
            "fidelity_id": id,
            "base_model": variant.base_model,
            "bits": variant.bits,
            "precision": variant.precision_name,
            "reference_precision": reference.original_precision,
            "random_weights": reference.random_weights,
            "variant_digest": variant.digest,
            "reference_digest": reference.digest,
            "dataset_digest": dataset.dataset_digest,
            "set_cases": measurement["set_cases"],
            "created_at": datetime.now(UTC).replace(tzinfo=None),
        }
        rows = [
            whole_row("fidelity", {**shared, "distribution": distribution, **columns})
            for distribution, columns in measurement["figures"][variant.precision_name].items()
        ]
        land_rows(id, "fidelity", {"fidelity": rows})

    return list(ids.values())


def fidelity_id(
    variant: VariantManifest, reference: VariantManifest, dataset: DatasetManifest, grid: Grid
) -> str:
    """The id of the measurement of a variant against its reference."""
    ingredients = {
        "variant": variant.digest,
        "reference": reference.digest,
        "test": dataset.digest_of("test"),
        "cases": grid.scoring.fidelity_cases,
        "max_tokens": grid.training.max_tokens,
        "prompt": load_prompt(grid.prompt).digest,
        "versions": versions(),
        "scoring": SCORES_VERSION,
    }
    return f"fidelity-{variant.base_model}-{variant.precision_name}-{short_digest(ingredients)}"
