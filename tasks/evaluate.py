"""Step: score a trained experiment on calibration and test, with its dropout passes, in a child process."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import cached_folder, is_transient
from tasks.identity import scores_folder
from tasks.progress import follow
from tasks.runtime.child import run_child
from tasks.runtime.store import complete, home
from tasks.spec import ExperimentSpec


def _folder(experiment: dict[str, Any], training: str, variant: str, data: str) -> Path:
    return scores_folder(ExperimentSpec.model_validate(experiment), training, data)


@task(
    task_run_name="evaluate {experiment[model][name]} {experiment[bits]}bit {experiment[recipe][name]} s{experiment[seed]}",
    retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
    cache_key_fn=cached_folder("evaluate", _folder), persist_result=True, result_serializer="json",
)  # fmt: skip
def evaluate(experiment: dict[str, Any], training: str, variant: str, data: str) -> str:
    """evaluation_id; its scores folder holds probabilities per case, and no patient text."""
    spec = ExperimentSpec.model_validate(experiment)
    scores = scores_folder(spec, training, data)
    if complete(scores, deep=True) is None:
        folder = home() / "experiments" / training
        args = {
            "experiment": experiment, "variant": variant, "data": data, "home": str(home()), "folder": str(folder),
            "scores": str(scores),
        }  # fmt: skip
        log = home() / "logs" / f"evaluate-{scores.name}"
        run_child("tasks.scoring.job:run", args, log, follow(f"evaluate {spec.cell_id}"))
    return scores.name
