"""Steps: the baselines of a dataset, and the untuned model of a variant, landed as experiments of
kind `baseline`.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import as_cached, is_transient
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.prompts import load_prompt
from tasks.judging.evaluation_rows import judged_rows
from tasks.judging.scores_folder import read_scores
from tasks.landing import is_landed, land_rows, whole_row
from tasks.models.manifest import VariantManifest
from tasks.precisions import Precision
from tasks.progress import publisher
from tasks.runtime.backend import backend, versions
from tasks.runtime.home import home
from tasks.runtime.run_step import run_step
from tasks.runtime.store import intact_manifest
from tasks.scoring.arguments import UntunedScoringJob
from tasks.scoring.baselines import (
    OF_A_DATASET,
    ZERO_SHOT,
    baseline_evaluation,
    baseline_scores_id,
    dataset_baseline_id,
    dataset_baseline_rows,
    zero_shot_id,
)
from tasks.spec import BaseModelSpec, Grid, PromptChoice, Scoring, evaluation_id, short_digest
from tasks.tuning.training_rows import weights_columns


@task(task_run_name="baselines", retries=2, retry_delay_seconds=2, retry_condition_fn=is_transient)
def baselines(scoring: Scoring, data: Path) -> list[str]:
    """evaluation_ids of always_gp, always_ed and tfidf_lr on a dataset's test set and on the grid's
    further sets.

    Each is computed and landed once.
    """
    dataset = DatasetManifest.read(data)
    results = [_land_dataset_baseline(name, scoring, data, dataset) for name in OF_A_DATASET]
    ids = [id for evaluations, _ in results for id in evaluations]
    return as_cached(ids, ", ".join(ids)) if all(was_there for _, was_there in results) else ids


def _land_dataset_baseline(
    name: str, scoring: Scoring, data: Path, dataset: DatasetManifest
) -> tuple[list[str], bool]:
    """The evaluation_ids of a baseline, and whether all of them had landed before."""
    training = dataset_baseline_id(name, dataset)
    scores = {
        set_name: baseline_scores_id(training, scoring, dataset, judged=set_name)
        for set_name in dataset.evaluation_sets
    }

    unlanded = _unlanded(training, scores)
    if unlanded:
        landing = dataset_baseline_rows(name, unlanded, scoring, data, dataset)
        for set_name, rows in landing.items():
            columns = {"cell_id": name, "base_model": "none", "recipe": name}
            # First: killed in between, an evaluation would be left without its experiment.
            _land_experiment(training, columns, dataset, rows["evaluation"][0]["created_at"])
            land_rows(evaluation_id(unlanded[set_name]), "evaluation", rows)

    return [evaluation_id(id) for id in scores.values()], not unlanded


@task(
    task_run_name="zero-shot {model.name} {precision.name}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
)
def zero_shot(
    model: BaseModelSpec,
    precision: Precision,
    grid: Grid,
    variant: Path,
    data: Path,
    at_most: float | None = None,
) -> list[str]:
    """evaluation_ids of the untuned variant on test and on the grid's further evaluation sets.

    It is scored in a child process, in at most `at_most` seconds an attempt, through the frozen
    prefix that its recipes share.
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
        log = home() / "logs" / f"{ids['test']}-{short_digest(ids)}"
        emit = publisher(f"zero-shot {model.name} {precision.name}")
        arguments = job.model_dump(mode="json")
        run_step("tasks.scoring.job:run_untuned", arguments, log, emit, at_most=at_most)

    for set_name, scores in folders.items():
        evaluation = baseline_evaluation(
            training, ids[set_name], grid.scoring, dataset, 0, set_name
        )
        rows = judged_rows(evaluation, read_scores(scores))
        columns = _untuned(model.name, weights, grid.prompt)
        _land_experiment(training, columns, dataset, rows["evaluation"][0]["created_at"])
        land_rows(evaluation_id(ids[set_name]), "evaluation", rows)

    evaluation_ids = [evaluation_id(id) for id in ids.values()]
    return evaluation_ids if folders else as_cached(evaluation_ids, ", ".join(evaluation_ids))


def _unlanded(training: str, scores: dict[str, str]) -> dict[str, str]:
    """Ids of the scores whose evaluation has not landed, by set; all of them where the experiment
    has not.
    """
    if not is_landed(training):
        return scores
    return {set_name: id for set_name, id in scores.items() if not is_landed(evaluation_id(id))}


def _untuned(model: str, weights: VariantManifest, prompt: PromptChoice) -> dict[str, Any]:
    """Columns of the experiment table for an untuned variant."""
    recipe = f"{ZERO_SHOT} {prompt.title}".strip()
    return {
        "cell_id": f"{model}-{weights.precision_name}-{recipe}",
        "base_model": model,
        "bits": weights.bits,
        "precision": weights.precision_name,
        "recipe": recipe,
        "group_size": weights.group_size,
        **weights_columns(weights),
        "compute_path": backend().recorded_path,
        "backend": backend().name,
        "compute_dtype": backend().compute_dtype,
        "mlx_version": versions()["mlx"],
        "mlx_lm_version": versions()["mlx-lm"],
    }


def _land_experiment(
    training: str, columns: dict[str, Any], dataset: DatasetManifest, finished_at: datetime
) -> None:
    """Land the experiment of a baseline, unless it has landed with an earlier evaluation."""
    if is_landed(training):
        return

    row = {
        "training_id": training,
        "recipe_kind": "baseline",
        "seed": 0,
        "status": "completed",
        "finished_at": finished_at,
        "dataset_digest": dataset.dataset_digest,
        **columns,
    }
    land_rows(training, "training", {"experiment": [whole_row("experiment", row)]})
