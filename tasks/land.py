"""Step: a trained and scored experiment to the landing folder, and from there into the warehouse."""

from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import is_transient
from tasks.judging.evaluation_rows import evaluation_rows
from tasks.landing import _landed_status, is_landed, land_rows
from tasks.runtime.store import home, verify
from tasks.spec import ExperimentSpec
from tasks.tuning.training_rows import training_rows


@task(
    task_run_name="land {experiment[model][name]} {experiment[bits]}bit {experiment[recipe][name]} s{experiment[seed]}",
    retries=3, retry_delay_seconds=2, retry_condition_fn=is_transient,
)  # fmt: skip
def land(
    experiment: dict[str, Any], training: str, evaluation: str, variant: str, data: str
) -> str:
    """evaluation_id, once training and evaluation are in the warehouse; what has landed is not worked out again."""
    # A training that lost its folder and failed to come back has a row that says so, and is complete by now. What has
    # landed need not be loaded: a sweep begins with that.
    if is_landed(evaluation) and _landed_status(training) == "completed":
        return evaluation
    spec = ExperimentSpec.model_validate(experiment)
    folder = home() / "experiments" / training
    weights, dataset = verify(Path(variant), deep=False), verify(Path(data), deep=False)
    summary = verify(folder, deep=True)["summary"]
    land_rows(
        training, "training", training_rows(spec, training, weights, dataset, summary, folder)
    )
    scores = folder / "scores" / evaluation
    land_rows(
        evaluation, "evaluation", evaluation_rows(spec, training, evaluation, scores, dataset)
    )
    return evaluation
