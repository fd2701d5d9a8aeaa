"""Step: fine-tune one experiment in a child process."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import cached_folder, is_transient
from tasks.identity import experiment_folder
from tasks.progress import follow
from tasks.runtime.store import home
from tasks.spec import ExperimentSpec
from tasks.tuning.step import train_experiment


def _folder(experiment: dict[str, Any], variant: str, data: str) -> Path:
    return experiment_folder(ExperimentSpec.model_validate(experiment), variant, data)


@task(
    task_run_name="train {experiment[model][name]} {experiment[bits]}bit {experiment[recipe][name]} s{experiment[seed]}",
    retries=2, retry_delay_seconds=5, retry_condition_fn=is_transient,
    cache_key_fn=cached_folder("train", _folder), persist_result=True, result_serializer="json",
)  # fmt: skip
def train(experiment: dict[str, Any], variant: str, data: str) -> str:
    """training_id of the trained experiment; its folder holds adapters, curve and summary."""
    spec = ExperimentSpec.model_validate(experiment)
    folder = experiment_folder(spec, variant, data)
    return train_experiment(
        spec, folder, Path(variant), Path(data), home(), follow(f"train {spec.cell_id}")
    )
