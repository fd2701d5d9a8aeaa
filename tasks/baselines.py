"""Steps: the baselines of a dataset, and the untuned model of a variant, landed as experiments of their own kind."""

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.corpus.prepare import judged_sets
from tasks.corpus.prompts import load_prompt
from tasks.judging.evaluation_rows import judged_rows
from tasks.judging.scores_folder import read_scores
from tasks.landing import is_landed, land_rows, whole_row
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.device import backend, compute_dtype, compute_path, versions
from tasks.runtime.store import complete, home, verify
from tasks.scoring.baselines import (
    OF_A_DATASET,
    ZERO_SHOT,
    baseline_evaluation_id,
    baseline_judging,
    dataset_baseline_id,
    dataset_baseline_rows,
    zero_shot_id,
)
from tasks.spec import Scoring, Training
from tasks.tuning.training_rows import dataset_digest, source_digest


@task(task_run_name="baselines", retries=2, retry_delay_seconds=2, retry_condition_fn=is_transient)
def baselines(scoring: dict[str, Any], data: str) -> list[str]:
    """evaluation_ids of always_gp, always_ed and tfidf_lr on a dataset's test set and on the grid's further evaluation
    sets; each is computed and landed once."""
    settings, dataset = Scoring.model_validate(scoring), verify(Path(data), deep=False)
    landed: list[str] = []
    for name in OF_A_DATASET:
        training = dataset_baseline_id(name, dataset)
        ids = {
            judged: baseline_evaluation_id(training, settings, dataset, judged=judged)
            for judged in judged_sets(dataset)
        }
        missing = {
            judged: evaluation for judged, evaluation in ids.items() if not is_landed(evaluation)
        }
        landed += ids.values()
        if not missing:
            continue
        for judged, rows in dataset_baseline_rows(
            name, missing, settings, Path(data), dataset
        ).items():
            own = {"cell_id": name, "base_model": "none", "recipe": name}
            if not is_landed(training):
                _land_experiment(training, own, dataset, rows["evaluation"][0]["created_at"])
            land_rows(missing[judged], "evaluation", rows)
    return landed


@task(
    task_run_name="zero-shot {model[name]} {bits}bit",
    retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
)  # fmt: skip
def zero_shot(
    model: dict[str, Any],
    bits: int,
    scoring: dict[str, Any],
    training: dict[str, Any],
    variant: str,
    data: str,
) -> list[str]:
    """evaluation_ids of the untuned variant on test and on the grid's further evaluation sets, scored in a child process
    through the prefix that its recipes share."""
    settings, dataset = Scoring.model_validate(scoring), verify(Path(data), deep=False)
    weights = verify(Path(variant), deep=False)
    name = zero_shot_id(weights, load_prompt().digest, versions(), compute_dtype())
    max_tokens = Training.model_validate(training).max_tokens
    ids = {
        judged: baseline_evaluation_id(name, settings, dataset, max_tokens, judged)
        for judged in judged_sets(dataset)
    }
    folders = {
        judged: home() / "baselines" / ids[judged] for judged in ids if not is_landed(ids[judged])
    }
    if any(complete(scores, deep=True) is None for scores in folders.values()):
        args = {"scoring": scoring, "training": training, "variant": variant, "data": data, "home": str(home()),
                "scores": str(home() / "baselines" / ids["test"]),
                "sets": {judged: str(scores) for judged, scores in folders.items() if judged != "test"}}  # fmt: skip
        title = f"zero-shot {model['name']} {bits}bit"
        run_child(
            "tasks.scoring.job:run_untuned", args, home() / "logs" / ids["test"], follow(title)
        )
    for judged, scores in folders.items():
        what = baseline_judging(name, ids[judged], settings, dataset, 0, judged)
        rows = judged_rows(what, read_scores(scores))
        if not is_landed(name):
            _land_experiment(
                name,
                _untuned(model["name"], bits, weights),
                dataset,
                rows["evaluation"][0]["created_at"],
            )
        land_rows(ids[judged], "evaluation", rows)
    return list(ids.values())


def _untuned(model: str, bits: int, weights: dict[str, Any]) -> dict[str, Any]:
    """Columns of the experiment table for a variant as it is; `weights`: its manifest."""
    return {
        "cell_id": f"{model}-{bits}bit-{ZERO_SHOT}", "base_model": model, "bits": bits,
        "recipe": ZERO_SHOT, "group_size": weights["group_size"], "weights_source": weights["weights_source"],
        "source_digest": source_digest(weights),
        "original_precision": weights["original_precision"], "random_weights": weights["random_weights"],
        "weights_digest": weights["digest"], "stored_bytes": weights["stored_bytes"],
        "bits_per_weight": weights["bits_per_weight"], "compute_path": compute_path(), "backend": backend(),
        "compute_dtype": compute_dtype(), "mlx_version": versions()["mlx"], "mlx_lm_version": versions()["mlx-lm"],
    }  # fmt: skip


def _land_experiment(
    training: str, own: dict[str, Any], dataset: dict[str, Any], finished: datetime
) -> None:
    row = {
        "training_id": training, "recipe_kind": "baseline", "seed": 0, "status": "completed", "finished_at": finished,
        "dataset_digest": dataset_digest(dataset), **own,
    }  # fmt: skip
    land_rows(training, "training", {"experiment": [whole_row("experiment", row)]})
